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
