"""Transducers (Graves 2012), also called RNN-T.

* `rnnt_loss`: the loss from logits; `rnnt_loss_from_joint` never holds all logits at once.
* `rnnt_loss_simple`, `rnnt_prune_ranges`, `rnnt_prune`, `rnnt_loss_pruned`: pruned training.
* `w_transducer_loss`: for transcripts that lack words at both ends.
* `rnnt_with_star`: arcs for transcripts that lack words anywhere.
* `tdt_loss`: tokens with durations; `multi_blank_loss`: blanks of several frames.
* `rnnt_log_probs`, `hat_log_probs`, `rnnt_simple_log_probs`, `rnnt_pruned_log_probs`:
  log-probabilities on the lattice's arcs, for `rnnt_loss_from_log_probs`, `rnnt_posteriors` and
  `rnnt_align`.
* `rnnt_greedy_decode`, `rnnt_beam_search`: label sequences from predictor and joint network.
* `rnnt_decode_start`, `rnnt_decode_extend`, `rnnt_decode_finish`, `rnnt_decode_commit`: the same on
  a stream.
* `tdt_greedy_decode`, `tdt_beam_search`, `tdt_posteriors`, `tdt_align`: of transducers with
  durations.
* `multi_blank_greedy_decode`, `multi_blank_beam_search`: of those with big blanks.
* `rnnt_internal_lm`: the language model inside a transducer, as a scorer.
"""

from jaxctc.transducer.align import TransducerAlignment as TransducerAlignment
from jaxctc.transducer.align import rnnt_align as rnnt_align
from jaxctc.transducer.align import rnnt_posteriors as rnnt_posteriors
from jaxctc.transducer.decode import rnnt_beam_search as rnnt_beam_search
from jaxctc.transducer.decode import rnnt_greedy_decode as rnnt_greedy_decode
from jaxctc.transducer.internal import rnnt_internal_lm as rnnt_internal_lm
from jaxctc.transducer.joint import hat_log_probs as hat_log_probs
from jaxctc.transducer.joint import rnnt_loss_from_joint as rnnt_loss_from_joint
from jaxctc.transducer.lattice import TransducerArcs as TransducerArcs
from jaxctc.transducer.loss import rnnt_log_probs as rnnt_log_probs
from jaxctc.transducer.loss import rnnt_loss as rnnt_loss
from jaxctc.transducer.loss import rnnt_loss_from_log_probs as rnnt_loss_from_log_probs
from jaxctc.transducer.multi_blank import multi_blank_loss as multi_blank_loss
from jaxctc.transducer.multi_blank_decode import (
    multi_blank_beam_search as multi_blank_beam_search,
)
from jaxctc.transducer.multi_blank_decode import (
    multi_blank_greedy_decode as multi_blank_greedy_decode,
)
from jaxctc.transducer.pruned import rnnt_loss_pruned as rnnt_loss_pruned
from jaxctc.transducer.pruned import rnnt_pruned_log_probs as rnnt_pruned_log_probs
from jaxctc.transducer.pruning import PrunedInputs as PrunedInputs
from jaxctc.transducer.pruning import rnnt_prune as rnnt_prune
from jaxctc.transducer.pruning import rnnt_prune_ranges as rnnt_prune_ranges
from jaxctc.transducer.simple import rnnt_loss_simple as rnnt_loss_simple
from jaxctc.transducer.simple import rnnt_simple_log_probs as rnnt_simple_log_probs
from jaxctc.transducer.skipping import w_transducer_loss as w_transducer_loss
from jaxctc.transducer.star import rnnt_with_star as rnnt_with_star
from jaxctc.transducer.state import TransducerState as TransducerState
from jaxctc.transducer.stream import rnnt_decode_commit as rnnt_decode_commit
from jaxctc.transducer.stream import rnnt_decode_extend as rnnt_decode_extend
from jaxctc.transducer.stream import rnnt_decode_finish as rnnt_decode_finish
from jaxctc.transducer.stream import rnnt_decode_start as rnnt_decode_start
from jaxctc.transducer.tdt import tdt_loss as tdt_loss
from jaxctc.transducer.tdt_align import TDTAlignment as TDTAlignment
from jaxctc.transducer.tdt_align import tdt_align as tdt_align
from jaxctc.transducer.tdt_align import tdt_posteriors as tdt_posteriors
from jaxctc.transducer.tdt_decode import tdt_beam_search as tdt_beam_search
from jaxctc.transducer.tdt_decode import tdt_greedy_decode as tdt_greedy_decode
