"""CTC and sequence training for JAX: every objective a sum over the paths of a lattice.

Losses and what follows from them:

* `ctc_loss`: connectionist temporal classification, exact gradients in float32.
* `ctc_posteriors`: where in time each label stands, as probabilities.
* `is_feasible`: whether labels fit into frames.
* `rnnt_loss`: the transducer's, and `tdt_loss` with durations; `rnnt_loss_from_joint` without
  ever holding all logits.
* `rnnt_loss_simple`, `rnnt_prune_ranges`, `rnnt_prune`, `rnnt_loss_pruned`: pruned training.
* `rnnt_log_probs`, `hat_log_probs`, `rnnt_simple_log_probs`: what stands on a transducer's arcs;
  `rnnt_loss_from_log_probs`, `rnnt_posteriors`, `rnnt_align`: what follows from it.

After training:

* `forced_align`: the best alignment, frame by frame, of any length.
* `ctc_greedy_decode`, `ctc_beam_search`: what was said, from the logits.
* `ctc_beam_start`, `ctc_beam_extend`, `ctc_beam_finish`: the same search on a stream.
* `rnnt_greedy_decode`, `rnnt_beam_search`: the same of transducers, from their two functions.
* `NGram`, `Lexicon`, `Grammar`, `Hotwords`, `combine`: what the search knows of the language.
* `edit_distance`, `edit_operations`, `error_rate`: how wrong it was.

For code that comes from other frameworks:

* `CTCLoss`, `compat.torch.ctc_loss`: torch's.
* `compat.torch.rnnt_loss`: torchaudio's.
* `compat.optax.ctc_loss`, `compat.optax.ctc_loss_with_forward_probs`: optax's.

How it is built, each module on those before it:

* `xfloat`: floating-point numbers with an exponent of their own.
* `semirings`: what sums and products of path weights are.
* `recursion`: the one scan; posteriors and best paths are its gradients.
* `ctc`: the CTC lattice and its public functions.
* `transducer`, `joint`, `pruned`, `tdt`: the transducer lattice, and what its arcs come from.
* `align`: alignment as the derivative of the best score.
* `decode`, `prefix_search`, `beam_state`, `beam`: greedy and prefix beam search.
* `transducer_search`, `transducer_decode`: greedy and beam search with a predictor's state.
* `automaton`, `lm`, `constraints`: what a beam search can be told, as dense tables.
* `metrics`: edit distance and error rates.
* `checks`: every check of an argument.
"""

from jaxctc import compat as compat
from jaxctc.align import Alignment as Alignment
from jaxctc.align import forced_align as forced_align
from jaxctc.automaton import Automaton as Automaton
from jaxctc.automaton import combine as combine
from jaxctc.beam import ctc_beam_extend as ctc_beam_extend
from jaxctc.beam import ctc_beam_finish as ctc_beam_finish
from jaxctc.beam import ctc_beam_search as ctc_beam_search
from jaxctc.beam import ctc_beam_start as ctc_beam_start
from jaxctc.beam_state import BeamState as BeamState
from jaxctc.compat.torch import CTCLoss as CTCLoss
from jaxctc.constraints import Grammar as Grammar
from jaxctc.constraints import Hotwords as Hotwords
from jaxctc.constraints import Lexicon as Lexicon
from jaxctc.ctc import CTCPosteriors as CTCPosteriors
from jaxctc.ctc import ctc_loss as ctc_loss
from jaxctc.ctc import ctc_posteriors as ctc_posteriors
from jaxctc.ctc import is_feasible as is_feasible
from jaxctc.decode import Hypotheses as Hypotheses
from jaxctc.decode import ctc_greedy_decode as ctc_greedy_decode
from jaxctc.joint import hat_log_probs as hat_log_probs
from jaxctc.joint import rnnt_loss_from_joint as rnnt_loss_from_joint
from jaxctc.lm import NGram as NGram
from jaxctc.metrics import EditOperations as EditOperations
from jaxctc.metrics import edit_distance as edit_distance
from jaxctc.metrics import edit_operations as edit_operations
from jaxctc.metrics import error_rate as error_rate
from jaxctc.pruned import PrunedInputs as PrunedInputs
from jaxctc.pruned import rnnt_loss_pruned as rnnt_loss_pruned
from jaxctc.pruned import rnnt_loss_simple as rnnt_loss_simple
from jaxctc.pruned import rnnt_prune as rnnt_prune
from jaxctc.pruned import rnnt_prune_ranges as rnnt_prune_ranges
from jaxctc.pruned import rnnt_simple_log_probs as rnnt_simple_log_probs
from jaxctc.tdt import tdt_loss as tdt_loss
from jaxctc.transducer import TransducerAlignment as TransducerAlignment
from jaxctc.transducer import TransducerArcs as TransducerArcs
from jaxctc.transducer import rnnt_align as rnnt_align
from jaxctc.transducer import rnnt_log_probs as rnnt_log_probs
from jaxctc.transducer import rnnt_loss as rnnt_loss
from jaxctc.transducer import rnnt_loss_from_log_probs as rnnt_loss_from_log_probs
from jaxctc.transducer import rnnt_posteriors as rnnt_posteriors
from jaxctc.transducer_decode import rnnt_beam_search as rnnt_beam_search
from jaxctc.transducer_decode import rnnt_greedy_decode as rnnt_greedy_decode

__version__ = "0.1.0"
