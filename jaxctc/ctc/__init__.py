"""Connectionist temporal classification (Graves et al. 2006).

* `ctc_loss`: the loss, with exact gradients in float32.
* `ctc_loss_from_features`: the same with the last layer inside, without the memory of all logits.
* `ctc_posteriors`: the probability of each label at each frame.
* `is_feasible`: whether labels fit into frames.
* `explain`: why a loss is ``inf``, in words.
* `forced_align`: the best alignment, frame by frame, of any length.
* `ctc_greedy_decode`, `ctc_beam_search`: label sequences from logits.
* `ctc_beam_start`, `ctc_beam_extend`, `ctc_beam_finish`: the same beam search on a stream.
* `ctc_beam_commit`: what all hypotheses of a stream agree on; `ctc_beam_rescore`: another scorer.
* `words`: words of hypotheses, with frames, seconds and confidences.
* `ctc_prefix_start`, `ctc_prefix_score`: how probable prefixes are, beside an attention decoder.
"""

from jaxctc.ctc.align import Alignment as Alignment
from jaxctc.ctc.align import forced_align as forced_align
from jaxctc.ctc.beam import ctc_beam_extend as ctc_beam_extend
from jaxctc.ctc.beam import ctc_beam_finish as ctc_beam_finish
from jaxctc.ctc.beam import ctc_beam_search as ctc_beam_search
from jaxctc.ctc.beam import ctc_beam_start as ctc_beam_start
from jaxctc.ctc.beam_state import BeamState as BeamState
from jaxctc.ctc.between import ctc_beam_commit as ctc_beam_commit
from jaxctc.ctc.between import ctc_beam_rescore as ctc_beam_rescore
from jaxctc.ctc.explain import explain as explain
from jaxctc.ctc.feasibility import is_feasible as is_feasible
from jaxctc.ctc.features import ctc_loss_from_features as ctc_loss_from_features
from jaxctc.ctc.greedy import ctc_greedy_decode as ctc_greedy_decode
from jaxctc.ctc.loss import CTCPosteriors as CTCPosteriors
from jaxctc.ctc.loss import ctc_loss as ctc_loss
from jaxctc.ctc.loss import ctc_posteriors as ctc_posteriors
from jaxctc.ctc.prefix_score import PrefixState as PrefixState
from jaxctc.ctc.prefix_score import ctc_prefix_score as ctc_prefix_score
from jaxctc.ctc.prefix_score import ctc_prefix_start as ctc_prefix_start
from jaxctc.ctc.words import Word as Word
from jaxctc.ctc.words import words as words
