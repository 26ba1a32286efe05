"""Forced alignment: the one best path of the labels through the frames.

The path is the derivative of its own score. Each frame has a variable, which is 0, and s times
this variable is added to the score of state s. That changes no score, but the derivative
of the best total score with respect to the variable is the state of the best path.
So neither back-pointers nor anything else of size T × S is kept. (A kernel, where `kernels.use`
chooses one, does read and write arrays of this size.)
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes, recursion
from jaxctc.core.emissions import frame_log_probabilities, frames_inside, widen
from jaxctc.core.kernels import dispatch
from jaxctc.core.semirings import MAX_TROPICAL, Semiring, State, Weight, where
from jaxctc.ctc.lattice import CTCTopology, flatten, unflatten


class Alignment(NamedTuple):
    """Where each label is. If there is no alignment, score is ``-inf`` and frames are -1.

    Attributes:
      path: int32 ``[*batch, T]``: the class at each frame, -1 past the length.
      scores: float ``[*batch, T]``: its log-probability, 0 past the length.
      score: float ``[*batch]``: the sum of the scores.
      starts: int32 ``[*batch, S]``: the first frame of each label, -1 past the length.
      ends: int32 ``[*batch, S]``: the frame after its last one, -1 past the length.
      label_scores: float ``[*batch, S]``: the mean of the scores of its frames, 0 past the length.
    """

    path: jax.Array
    scores: jax.Array
    score: jax.Array
    starts: jax.Array
    ends: jax.Array
    label_scores: jax.Array


def forced_align(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    wildcard_id: int | None = None,
) -> Alignment:
    """The most probable alignment of the labels (Viterbi), frame by frame.

    If paths tie, staying is preferred to advancing, advancing by one to skipping a blank,
    and ending in the last label to ending in the blank after it.

    Scores are differentiable, with the path as a constant. Memory is that of the logits, not
    frames times labels. Batch axes are broadcast, as those of `ctc_loss`.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities: scores are
        normalised inside, and the path is the same.
      labels: integer ``[*batch, S]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or S where there is none.
      blank_id: The class that is the blank.
      wildcard_id: A label, not necessarily a class, that matches anything: at every frame it
        scores as the best class. Put it where labels may be missing from the transcript. Two in
        a row need a blank between them, as any equal labels do.

    Returns:
      `Alignment`. Frames of a wildcard have `wildcard_id` in the path. For an infeasible pair
      ``score`` is ``-inf`` with gradient 0, and ``path``, ``starts`` and ``ends`` are -1. If a
      sequence's own logits contain NaN or ``+inf``, these are -1 too, and ``score`` is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, `blank_id` or `wildcard_id` are
        out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> logits = 5 * jax.nn.one_hot(jnp.array([0, 1, 1, 0, 1, 2]), 3)
      >>> found = jaxctc.forced_align(logits, jnp.array([1, 1, 2]))
      >>> print(found.path)
      [0 1 1 0 1 2]
      >>> print(found.starts, found.ends)
      [1 4 5] [3 5 6]
      >>> found = jaxctc.forced_align(logits, jnp.array([9, 2]), wildcard_id=9)
      >>> print(found.path)  # whatever comes before, then label 2
      [9 9 9 9 9 2]

    References:
      Viterbi 1967, "Error bounds for convolutional codes".
      Pratap et al. 2023, "Scaling speech technology to 1,000+ languages" (the star label).
    """
    pair = checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    if wildcard_id is not None:
        wildcard_id = checks.wildcard_label("wildcard_id", wildcard_id, pair.blank_id)
    return _forced_align(*pair, wildcard_id)


class _Emissions(NamedTuple):
    """The input of the recursion at each frame, frames first."""

    logits: jax.Array  # [T, B, C], or with fewer rows that sequences share
    inside: jax.Array  # bool [T, B]
    position: jax.Array  # [T, B]: zeros; the derivative with respect to them is the path


class _AlignmentTopology(NamedTuple):
    """The CTC lattice with the labels' scores gathered in the step, frame by frame."""

    lattice: CTCTopology
    classes: jax.Array  # int32 [B, 1 + S]: the class of each state, the blank's first
    usable: jax.Array  # bool [B, 1 + S]

    @property
    def axis(self) -> int:
        return self.lattice.axis

    @property
    def neutral(self) -> _Emissions:
        return _Emissions(jnp.float32(0), jnp.bool_(False), jnp.float32(0))

    def labels_of(self, logits: jax.Array) -> jax.Array:
        """The labels' logits ``[..., B, 1 + S]``."""
        # Rows of logits may be fewer: each is then read by several sequences.
        rows = logits.shape[-2]
        by_row = self.classes.reshape(rows, self.classes.size // max(rows, 1))
        by_row = jnp.expand_dims(by_row, tuple(range(logits.ndim - 2)))
        labels = jnp.take_along_axis(logits, by_row, axis=-1)
        return labels.reshape(*logits.shape[:-2], *self.classes.shape)

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        return self.lattice.start(semiring, dtype)

    def step(self, semiring: Semiring, state: State, weights: _Emissions) -> State:
        logits, inside, position = weights
        places = jnp.arange(self.classes.shape[1], dtype=position.dtype)[None, :]
        scores = jnp.where(self.usable, self.labels_of(logits), -jnp.inf)
        scores += position[:, None] * places
        # Past the end the state does not change: a blank there would win ties with the label.
        return where(inside[:, None], self.lattice.step(semiring, state, scores), state)

    def finish(self, semiring: Semiring, state: State) -> Weight:
        return self.lattice.finish(semiring, state)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["skip", "label_lengths"], meta_fields=["axis"]
)
@dataclasses.dataclass(frozen=True)
class _GatheredTopology(CTCTopology):
    """The same from gathered scores, which kernels need; they are ``+inf`` past the end."""

    @property
    def neutral(self) -> jax.Array:
        return jnp.float32(jnp.inf)

    def step(self, semiring: Semiring, state: State, weights: Weight) -> State:
        return where(weights == jnp.inf, state, super().step(semiring, state, weights))


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=(4, 5))
def _forced_align(logits, labels, logit_lengths, label_lengths, blank_id, wildcard_id):
    own, batch = logits.shape[:-2], logit_lengths.shape
    logits = jnp.where(frames_inside(logits, logit_lengths)[..., None], logits, 0)
    given, labels, *lengths = flatten(logits, labels, logit_lengths, label_lengths)
    (rows, frames, classes), width = given.shape, labels.shape[1]
    logit_lengths, label_lengths = lengths

    inside = jnp.arange(frames, dtype=jnp.int32)[None, :] < logit_lengths[:, None]
    logits = widen(lax.stop_gradient(given))
    used = jnp.arange(width, dtype=jnp.int32)[None, :] < label_lengths[:, None]
    usable = used & (labels >= 0) & (labels < classes) & (labels != blank_id)
    read = jnp.where(usable, labels, blank_id)
    if wildcard_id is not None:  # one more class, which scores as the best one
        logits = jnp.concatenate([logits, jnp.max(logits, axis=2, keepdims=True)], axis=2)
        read = jnp.where(used & (labels == wildcard_id), classes, read)
        usable |= used & (labels == wildcard_id)

    skip = jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 1)))[:, : width + 1]
    read = jnp.pad(read, ((0, 0), (1, 0)), constant_values=blank_id)
    topology = _AlignmentTopology(
        CTCTopology(skip, label_lengths, axis=1),
        read,
        jnp.pad(usable, ((0, 0), (1, 0)), constant_values=True),
    )
    states, possible = _best_states(topology, logits, inside)
    chosen = jnp.take_along_axis(read, states, axis=1)
    if wildcard_id is not None:
        best = jnp.repeat(jnp.argmax(given, axis=2), len(labels) // max(rows, 1), axis=0)
        chosen = jnp.where(chosen == classes, best.astype(chosen.dtype), chosen)
    scores, normaliser = frame_log_probabilities(given, chosen, inside)
    # NaN or +inf in any class of a frame makes its normaliser NaN.
    broken = jnp.any(jnp.isnan(normaliser), axis=1)
    possible &= ~broken
    possible &= (logit_lengths >= 0) & (logit_lengths <= frames)
    possible &= (label_lengths >= 0) & (label_lengths <= width)
    aligned, used = inside & possible[:, None], used & possible[:, None]
    nothing = jnp.where(broken, jnp.nan, -jnp.inf)

    shown = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=blank_id)
    path = jnp.where(aligned, jnp.take_along_axis(shown, states, axis=1), -1)
    scores = jnp.where(aligned, scores, jnp.where(inside, nothing[:, None], 0))
    score = jnp.where(possible, jnp.sum(scores, axis=1), nothing)
    starts, ends, means = _spans(states, aligned, used, scores)
    means = jnp.where(used | possible[:, None], means, nothing[:, None])
    found = Alignment(path, scores, score, starts, ends, means)
    return Alignment(*(unflatten(x, own, batch) for x in found))


