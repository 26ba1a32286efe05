"""The lattice of transducers (Graves 2012).

A state of the lattice is (t, u): t frames have been read and u labels emitted. A blank leads to
(t + 1, u) and label u to (t, u + 1), with probabilities that depend on t and u. All states with
n = t + u form a diagonal, which is entered only from the diagonal before (Graves 2012, eq. 16)::

    state_n[u] = state_{n-1}[u] · blank(n-1-u, u) + state_{n-1}[u-1] · label(n-u, u-1)

so the recursion runs over diagonals, and arrays are skewed once so that a diagonal is a row. In
the monotonic variant (Tripathi et al. 2019) a label reads a frame as well: then a row is a frame,
and all else is the same. A row is a frame, too, where the labels of a frame are limited.

The arcs' log-probabilities may come from a joint network's logits (`rnnt_log_probs`), from a
factorised blank (`hat_log_probs`), or from elsewhere: `rnnt_loss_from_log_probs`,
`rnnt_posteriors` and `rnnt_align` do not normalise them.
"""

import dataclasses
import functools
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import meshes, recursion
from jaxctc.core.emissions import arc_log_probabilities, widen
from jaxctc.core.semirings import PROBABILITY, Semiring, State, Weight, first_state, select, shift
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.penalties import Penalties


class TransducerArcs(NamedTuple):
    """A number on every arc of a transducer's lattice: its log-probability or its posterior.

    Attributes:
      blank: float ``[*batch, T, U + 1]``: after u labels, on to the next frame.
      label: float ``[*batch, T, U]``: label u at frame t.
    """

    blank: jax.Array
    label: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["label_lengths"], meta_fields=["spaces", "axis"]
)
@dataclasses.dataclass(frozen=True)
class TransducerTopology:
    """A step keeps each weight of a diagonal (or frame) at its u, and moves it to u + 1.

    Scores are `TransducerArcs` of arrays ``[N, B, U + 1]`` with axis 1 or ``[N, U + 1, B]``
    with axis 0.
    """

    label_lengths: jax.Array  # [B]
    spaces: int  # U + 1, the number of label positions
    axis: int
    entries: ClassVar[tuple[bool, ...]] = (True,)

    @property
    def neutral(self) -> TransducerArcs:
        return TransducerArcs(jnp.float32(0), jnp.float32(-jnp.inf))

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        shape = (self.label_lengths.size, self.spaces)
        shape = shape if self.axis == 1 else shape[::-1]
        return first_state(semiring, self.entries, shape, self.axis, dtype)

    def step(self, semiring: Semiring, state: State, weights: TransducerArcs) -> State:
        (weight,) = state
        staying = semiring.times(weight, weights.blank)
        moving = semiring.times(weight, weights.label)
        return (semiring.plus(staying, shift(semiring, moving, self.axis)),)

    def finish(self, semiring: Semiring, state: State) -> Weight:
        return select(state[0], self.label_lengths, self.axis)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["label_lengths"],
    meta_fields=["spaces", "axis", "max_symbols"],
)
@dataclasses.dataclass(frozen=True)
class BoundedTopology(TransducerTopology):
    """A step is a frame: up to `max_symbols` labels, and a blank."""

    max_symbols: int

    def step(self, semiring: Semiring, state: State, weights: TransducerArcs) -> State:
        (weight,) = state  # of paths that have emitted so many labels at this frame
        leaving = semiring.times(weight, weights.blank)
        for _ in range(self.max_symbols):
            if self.max_symbols > 1:
                weight = semiring.normalise(weight)
            weight = shift(semiring, semiring.times(weight, weights.label), self.axis)
            leaving = semiring.plus(leaving, semiring.times(weight, weights.blank))
        return (leaving,)


class Emission(NamedTuple):
    """How many symbols a frame has."""

    monotonic: bool = False  # exactly one
    max_symbols: int | None = None  # at most so many labels, and a blank; None means any number


class Lattice(NamedTuple):
    """Arcs ``[B, T, U + 1]`` and ``[B, T, U]`` in the form the recursion reads."""

    topology: TransducerTopology
    scores: TransducerArcs
    possible: jax.Array  # bool [B]: are the lengths in range?


def lattice(
    blank: jax.Array,
    label: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    emission: Emission,
) -> Lattice:
    """The lattice of flat batches. Nothing past a length is ever read."""
    batch, frames, spaces = blank.shape
    axis = recursion.states_axis(batch, spaces)
    most = emission.max_symbols
    topology = TransducerTopology(label_lengths, spaces, axis)
    by_frames = emission.monotonic
    if most is not None and most < spaces - 1 and not emission.monotonic:
        topology, by_frames = BoundedTopology(label_lengths, spaces, axis, most), True
    inside = cells(frames, spaces, logit_lengths, label_lengths)
    # Past the end weights stay where they are, so that the total is found after the last row.
    blank = jnp.where(inside, blank, 0)
    label = jnp.where(inside[:, :, 1:], label, -jnp.inf)
    label = jnp.pad(label, ((0, 0), (0, 0), (0, 1)), constant_values=-jnp.inf)
    scores = TransducerArcs(rows(blank, 0, axis, by_frames), rows(label, -jnp.inf, axis, by_frames))
    possible = (logit_lengths >= (0 if emission.monotonic else 1)) & (logit_lengths <= frames)
    possible &= (label_lengths >= 0) & (label_lengths < spaces)
    return Lattice(topology, scores, possible)


