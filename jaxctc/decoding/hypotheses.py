"""What every decoder returns."""

from typing import NamedTuple

import jax


class Hypotheses(NamedTuple):
    """Decoded label sequences: one per input, or N per input, the best first.

    An empty place in the N-best list has length 0 and score ``-inf``.
    """

    labels: jax.Array  # int32 [*batch, (N,) L], padded with -1
    lengths: jax.Array  # int32 [*batch, (N,)]
    scores: jax.Array  # float [*batch, (N,)]: log-probability, never above 0
    frames: jax.Array  # int32 [*batch, (N,) L]: where each label was emitted, padded with -1
    scorer_scores: jax.Array  # float [*batch, (N,)]: the scorer's score, 0 without one
    # bool [*batch, (N,)]: may a sequence end so? False in empty places, and where the scorer wants
    # more labels, such as the rest of a word; then its score is that of the labels so far.
    complete: jax.Array
    # int32 [*batch, (N,) L], 0 past the length: of CTC, the frames of the label's run in the best
    # alignment; of transducers, by how many frames its emission advances.
    durations: jax.Array
    # float [*batch, (N,) L], 0 past the length: the label's log-probability where it was emitted,
    # of CTC at the frame of its run where it is highest.
    label_scores: jax.Array
    # float [*batch, (N,) L], 0 past the length: 1 minus the entropy of the classes where the label
    # was emitted, as a share of the highest entropy, so that 1 is sure; likewise.
    confidences: jax.Array
    # bool [*batch, (N,)], the same for all N: were there labels that `max_labels` had no room for?
    full: jax.Array