def _best_states(topology, logits, inside) -> tuple[jax.Array, jax.Array]:
    """The label's index at each frame, from 1 (0 is a blank), int32 [B, T]; if there is a path."""
    # The score of the best class is subtracted, since large sums round. Subtracting the normaliser
    # would round too, and so create and break ties; with the best class it is more often exact.
    top = jnp.max(logits, axis=2, keepdims=True)
    logits = (logits - jnp.where(jnp.isfinite(top), top, 0)).transpose(1, 0, 2)
    gathered = _GatheredTopology(topology.lattice.skip, topology.lattice.label_lengths, axis=1)
    if dispatch.applies(gathered, logits, MAX_TROPICAL):
        scores = jnp.where(topology.usable[None], topology.labels_of(logits), -jnp.inf)
        scores = jnp.where(inside.T[:, :, None], scores, jnp.inf)
        if scores.shape[1] > scores.shape[2]:  # the longer axis last, along the vector registers
            gathered = dataclasses.replace(gathered, skip=gathered.skip.T, axis=0)
            scores = scores.transpose(0, 2, 1)
        total, path = recursion.best_path(gathered, scores)
        path = path if gathered.axis == 1 else path.transpose(0, 2, 1)
        places = lax.broadcasted_iota(path.dtype, path.shape, 2)
        return jnp.sum(path * places, axis=2).T.astype(jnp.int32), total != -jnp.inf

    def best(position):
        emissions = _Emissions(logits, inside.T, position)
        return recursion.log_partition(topology, emissions, MAX_TROPICAL)

    total, pullback = jax.vjp(best, jnp.zeros_like(inside.T, logits.dtype))
    (states,) = pullback(jnp.ones_like(total))
    return states.T.astype(jnp.int32), total != -jnp.inf