def cells(
    frames: int, spaces: int, logit_lengths: jax.Array, label_lengths: jax.Array
) -> jax.Array:
    """Which states ``[B, T, U + 1]`` are within the lengths."""
    inside = jnp.arange(frames, dtype=jnp.int32)[None, :, None] < logit_lengths[:, None, None]
    return inside & (
        jnp.arange(spaces, dtype=jnp.int32)[None, None, :] <= label_lengths[:, None, None]
    )


def rows(x: jax.Array, fill: float, axis: int, by_frames: bool) -> jax.Array:
    """``[B, T, U + 1]`` by rows that are frames, or else diagonals, as a topology reads them."""
    if by_frames:
        return x.transpose((1, 0, 2) if axis == 1 else (1, 2, 0))
    return skew(x, fill, axis)


def skew(x: jax.Array, fill: float, axis: int) -> jax.Array:
    """``[B, T, U + 1]`` by diagonals, ``[T + U, B, U + 1]``, or with axis 0 ``[T + U, U + 1, B]``.

    Element (t, u) goes to (t + u, u); all other places get `fill`.
    """
    batch, frames, spaces = x.shape
    rows = frames + spaces - 1
    # Rows of labels are padded by U + 1 and then read as rows that are shorter by one: each row
    # starts one place later than the row before.
    x = jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, spaces)), constant_values=fill)
    x = x.reshape(batch, spaces * (rows + 1))[:, : spaces * rows].reshape(batch, spaces, rows)
    return x.transpose((2, 0, 1) if axis == 1 else (2, 1, 0))


def total(
    arcs: TransducerArcs,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    emission: Emission,
    penalties: Penalties,
    semiring: Semiring = PROBABILITY,
) -> jax.Array:
    """``log Z`` of flat batches, ``[B]``; NaN if an arc within the lengths has NaN or ``+inf``.

    A NaN reaches the end even from a state of weight zero, since NaN times zero is NaN.
    """
    label = penalty.penalised(arcs.label, logit_lengths, penalties)
    topology, scores, possible = lattice(arcs.blank, label, logit_lengths, label_lengths, emission)
    log_z = recursion.log_partition(topology, scores, semiring)
    log_z = jnp.where(log_z < jnp.inf, log_z, jnp.nan)
    return jnp.where(possible, log_z, -jnp.inf)


@meshes.jit(trailing=(2, 2, 0, 0), static_argnums=(4, 6))
def total_of_batches(
    blank, label, logit_lengths, label_lengths, emission, penalties, semiring=PROBABILITY
):
    """`total` of arcs with any number of batch axes, which may have two dtypes."""
    lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    log_z = total(flat_arcs(blank, label), *lengths, emission, penalties, semiring)
    return log_z.reshape(blank.shape[:-2])


def flat_arcs(blank: jax.Array, label: jax.Array) -> TransducerArcs:
    """Arcs with all leading batch axes merged into one, in the wider of their dtypes."""
    blank, label = widen(blank), widen(label)
    dtype = max(blank.dtype, label.dtype, key=lambda dtype: dtype.itemsize)
    size = math.prod(blank.shape[:-2])
    return TransducerArcs(*(x.astype(dtype).reshape(size, *x.shape[-2:]) for x in (blank, label)))


def arcs_of_logits(
    logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
) -> TransducerArcs:
    """Log-probabilities of the arcs of flat batches; 0 past a length, ``-inf`` if not a label."""
    _, frames, spaces, classes = logits.shape
    read, valid = readable_labels(labels, classes, blank_id)
    inside = cells(frames, spaces, logit_lengths, label_lengths)
    blank, label = arc_log_probabilities(logits, read[:, None, :], inside, blank_id)
    return TransducerArcs(blank, jnp.where(valid[:, None, :], label[:, :, :-1], -jnp.inf))


def readable_labels(labels: jax.Array, classes: int, blank_id: int) -> tuple[jax.Array, jax.Array]:
    """The class to read after u labels, ``[B, U + 1]``, and which labels are valid, ``[B, U]``.

    After the last label, and instead of labels that are not valid, the blank is read.
    """
    valid = (labels >= 0) & (labels < classes) & (labels != blank_id)
    read = jnp.where(valid, labels, blank_id)
    return jnp.pad(read, ((0, 0), (0, 1)), constant_values=blank_id), valid


def flat_pair(logits, labels, logit_lengths, label_lengths):
    """The same with all leading batch axes merged into one."""
    batch = logit_lengths.size
    return (
        logits.reshape(batch, *logits.shape[-3:]),
        labels.reshape(batch, labels.shape[-1]),
        logit_lengths.reshape(-1),
        label_lengths.reshape(-1),
    )


def unflatten(arcs: TransducerArcs, batch: tuple[int, ...]) -> TransducerArcs:
    """Arcs of flat batches with their leading batch axes restored."""
    return TransducerArcs(*(x.reshape(*batch, *x.shape[1:]) for x in arcs))
