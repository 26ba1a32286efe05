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
    automaton_scores: jax.Array  # float [*batch, (N,)]: the automaton's score, 0 without one
