"""CTC and sequence training for JAX: every objective is a sum over the paths of a lattice.

The families, each a package whose docstring says what is in it; imports point upwards in this list:

* `core`: extended-range floats, semirings, the recursion, checks of arguments; `kernels.use`
  lets a GPU or TPU run the recursion as one kernel.
* `metrics`: `edit_distance`, `edit_operations`, `error_rate`.
* `language`: language models and constraints for searches.
* `automata`: losses of any weighted automaton, instead of one label sequence.
* `decoding`: what the searches of CTC and of transducers share.
* `ctc`: loss, posteriors, alignment and decoding of CTC.
* `transducer`: the same for transducers (RNN-T), with pruned training and durations.
* `training`: minimum word error rate, MMI, entropy, priors, regularisers.
* `compat`: the names and arguments of torch (`CTCLoss`), torchaudio, Keras, optax and Flax.

All public names of the families are names of this package too, such as `jaxctc.ctc_loss`.
"""

import sys

from jaxctc import compat as compat
from jaxctc.automata import Fsa as Fsa
from jaxctc.automata import FsaPath as FsaPath
from jaxctc.automata import compose as compose
from jaxctc.automata import ctc_fsa as ctc_fsa
from jaxctc.automata import fsa_best_path as fsa_best_path
from jaxctc.automata import fsa_score as fsa_score
from jaxctc.automata import graphs as graphs
from jaxctc.automata import linear_fsa as linear_fsa
from jaxctc.automata import ngram_fsa as ngram_fsa
from jaxctc.automata import topologies as topologies
from jaxctc.automata import union_fsa as union_fsa
from jaxctc.automata import with_star as with_star
from jaxctc.compat.torch import CTCLoss as CTCLoss
from jaxctc.core import kernels as kernels
from jaxctc.core import semirings as semirings
from jaxctc.ctc import Alignment as Alignment
from jaxctc.ctc import BeamState as BeamState
from jaxctc.ctc import CTCPosteriors as CTCPosteriors
from jaxctc.ctc import PrefixState as PrefixState
from jaxctc.ctc import Word as Word
from jaxctc.ctc import ctc_beam_commit as ctc_beam_commit
from jaxctc.ctc import ctc_beam_extend as ctc_beam_extend
from jaxctc.ctc import ctc_beam_finish as ctc_beam_finish
from jaxctc.ctc import ctc_beam_rescore as ctc_beam_rescore
from jaxctc.ctc import ctc_beam_search as ctc_beam_search
from jaxctc.ctc import ctc_beam_start as ctc_beam_start
from jaxctc.ctc import ctc_greedy_decode as ctc_greedy_decode
from jaxctc.ctc import ctc_loss as ctc_loss
from jaxctc.ctc import ctc_loss_from_features as ctc_loss_from_features
from jaxctc.ctc import ctc_posteriors as ctc_posteriors
from jaxctc.ctc import ctc_prefix_score as ctc_prefix_score
from jaxctc.ctc import ctc_prefix_start as ctc_prefix_start
from jaxctc.ctc import explain as explain
from jaxctc.ctc import forced_align as forced_align
from jaxctc.ctc import is_feasible as is_feasible
from jaxctc.ctc import words as words
from jaxctc.decoding import Hypotheses as Hypotheses
from jaxctc.language import Automaton as Automaton
from jaxctc.language import Grammar as Grammar
from jaxctc.language import Hotwords as Hotwords
from jaxctc.language import Lexicon as Lexicon
from jaxctc.language import NGram as NGram
from jaxctc.language import Scorer as Scorer
from jaxctc.language import combine as combine
from jaxctc.language import score_sequence as score_sequence
from jaxctc.language import scorer_state as scorer_state
from jaxctc.language import tabulate as tabulate
from jaxctc.metrics import EditOperations as EditOperations
from jaxctc.metrics import edit_distance as edit_distance
from jaxctc.metrics import edit_operations as edit_operations
from jaxctc.metrics import error_rate as error_rate
from jaxctc.training import consistency_loss as consistency_loss
from jaxctc.training import ctc_denominator as ctc_denominator
from jaxctc.training import ctc_entropy as ctc_entropy
from jaxctc.training import ctc_label_priors as ctc_label_priors
from jaxctc.training import ctc_mwer_loss as ctc_mwer_loss
from jaxctc.training import ctc_prior_loss as ctc_prior_loss
from jaxctc.training import focal_loss as focal_loss
from jaxctc.training import intermediate_ctc_loss as intermediate_ctc_loss
from jaxctc.training import lfmmi_loss as lfmmi_loss
from jaxctc.training import mwer_loss as mwer_loss
from jaxctc.training import self_condition as self_condition
from jaxctc.transducer import PrunedInputs as PrunedInputs
from jaxctc.transducer import TDTAlignment as TDTAlignment
from jaxctc.transducer import TransducerAlignment as TransducerAlignment
from jaxctc.transducer import TransducerArcs as TransducerArcs
from jaxctc.transducer import TransducerState as TransducerState
from jaxctc.transducer import hat_log_probs as hat_log_probs
from jaxctc.transducer import multi_blank_beam_search as multi_blank_beam_search
from jaxctc.transducer import multi_blank_greedy_decode as multi_blank_greedy_decode
from jaxctc.transducer import multi_blank_loss as multi_blank_loss
from jaxctc.transducer import rnnt_align as rnnt_align
from jaxctc.transducer import rnnt_beam_search as rnnt_beam_search
from jaxctc.transducer import rnnt_decode_commit as rnnt_decode_commit
from jaxctc.transducer import rnnt_decode_extend as rnnt_decode_extend
from jaxctc.transducer import rnnt_decode_finish as rnnt_decode_finish
from jaxctc.transducer import rnnt_decode_start as rnnt_decode_start
from jaxctc.transducer import rnnt_greedy_decode as rnnt_greedy_decode
from jaxctc.transducer import rnnt_internal_lm as rnnt_internal_lm
from jaxctc.transducer import rnnt_log_probs as rnnt_log_probs
from jaxctc.transducer import rnnt_loss as rnnt_loss
from jaxctc.transducer import rnnt_loss_from_joint as rnnt_loss_from_joint
from jaxctc.transducer import rnnt_loss_from_log_probs as rnnt_loss_from_log_probs
from jaxctc.transducer import rnnt_loss_pruned as rnnt_loss_pruned
from jaxctc.transducer import rnnt_loss_simple as rnnt_loss_simple
from jaxctc.transducer import rnnt_posteriors as rnnt_posteriors
from jaxctc.transducer import rnnt_prune as rnnt_prune
from jaxctc.transducer import rnnt_prune_ranges as rnnt_prune_ranges
from jaxctc.transducer import rnnt_pruned_log_probs as rnnt_pruned_log_probs
from jaxctc.transducer import rnnt_simple_log_probs as rnnt_simple_log_probs
from jaxctc.transducer import rnnt_with_star as rnnt_with_star
from jaxctc.transducer import tdt_align as tdt_align
from jaxctc.transducer import tdt_beam_search as tdt_beam_search
from jaxctc.transducer import tdt_greedy_decode as tdt_greedy_decode
from jaxctc.transducer import tdt_loss as tdt_loss
from jaxctc.transducer import tdt_posteriors as tdt_posteriors
from jaxctc.transducer import w_transducer_loss as w_transducer_loss

# So that `import jaxctc.kernels` works as `jaxctc.kernels.use` does.
for _module in (graphs, kernels, semirings, topologies):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module

__version__ = "0.1.0"
