"""The CTC lattice (Graves et al. 2006).

States are ``blank[s]``, where s labels have been emitted and the last frame was a blank, and
``label[s]``, where the last frame was label s. A step is (Graves et al. 2006, eqs. 6–8)::

    blank'[s] = (blank[s] + label[s]) · p(blank)
    label'[s] = (label[s] + blank[s-1] + [y_s ≠ y_{s-1}] · label[s-1]) · p(y_s)

``label[0]`` does not exist; it is kept with weight zero so that both arrays have
one shape and the blanks need no shift.
"""

import dataclasses
import functools
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import recursion
from jaxctc.core.emissions import shared_log_probabilities
from jaxctc.core.semirings import Semiring, State, Weight, first_state, select, shift, where


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["skip", "label_lengths"],
    meta_fields=["axis"],
)
@dataclasses.dataclass(frozen=True)
class CTCTopology:
    """The lattice of a batch of label sequences.

    Scores are one array, ``[T, B, 1 + S]`` with axis 1 or ``[T, 1 + S, B]`` with axis 0: the
    blank's at index 0, then those of the labels.
    """

    skip: jax.Array  # bool, of the shape of a weight: may label s + 1 follow s without a blank?
    label_lengths: jax.Array  # [B]
    axis: int
    entries: ClassVar[tuple[bool, ...]] = (True, False)

    @property
    def neutral(self) -> jax.Array:
        first = lax.broadcasted_iota(jnp.int32, self.skip.shape, self.axis) == 0
        return jnp.where(first, 0.0, -jnp.inf)

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        return first_state(semiring, self.entries, self.skip.shape, self.axis, dtype)

    def step(self, semiring: Semiring, state: State, weights: Weight) -> State:
        blank, label = state
        blank_weight = jax.tree.map(lambda x: lax.slice_in_dim(x, 0, 1, axis=self.axis), weights)
        # Terms are in order of preference: staying, advancing by one, skipping the blank.
        either = semiring.plus(blank, label)
        entering = shift(semiring, where(self.skip, either, blank), self.axis)
        return (
            semiring.times(either, blank_weight),
            # Index 0 of `label` stays zero, whatever its score: no path enters it.
            semiring.times(semiring.plus(label, entering), weights),
        )

    def finish(self, semiring: Semiring, state: State) -> Weight:
        blank, label = state
        return select(semiring.plus(label, blank), self.label_lengths, self.axis)


class Lattice(NamedTuple):
    """Logits ``[B, T, C]`` and labels ``[B, S]`` in the form the recursion reads."""

    topology: CTCTopology
    scores: jax.Array
    possible: jax.Array  # bool [B]: are the lengths and the labels in range?


def lattice(
    logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
) -> Lattice:
    """The lattice of flat batches, as `flatten` makes them. Nothing past a length is ever read.

    NaN or ``+inf`` in any class makes the frame's normaliser NaN, and so all its scores and
    ``log Z``.
    """
    _, frames, classes = logits.shape
    topology, read, inside, possible = reading(
        labels, logit_lengths, label_lengths, frames, classes, blank_id
    )
    scores = shared_log_probabilities(logits, read, inside, topology.neutral, topology.axis)
    return Lattice(topology, scores, possible)


class Reading(NamedTuple):
    """What a batch of labels ``[B, S]`` reads of logits, whatever these are."""

    topology: CTCTopology
    classes: jax.Array  # int32 [B, 1 + S]: what each label reads, the blank in the first place
    inside: jax.Array  # bool [B, T]
    possible: jax.Array  # bool [B]: are the lengths in range, and the labels?


def reading(
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    frames: int,
    classes: int,
    blank_id: int,
) -> Reading:
    """What flat batches read of so many frames and classes."""
    batch, spaces = labels.shape[0], labels.shape[1] + 1
    axis = recursion.states_axis(batch, spaces)

    used = jnp.arange(1, spaces, dtype=jnp.int32)[None, :] <= label_lengths[:, None]
    valid = (labels >= 0) & (labels < classes) & (labels != blank_id)
    # Index 0 reads the blank. Labels past the length may read any class: no path leads back
    # from them.
    read = jnp.where(used & valid, labels, blank_id)
    read = jnp.pad(read, ((0, 0), (1, 0)), constant_values=blank_id)
    skip = jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 1)))[:, :spaces]
    inside = jnp.arange(frames, dtype=jnp.int32)[None, :] < logit_lengths[:, None]

    topology = CTCTopology(skip.T if axis == 0 else skip, label_lengths, axis)
    possible = jnp.all(valid | ~used, axis=1)
    possible &= (logit_lengths >= 0) & (logit_lengths <= frames)
    possible &= (label_lengths >= 0) & (label_lengths < spaces)
    return Reading(topology, read, inside, possible)


def flatten(logits, labels, logit_lengths, label_lengths):
    """The same with all leading batch axes made one.

    If the batch axes of logits are broadcast, there are fewer logits ``[R, T, C]`` than sequences:
    those that share logits stand together.
    """
    own, batch = logits.shape[:-2], label_lengths.shape
    order, size = _order(own, batch), math.prod(batch)

    def flat(x):
        axes = (*order, *range(len(batch), x.ndim))
        x = x if axes == (*range(x.ndim),) else x.transpose(axes)
        return x.reshape(size, *x.shape[len(batch) :])

    logits = logits.reshape(math.prod(own), *logits.shape[-2:])
    logits = logits if size else logits[:0]
    return logits, flat(labels), flat(logit_lengths), flat(label_lengths)


def unflatten(x: jax.Array, own: tuple[int, ...], batch: tuple[int, ...]) -> jax.Array:
    """An array of flat batches with the batch axes as they were; `own` are those of the logits."""
    order = _order(own, batch)
    x = x.reshape(*(batch[i] for i in order), *x.shape[1:])
    back = (*(order.index(i) for i in range(len(batch))), *range(len(batch), x.ndim))
    return x if back == (*range(x.ndim),) else x.transpose(back)


def _order(own: tuple[int, ...], batch: tuple[int, ...]) -> list[int]:
    """The batch axes, with those over which logits are shared last."""
    own = (1,) * (len(batch) - len(own)) + own
    return sorted(range(len(batch)), key=lambda i: own[i] != batch[i])