def _spans(states, aligned, used, scores):
    """First frame, frame after the last, and mean score of each label, ``[B, S]``."""
    batch, frames = states.shape
    width = used.shape[1]
    row = jnp.arange(batch, dtype=jnp.int32)[:, None]
    frame = jnp.broadcast_to(jnp.arange(frames, dtype=jnp.int32)[None, :], states.shape)
    label = jnp.where(aligned & (states > 0), states - 1, width)  # else outside, and dropped
    ends = jnp.zeros((batch, width), jnp.int32).at[row, label].max(frame + 1, mode="drop")
    starts = jnp.full((batch, width), frames, jnp.int32).at[row, label].min(frame, mode="drop")

    # Sums within each run, in an order that does not depend on the device.
    def add(a, b):
        return jnp.where(b[1], b[0], a[0] + b[0]), a[1] | b[1]

    begins = states != jnp.pad(states[:, :-1], ((0, 0), (1, 0)), constant_values=-1)[:, :frames]
    sums, _ = lax.associative_scan(add, (jnp.where(aligned, scores, 0), begins), axis=1)
    last = jnp.clip(ends - 1, 0, max(frames - 1, 0))
    sums = jnp.take_along_axis(sums, last, axis=1) if frames else jnp.zeros(ends.shape, sums.dtype)
    means = sums / jnp.maximum(ends - starts, 1).astype(sums.dtype)
    return jnp.where(used, starts, -1), jnp.where(used, ends, -1), jnp.where(used, means, 0)
