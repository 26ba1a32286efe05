"""What every decoder returns."""

from typing import NamedTuple

import jax


class Hypotheses(NamedTuple):
    """Decoded label sequences: one per input, or N per input, the best first.

    An empty place in the N-best list has length 0 and score ``-inf``.

    Attributes:
      labels: int32 ``[*batch, (N,) L]``, padded with -1.
      lengths: int32 ``[*batch, (N,)]``.
      scores: float ``[*batch, (N,)]``: log-probability, never above 0.
      frames: int32 ``[*batch, (N,) L]``: where each label was emitted, padded with -1.
      scorer_scores: float ``[*batch, (N,)]``: the scorer's score, 0 without one.
      complete: bool ``[*batch, (N,)]``: may a sequence end so? False in empty places, and where the
        scorer wants more labels, such as the rest of a word; then its score is that of the labels
        so far.
      durations: int32 ``[*batch, (N,) L]``, 0 past the length: of CTC, the frames of the label's
        run in the best alignment; of transducers, by how many frames its emission advances.
      label_scores: float ``[*batch, (N,) L]``, 0 past the length: the label's log-probability where
        it was emitted, of CTC at the frame of its run where it is highest.
      confidences: float ``[*batch, (N,) L]``, 0 past the length: 1 minus the entropy of the classes
        where the label was emitted, as a share of the highest entropy, so that 1 is sure; likewise.
      full: bool ``[*batch, (N,)]``, the same for all N: were there labels that `max_labels` had no
        room for?
    """

    labels: jax.Array
    lengths: jax.Array
    scores: jax.Array
    frames: jax.Array
    scorer_scores: jax.Array
    complete: jax.Array
    durations: jax.Array
    label_scores: jax.Array
    confidences: jax.Array
    full: jax.Array
