"""A transducer as its decoders see it: functions for one hypothesis, and the arcs of a frame.

At frame t and after labels y the joint network gives a distribution over the labels, which
append to y, and the blank, which appends nothing (Graves 2012, arXiv 1211.3711, section 2). An arc
advances some frames: a blank 1 and a label 0, or 1 in the monotonic variant (Tripathi et al. 2019).
With durations (Xu et al. 2023, arXiv 2304.06795) the network gives a distribution over these as
well; a blank advances at least one frame. Big blanks (Xu et al. 2022, arXiv 2211.03541) are blanks
that advance several.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.decoding.normalise import normalised

Tree = Any  # a pytree of arrays


class Bounds(NamedTuple):
    """The most labels there may be."""

    symbols: int  # at one frame, before its blank
    labels: int  # of a hypothesis


class Arcs(NamedTuple):
    """What a transducer says at one frame after some labels."""

    tokens: jax.Array  # log-probabilities [C]
    durations: jax.Array  # and of durations [D]; of one duration only, [1], 0
    confidence: jax.Array  # scalar: 1 minus the entropy of the tokens, as a share of the highest


class Way(NamedTuple):
    """How arcs of one kind advance: so many frames."""

    frames: int
    place: int  # of labels, and with durations: the element of `Arcs.durations`; else the blank


class Transducer(NamedTuple):
    """A transducer's functions for one hypothesis, and what its classes mean."""

    joint: Callable[[jax.Array, Tree], Any]
    predictor: Callable[[Tree, jax.Array], tuple[Tree, Tree]]
    blank_id: int
    dtype: Any  # of log-probabilities
    monotonic: bool = False
    durations: tuple[int, ...] | None = None
    big_blanks: tuple[tuple[int, int], ...] = ()  # more classes that are blanks, and their frames

    @property
    def label_ways(self) -> tuple[Way, ...]:
        if self.durations is None:
            return (Way(int(self.monotonic), 0),)
        return tuple(Way(d, i) for i, d in enumerate(self.durations))

    @property
    def blank_ways(self) -> tuple[Way, ...]:
        if self.durations is None:
            return tuple(Way(frames, c) for c, frames in self.blanks.items())
        return tuple(way for way in self.label_ways if way.frames > 0)

    @property
    def blanks(self) -> dict[int, int]:
        """All classes that are blanks, with the frames that each advances."""
        return {self.blank_id: 1, **dict(self.big_blanks)}

    @property
    def stays(self) -> bool:
        """Whether a label may follow another at the same frame."""
        return any(way.frames == 0 for way in self.label_ways)

    @property
    def ahead(self) -> int:
        """The most frames that an arc advances."""
        return max(way.frames for way in self.blank_ways)

    def begun(self, initial_state: Tree) -> tuple[Tree, Tree]:
        """The predictor's output and state after the start symbol."""
        return self.predictor(initial_state, jnp.int32(self.blank_id))

    def arcs(self, frame: jax.Array, output: Tree) -> Arcs:
        """The arcs after one hypothesis; the predictor's `output` is that after its labels."""
        logits, durations = self.joint(frame, output), jnp.zeros(1, self.dtype)
        if self.durations is not None:
            logits, duration_logits = logits
            durations, _ = normalised(duration_logits.astype(self.dtype))
        tokens, confidence = normalised(logits.astype(self.dtype))
        return Arcs(tokens, durations, confidence)
