"""The token-and-duration transducer (Xu et al. 2023).

A symbol has a duration, the number of frames it advances: for a label at least 0, for a
blank at least 1. On diagonals n = t + u a blank of duration d leads d diagonals ahead, and
a label d + 1. The state is therefore the weights that have arrived at the current diagonal,
and those on the way to each of the next diagonals.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes, recursion
from jaxctc.core.emissions import log_softmax
from jaxctc.core.semirings import Semiring, State, Weight, shift
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import TransducerTopology, arcs_of_logits, cells, flat_pair, skew
from jaxctc.transducer.penalties import Penalties


class DurationArcs(NamedTuple):
    """Scores of the arcs of each duration, arrays as `TransducerTopology` reads them."""

    blank: tuple[jax.Array, ...]
    label: tuple[jax.Array, ...]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["states"], meta_fields=["durations"]
)
@dataclasses.dataclass(frozen=True)
class DurationTopology:
    """Arcs that lead several diagonals ahead. `durations` includes 1."""

    states: TransducerTopology
    durations: tuple[int, ...]

    @property
    def axis(self) -> int:
        return self.states.axis

    @property
    def neutral(self) -> DurationArcs:
        stay, nothing = self.states.neutral
        return DurationArcs(
            tuple(stay if d == 1 else nothing for d in self.durations),
            (nothing,) * len(self.durations),
        )

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        (arrived,), scale = self.states.start(semiring, dtype)
        nothing = semiring.zeros(jax.tree.leaves(arrived)[0].shape, dtype)
        return (arrived, *[nothing] * (max(self.durations) + 1)), scale

    def step(self, semiring: Semiring, state: State, weights: DurationArcs) -> State:
        arrived, *coming = state
        dtype = jax.tree.leaves(arrived)[0].dtype
        coming.append(semiring.zeros(jax.tree.leaves(arrived)[0].shape, dtype))
        for duration, blank, label in zip(self.durations, *weights, strict=True):
            if duration > 0:
                staying = semiring.times(arrived, blank)
                coming[duration - 1] = semiring.plus(coming[duration - 1], staying)
            moving = shift(semiring, semiring.times(arrived, label), self.axis)
            coming[duration] = semiring.plus(coming[duration], moving)
        return tuple(coming)

    def finish(self, semiring: Semiring, state: State) -> Weight:
        return self.states.finish(semiring, state[:1])


def tdt_loss(
    token_logits: checks.ArrayLike,
    duration_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    blank_id: int = 0,
    sigma: float = 0.0,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    """The token-and-duration transducer loss, ``-log p(labels)``, of every sequence.

    Every arc has a symbol and a duration, predicted independently after t frames and u labels;
    paths end with a blank that ends exactly with the last frame.

    Args:
      token_logits: float ``[*batch, T, U + 1, C]``, normalised inside.
      duration_logits: float ``[*batch, T, U + 1, len(durations)]``, normalised inside.
      labels: integer ``[*batch, U]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or U where there is none.
      durations: The number of frames that each class of `duration_logits` advances. Blanks of
        duration 0 do not exist.
      blank_id: The class that is the blank.
      sigma: Subtracted from every token's log-probability, which favours long durations
        (Xu et al.'s logit under-normalisation).
      fastemit_lambda, delay_penalty: As in `rnnt_loss`, on tokens that are labels, of every
        duration. FastEmit leaves the gradient of durations as it is, as NeMo does.

    Returns:
      float ``[*batch]``, never negative without `delay_penalty`, unless `sigma` is; ``inf`` with
      gradient 0 where there is no path. If a sequence's own logits contain NaN, its loss is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, `durations` or `blank_id` are out
        of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> tokens, durations = jnp.zeros((3, 2, 4)), jnp.zeros((3, 2, 3))
      >>> loss = jaxctc.tdt_loss(tokens, durations, jnp.array([1]), durations=(0, 1, 2))
      >>> print(f"{loss:.4f}")
      4.0452

    References:
      Xu et al. 2023, "Efficient sequence transduction by jointly predicting tokens and
      durations", eqs. 5–8, arXiv 2304.06795.
    """
    pair = transducer_checks.pair(
        token_logits, labels, logit_lengths, label_lengths, blank_id, "token_logits"
    )
    duration_logits = checks.logits_array("duration_logits", duration_logits, ("T", "U + 1", "D"))
    durations = transducer_checks.durations("durations", durations)
    expected = (*jnp.shape(token_logits)[:-1], len(durations))
    if duration_logits.shape != expected:
        raise ValueError(
            f"duration_logits has shape {duration_logits.shape}; it must be {expected}."
        )
    duration_logits = checks.broadcast(duration_logits, pair.labels.shape[:-1], 3)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    of_tokens = checks.finite("sigma", sigma)
    return _tdt_loss(duration_logits, *pair, durations, of_tokens, penalties)


@meshes.jit(trailing=(3, 3, 1, 0, 0), static_argnums=(5, 6))
def _tdt_loss(
    duration_logits,
    logits,
    labels,
    logit_lengths,
    label_lengths,
    blank_id,
    durations,
    sigma,
    penalties,
):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    duration_logits = duration_logits.reshape(*flat[0].shape[:-1], len(durations))
    topology, scores, possible, broken = lattice(
        flat[0], duration_logits, *flat[1:], blank_id, durations, sigma, penalties
    )
    log_z = jnp.where(possible, recursion.log_partition(topology, scores), -jnp.inf)
    log_z = jnp.where(broken, jnp.nan, log_z).reshape(logits.shape[:-3])
    # With a negative sigma, probabilities may sum to more than 1.
    clipped, loss = (penalty.loss_of(log_z, penalties, clip) for clip in (True, False))
    return jnp.where(jnp.asarray(sigma) >= 0, clipped, loss)


class Lattice(NamedTuple):
    """Token and duration logits in the form the recursion reads."""

    topology: DurationTopology
    scores: DurationArcs
    possible: jax.Array  # bool [B]: are the lengths in range?
    broken: jax.Array  # bool [B]: do a sequence's own logits contain NaN?


def lattice(
    token_logits: jax.Array,
    duration_logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
    durations: tuple[int, ...],
    sigma: float | jax.Array,
    penalties: Penalties = penalty.NONE,
) -> Lattice:
    """The lattice of flat batches. Nothing past a length is ever read."""
    size, frames, spaces, _ = token_logits.shape
    axis = 0 if size > spaces else 1
    inside = cells(frames, spaces, logit_lengths, label_lengths)
    arcs = arcs_of_logits(token_logits, labels, logit_lengths, label_lengths, blank_id)
    label = penalty.penalised(arcs.label, logit_lengths, penalties)
    label = jnp.where(inside[:, :, 1:], label, -jnp.inf)
    label = jnp.pad(label, ((0, 0), (0, 0), (0, 1)), constant_values=-jnp.inf)
    duration_log_probs = log_softmax(duration_logits, inside)
    duration_log_probs -= jnp.asarray(sigma, duration_log_probs.dtype)
    # Any NaN counts, since an arc that no path reaches has a derivative too.
    broken = jnp.isnan(arcs.blank) | jnp.any(jnp.isnan(duration_log_probs), axis=3)
    left = (logit_lengths[:, None] - jnp.arange(frames, dtype=jnp.int32)[None, :])[:, :, None]

    used = tuple(sorted({*durations, 1}))
    by_duration = []
    for duration in used:
        # Past the end weights wait where they are, by blanks of duration 1.
        waiting = 0.0 if duration == 1 else -jnp.inf
        blank = emit = jnp.full(inside.shape, -jnp.inf, duration_log_probs.dtype)
        if duration in durations:
            score = duration_log_probs[..., durations.index(duration)]
            blank = jnp.where(left >= duration, arcs.blank + score, -jnp.inf)
            emit = jnp.where(left > duration, label + score, -jnp.inf)
        blank = jnp.where(inside, blank, waiting)
        by_duration.append((skew(blank, waiting, axis), skew(emit, -jnp.inf, axis)))
    blanks, emits = zip(*by_duration, strict=True)

    possible = (logit_lengths >= 1) & (logit_lengths <= frames)
    possible &= (label_lengths >= 0) & (label_lengths < spaces)
    topology = DurationTopology(TransducerTopology(label_lengths, spaces, axis), used)
    return Lattice(topology, DurationArcs(blanks, emits), possible, jnp.any(broken, axis=(1, 2)))
