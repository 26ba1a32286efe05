"""The lattice of transducers whose symbols advance several frames.

A symbol has a duration, the number of frames it advances: for a label at least 0, for a blank at
least 1. On diagonals n = t + u a blank of duration d leads d diagonals ahead, and a label d + 1.
The state is therefore the weights that have arrived at the current diagonal, and those on the way
to each of the next diagonals. Where the labels of a frame are limited, all this holds of frames
instead of diagonals.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import recursion
from jaxctc.core.semirings import PROBABILITY, Semiring, State, Weight, shift
from jaxctc.transducer.lattice import TransducerTopology, cells, rows


class DurationArcs(NamedTuple):
    """Scores of the arcs of each duration, arrays as `TransducerTopology` reads them."""

    blank: tuple[jax.Array, ...]
    label: tuple[jax.Array, ...]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["states"],
    meta_fields=["of_blanks", "of_labels"],
)
@dataclasses.dataclass(frozen=True)
class DurationTopology:
    """Arcs that lead several diagonals ahead."""

    states: TransducerTopology
    of_blanks: tuple[int, ...]  # the durations of blanks, 1 among them
    of_labels: tuple[int, ...]

    @property
    def axis(self) -> int:
        return self.states.axis

    @property
    def neutral(self) -> DurationArcs:
        stay, nothing = self.states.neutral
        return DurationArcs(
            tuple(stay if d == 1 else nothing for d in self.of_blanks),
            (nothing,) * len(self.of_labels),
        )

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        (arrived,), scale = self.states.start(semiring, dtype)
        nothing = semiring.zeros(jax.tree.leaves(arrived)[0].shape, dtype)
        farthest = max(*self.of_blanks, *(d + 1 for d in self.of_labels))
        return (arrived, *[nothing] * (farthest - 1)), scale

    def step(self, semiring: Semiring, state: State, weights: DurationArcs) -> State:
        arrived, *coming = state
        dtype = jax.tree.leaves(arrived)[0].dtype
        coming.append(semiring.zeros(jax.tree.leaves(arrived)[0].shape, dtype))

        def leads(ahead, weight):
            coming[ahead - 1] = semiring.plus(coming[ahead - 1], weight)

        for duration, blank in zip(self.of_blanks, weights.blank, strict=True):
            leads(duration, semiring.times(arrived, blank))
        for duration, label in zip(self.of_labels, weights.label, strict=True):
            leads(duration + 1, shift(semiring, semiring.times(arrived, label), self.axis))
        return tuple(coming)

    def finish(self, semiring: Semiring, state: State) -> Weight:
        return self.states.finish(semiring, state[:1])


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["states"],
    meta_fields=["of_blanks", "of_labels", "max_symbols"],
)
@dataclasses.dataclass(frozen=True)
class BoundedDurationTopology(DurationTopology):
    """A step is a frame: up to `max_symbols` labels, all but the last of duration 0, and a blank
    if that too has it."""

    max_symbols: int

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        (arrived,), scale = self.states.start(semiring, dtype)
        nothing = semiring.zeros(jax.tree.leaves(arrived)[0].shape, dtype)
        return (arrived, *[nothing] * (max(*self.of_blanks, *self.of_labels) - 1)), scale

    def step(self, semiring: Semiring, state: State, weights: DurationArcs) -> State:
        weight, *coming = state  # the first, of paths that have emitted so many labels here
        dtype = jax.tree.leaves(weight)[0].dtype
        coming.append(semiring.zeros(jax.tree.leaves(weight)[0].shape, dtype))

        def leads(ahead, weight):
            coming[ahead - 1] = semiring.plus(coming[ahead - 1], weight)

        for symbols in range(self.max_symbols + 1):
            for duration, blank in zip(self.of_blanks, weights.blank, strict=True):
                leads(duration, semiring.times(weight, blank))
            if symbols == self.max_symbols:
                break
            staying = weight
            for duration, label in zip(self.of_labels, weights.label, strict=True):
                moved = shift(semiring, semiring.times(weight, label), self.axis)
                if duration:
                    leads(duration, moved)
                else:
                    staying = moved
            weight = semiring.normalise(staying) if self.max_symbols > 1 else staying
        return tuple(coming)


class Lattice(NamedTuple):
    """Arcs of several durations in the form the recursion reads."""

    topology: DurationTopology
    scores: DurationArcs
    possible: jax.Array  # bool [B]: are the lengths in range?


def lattice(
    blank: Mapping[int, jax.Array],
    label: Mapping[int, jax.Array],
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    max_symbols: int | None = None,
) -> Lattice:
    """The lattice of flat batches. Nothing past a length is ever read.

    Args:
      blank: By duration the log-probabilities of blanks, ``[B, T, U + 1]``.
      label: By duration those of labels, ``[B, T, U]``.
      logit_lengths: int32 ``[B]``; a path ends with a blank that ends exactly with the last frame.
      label_lengths: int32 ``[B]``.
      max_symbols: The most labels at one frame; None means any number.
    """
    example = next(iter(blank.values()))
    size, frames, spaces = example.shape
    axis = recursion.states_axis(size, spaces)
    inside = cells(frames, spaces, logit_lengths, label_lengths)
    left = (logit_lengths[:, None] - jnp.arange(frames, dtype=jnp.int32)[None, :])[:, :, None]

    of_blanks, of_labels = tuple(sorted({*blank, 1})), tuple(sorted(label))
    # Without a duration of 0 there is one label at most.
    bound = max_symbols if max_symbols is not None and 0 in of_labels else spaces
    bounded = bound < spaces - 1
    blanks, labels = [], []
    for duration in of_blanks:
        # Past the end weights wait where they are, by blanks of duration 1.
        waiting = 0.0 if duration == 1 else -jnp.inf
        score = blank.get(duration, jnp.full_like(example, -jnp.inf))
        score = jnp.where(left >= duration, score, -jnp.inf)
        blanks.append(rows(jnp.where(inside, score, waiting), waiting, axis, bounded))
    for duration in of_labels:
        score = jnp.where(inside[:, :, 1:] & (left > duration), label[duration], -jnp.inf)
        score = jnp.pad(score, ((0, 0), (0, 0), (0, 1)), constant_values=-jnp.inf)
        labels.append(rows(score, -jnp.inf, axis, bounded))

    possible = (logit_lengths >= 1) & (logit_lengths <= frames)
    possible &= (label_lengths >= 0) & (label_lengths < spaces)
    states = TransducerTopology(label_lengths, spaces, axis)
    topology = DurationTopology(states, of_blanks, of_labels)
    if bounded:
        topology = BoundedDurationTopology(states, of_blanks, of_labels, bound)
    return Lattice(topology, DurationArcs(tuple(blanks), tuple(labels)), possible)


def total(found: Lattice, broken: jax.Array, semiring: Semiring = PROBABILITY) -> jax.Array:
    """``log Z``, ``[B]``; NaN where `broken`: if a sequence's own arcs contain NaN.

    Any NaN has to count, since an arc that no path reaches has a derivative too.
    """
    log_z = jnp.where(found.possible, recursion.log_partition(*found[:2], semiring), -jnp.inf)
    return jnp.where(broken, jnp.nan, log_z)
