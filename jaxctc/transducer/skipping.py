"""The W-Transducer (Laptev et al. 2023): frames at both ends may belong to no label.

Transcripts may lack words at the beginning and at the end. One arc more leads from the start to
every later frame before the first label, and one from every frame after the last label to the last
frame. On the way they skip all frames between.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes, recursion
from jaxctc.core.semirings import Semiring, State
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import lattice as plain
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import TransducerArcs, TransducerTopology


class SkippingArcs(NamedTuple):
    """Scores of a row, arrays as `TransducerTopology` reads them."""

    arcs: TransducerArcs
    enter: jax.Array  # from the start to the next row, before the first label
    leave: jax.Array  # from this row to where skipped frames wait for the end
    arrive: jax.Array  # from there to the next row


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["label_lengths"], meta_fields=["spaces", "axis"]
)
@dataclasses.dataclass(frozen=True)
class SkippingTopology(TransducerTopology):
    """A state has the weights of the lattice, of the start, and of what waits for the end."""

    entries: ClassVar[tuple[bool, ...]] = (True, True, False)

    @property
    def neutral(self) -> SkippingArcs:
        nothing = jnp.float32(-jnp.inf)
        return SkippingArcs(super().neutral, nothing, nothing, nothing)

    def step(self, semiring: Semiring, state: State, weights: SkippingArcs) -> State:
        weight, begin, end = state
        end = semiring.plus(end, semiring.times(weight, weights.leave))
        (weight,) = super().step(semiring, (weight,), weights.arcs)
        weight = semiring.plus(weight, semiring.times(begin, weights.enter))
        weight = semiring.plus(weight, semiring.times(end, weights.arrive))
        return weight, begin, end


class Lattice(NamedTuple):
    """Arcs of flat batches in the form the recursion reads."""

    topology: SkippingTopology
    scores: SkippingArcs
    possible: jax.Array  # bool [B]: are the lengths in range?


def lattice(
    arcs: TransducerArcs,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    monotonic: bool,
    skip_score: float | jax.Array,
    skip_last: bool,
) -> Lattice:
    """The lattice of flat batches. Nothing past a length is ever read."""
    emission = plain.Emission(monotonic)
    topology, scores, possible = plain.lattice(*arcs, logit_lengths, label_lengths, emission)
    _, frames, spaces = arcs.blank.shape
    frame = jnp.arange(frames, dtype=jnp.int32)[None, :, None]
    space = jnp.arange(spaces, dtype=jnp.int32)[None, None, :]
    last, spoken = logit_lengths[:, None, None] - 1, label_lengths[:, None, None]
    skip = jnp.asarray(skip_score, arcs.blank.dtype)

    def rows(mask, score):
        by_cell = jnp.where(mask, score, -jnp.inf)
        return plain.rows(by_cell, -jnp.inf, topology.axis, by_frames=monotonic)

    skipping = SkippingArcs(
        scores,
        rows((frame < last) & (space == 0), skip),
        rows((frame < last) & (space == spoken), skip),
        rows((frame == (last if skip_last else last - 1)) & (space == spoken), skip * 0),
    )
    topology = SkippingTopology(label_lengths, spaces, topology.axis)
    return Lattice(topology, skipping, possible)


def w_transducer_loss(
    blank_log_probs: checks.ArrayLike,
    label_log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    skip_score: float = 0.0,
    skip_last: bool = False,
    monotonic: bool = False,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    """The transducer loss if words may be missing at both ends of the transcript (W-Transducer).

    Paths may skip any number of frames before the first label, and after the last one, whatever
    is said there. A path that skips has one score more, `skip_score`, for each end, instead of
    the log-probabilities of the blanks there. The model stays a transducer: decoding is the same.

    Args:
      blank_log_probs: float ``[*batch, T, U + 1]``, from `rnnt_log_probs`, `hat_log_probs`,
        `rnnt_simple_log_probs` or `rnnt_pruned_log_probs`.
      label_log_probs: float ``[*batch, T, U]``, likewise.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U, since the
        labels are not known here: if they are padded, give their lengths.
      skip_score: The score of an arc that skips, NeMo's ``eps_weight``. The lower it is, the fewer
        paths skip; at -100 the loss is that of `rnnt_loss_from_log_probs`.
      skip_last: Whether the last blank may be skipped too (NeMo's ``allow_ignore``), or ends
        every path (``force_last``).
      monotonic, fastemit_lambda, delay_penalty: As in `rnnt_loss`.

    Returns:
      float ``[*batch]``, ``inf`` where there is no path. It may be negative, since paths with
      skips are no events of the model's own. If a sequence's own arcs contain NaN or ``+inf``,
      its loss is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `skip_score` are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> arcs = jaxctc.rnnt_log_probs(jnp.zeros((3, 1, 2)), jnp.zeros(0, int))
      >>> print(jnp.exp(-jaxctc.rnnt_loss_from_log_probs(*arcs)))  # three blanks
      0.125
      >>> skipping = jaxctc.w_transducer_loss(*arcs, skip_score=-100.0)
      >>> print(jnp.exp(-skipping))
      0.125

    References:
      Laptev, Bataev, Gitman, Ginsburg 2023, "Powerful and extensible WFST framework for
      RNN-Transducer losses", arXiv 2303.10384.
    """
    arcs = transducer_checks.arcs(blank_log_probs, label_log_probs, logit_lengths, label_lengths)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    flags = checks.flag("monotonic", monotonic), checks.flag("skip_last", skip_last)
    return _w_transducer_loss(*arcs, *flags, checks.finite("skip_score", skip_score), penalties)


@meshes.jit(trailing=(2, 2, 0, 0), static_argnums=(4, 5))
def _w_transducer_loss(
    blank, label, logit_lengths, label_lengths, monotonic, skip_last, skip_score, penalties
):
    lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    arcs = plain.flat_arcs(blank, label)
    arcs = arcs._replace(label=penalty.penalised(arcs.label, lengths[0], penalties))
    topology, scores, possible = lattice(arcs, *lengths, monotonic, skip_score, skip_last)
    log_z = recursion.log_partition(topology, scores)
    log_z = jnp.where(possible, jnp.where(log_z < jnp.inf, log_z, jnp.nan), -jnp.inf)
    return penalty.loss_of(log_z, penalties, never_negative=False).reshape(blank.shape[:-2])
