"""The state of a transducer's stream, between two pieces."""

from typing import Any, NamedTuple

import jax

from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import beam, greedy
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer.emitted import Emitted
from jaxctc.transducer.rounds import Beam


class TransducerState(NamedTuple):
    """A search between two pieces of an utterance. Every array has the leading batch axes.

    Attributes:
      frame_count: int32 ``[*batch]``: how many frames were read.
      full: bool ``[*batch]``: did a hypothesis have all labels it may, with frames to come?
      search: The path of greedy decoding, ``[*batch]``, or the beams of this frame and of those to
        come, ``[*batch, A, W]``.
      emitted: The labels so far, with their frames and scores, ``[*batch, L]`` or
        ``[*batch, A * W, L]``.
    """

    frame_count: jax.Array
    full: jax.Array
    search: greedy.Path | Beam
    emitted: Emitted

    @property
    def stream(self) -> greedy.Stream | beam.Stream:
        """The same as the search reads it, if there is one batch axis."""
        rest = self.emitted, self.frame_count, self.full
        if isinstance(self.search, greedy.Path):
            return greedy.Stream(self.search, *rest)
        return beam.Stream(self.search, *rest)


def state_of(stream: greedy.Stream | beam.Stream) -> TransducerState:
    """The state of a search."""
    search, found, count, full = stream
    return TransducerState(count, full, search, found)


def check(name: str, value: Any) -> None:
    """Checks that `value` is a state."""
    if not isinstance(value, TransducerState):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a TransducerState.")


def check_output(state: TransducerState, output: Any, axes: int) -> None:
    """Checks that a state's outputs, after so many axes, are such as the predictor's."""
    own = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[axes:], x.dtype), state.search.output)
    was, must = map(transducer_checks.described, (own, output))
    if was != must:
        raise ValueError(
            f"state has outputs {was} of a predictor; they must be such as the one that follows "
            f"returns, {must}."
        )


def check_scorer(state: TransducerState, scorer: Scorer | None) -> None:
    """Checks that a state was started with a scorer, or with none."""
    search = state.search
    if not language_checks.state_fits(search.scorer_state, scorer, search.score.shape):
        raise ValueError(
            "state was started with another scorer; `rnnt_decode_start` must be given the one "
            "that follows."
        )
