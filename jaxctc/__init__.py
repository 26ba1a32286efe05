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

Any automaton in the place of one label sequence:

* `Fsa`, `fsa_score`, `fsa_best_path`: the weight of all paths through the frames, and the best.
* `ctc_fsa`, `compose`, `topologies`: what frames read as labels, with `with_star` for missing ones.
* `linear_fsa`, `union_fsa`, `ngram_fsa`, `graphs`: graphs of labels.
* `lfmmi_loss`, `ctc_denominator`: the labels against all others (LF-MMI, CTC-CRF).

Training beyond the likelihood, and what is given beside it:

* `mwer_loss`, `ctc_mwer_loss`: the expected number of errors over an N-best list.
* `ctc_entropy`, `ctc_prior_loss`, `ctc_label_priors`: against peaky alignments.
* `consistency_loss`, `intermediate_ctc_loss`, `self_condition`, `focal_loss`: regularisers.

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
* `arcs`, `fsa`: automata as arrays, and their lattice.
* `graphs`, `topologies`, `stars`, `mmi`: what is made of them.
* `transducer`, `joint`, `simple_joint`, `pruned`, `tdt`: the transducer lattice, and what its arcs
  come from.
* `align`: alignment as the derivative of the best score.
* `decode`, `prefix_search`, `beam_state`, `beam`: greedy and prefix beam search.
* `transducer_align`: where its labels stand, as the derivative of its total.
* `transducer_search`, `transducer_decode`: greedy and beam search with a predictor's state.
* `automaton`, `lm`, `constraints`: what a beam search can be told, as dense tables.
* `sequence`: minimum word error rate.
* `peaks`, `regularisers`: what CTC training is given beside its loss.
* `metrics`: edit distance and error rates.
* `checks`, `automata_checks`, `transducer_checks`: every check of an argument, one wording each.
"""

from jaxctc import compat as compat
from jaxctc.automata import graphs as graphs, topologies as topologies
from jaxctc.automata.arcs import Fsa as Fsa
from jaxctc.automata.graphs import linear_fsa as linear_fsa
from jaxctc.automata.graphs import ngram_fsa as ngram_fsa
from jaxctc.automata.graphs import union_fsa as union_fsa
from jaxctc.automata.score import FsaPath as FsaPath
from jaxctc.automata.score import fsa_best_path as fsa_best_path
from jaxctc.automata.score import fsa_score as fsa_score
from jaxctc.automata.stars import with_star as with_star
from jaxctc.automata.topologies import compose as compose
from jaxctc.automata.topologies import ctc_fsa as ctc_fsa
from jaxctc.compat.torch import CTCLoss as CTCLoss
from jaxctc.core import semirings as semirings
from jaxctc.ctc.align import Alignment as Alignment
from jaxctc.ctc.align import forced_align as forced_align
from jaxctc.ctc.beam import ctc_beam_extend as ctc_beam_extend
from jaxctc.ctc.beam import ctc_beam_finish as ctc_beam_finish
from jaxctc.ctc.beam import ctc_beam_search as ctc_beam_search
from jaxctc.ctc.beam import ctc_beam_start as ctc_beam_start
from jaxctc.ctc.beam_state import BeamState as BeamState
from jaxctc.ctc.greedy import Hypotheses as Hypotheses
from jaxctc.ctc.greedy import ctc_greedy_decode as ctc_greedy_decode
from jaxctc.ctc.loss import CTCPosteriors as CTCPosteriors
from jaxctc.ctc.loss import ctc_loss as ctc_loss
from jaxctc.ctc.loss import ctc_posteriors as ctc_posteriors
from jaxctc.ctc.loss import is_feasible as is_feasible
from jaxctc.language.constraints import Grammar as Grammar
from jaxctc.language.constraints import Hotwords as Hotwords
from jaxctc.language.constraints import Lexicon as Lexicon
from jaxctc.language.ngram import NGram as NGram
from jaxctc.language.tables import Automaton as Automaton
from jaxctc.language.tables import combine as combine
from jaxctc.metrics import EditOperations as EditOperations
from jaxctc.metrics import edit_distance as edit_distance
from jaxctc.metrics import edit_operations as edit_operations
from jaxctc.metrics import error_rate as error_rate
from jaxctc.training.entropy import ctc_entropy as ctc_entropy
from jaxctc.training.entropy import ctc_label_priors as ctc_label_priors
from jaxctc.training.entropy import ctc_prior_loss as ctc_prior_loss
from jaxctc.training.mmi import ctc_denominator as ctc_denominator
from jaxctc.training.mmi import lfmmi_loss as lfmmi_loss
from jaxctc.training.mwer import ctc_mwer_loss as ctc_mwer_loss
from jaxctc.training.mwer import mwer_loss as mwer_loss
from jaxctc.training.regularisers import consistency_loss as consistency_loss
from jaxctc.training.regularisers import focal_loss as focal_loss
from jaxctc.training.regularisers import intermediate_ctc_loss as intermediate_ctc_loss
from jaxctc.training.regularisers import self_condition as self_condition
from jaxctc.transducer.align import TransducerAlignment as TransducerAlignment
from jaxctc.transducer.align import rnnt_align as rnnt_align
from jaxctc.transducer.align import rnnt_posteriors as rnnt_posteriors
from jaxctc.transducer.decode import rnnt_beam_search as rnnt_beam_search
from jaxctc.transducer.decode import rnnt_greedy_decode as rnnt_greedy_decode
from jaxctc.transducer.joint import hat_log_probs as hat_log_probs
from jaxctc.transducer.joint import rnnt_loss_from_joint as rnnt_loss_from_joint
from jaxctc.transducer.loss import TransducerArcs as TransducerArcs
from jaxctc.transducer.loss import rnnt_log_probs as rnnt_log_probs
from jaxctc.transducer.loss import rnnt_loss as rnnt_loss
from jaxctc.transducer.loss import rnnt_loss_from_log_probs as rnnt_loss_from_log_probs
from jaxctc.transducer.pruned import PrunedInputs as PrunedInputs
from jaxctc.transducer.pruned import rnnt_loss_pruned as rnnt_loss_pruned
from jaxctc.transducer.pruned import rnnt_prune as rnnt_prune
from jaxctc.transducer.pruned import rnnt_prune_ranges as rnnt_prune_ranges
from jaxctc.transducer.simple import rnnt_loss_simple as rnnt_loss_simple
from jaxctc.transducer.simple import rnnt_simple_log_probs as rnnt_simple_log_probs
from jaxctc.transducer.tdt import tdt_loss as tdt_loss

__version__ = "0.1.0"
