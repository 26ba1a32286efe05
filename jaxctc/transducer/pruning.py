"""Where pruned transducer training runs the joint network (Kuang et al. 2022).

From the posteriors of a cheap lattice, `rnnt_prune_ranges` chooses a few label positions at each
frame, and `rnnt_prune` picks the inputs of the joint network there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import frames_inside, widen
from jaxctc.transducer import checks as transducer_checks


def rnnt_prune_ranges(
    blank_posteriors: checks.ArrayLike,
    label_posteriors: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    s_range: int,
    monotonic: bool = False,
    max_symbols: int | None = None,
) -> jax.Array:
    """The `s_range` neighbouring label positions with most of the probability at each frame.

    They start at 0 in the first frame, end at the last label in the last, never go back, and
    advance by at most ``s_range - 1`` per frame. So a path through them exists if there are
    enough frames: ``U <= (s_range - 1) * T``. If `monotonic` they advance by at most 1, as a path
    does, and with an `s_range` of at least 2, ``U <= T`` is enough. With `max_symbols` they advance
    by at most that, and ``U <= max_symbols * T`` has to hold as well.

    The rule: before these limits, the window of frame t starts at the position s with the largest
    sum, from s to ``s + s_range - 1``, of the blank's and the label's posterior. This is the rule
    of the paper, which k2 now calls ``get_rnnt_prune_ranges_deprecated``. Its
    ``get_rnnt_prune_ranges`` takes the sum of the blanks alone, minus the posterior at frame t of
    the label before s, which leads into the window: the probability of the paths that pass frame t
    wholly within the window. That rule looks at each frame alone, so it also counts paths that the
    windows of other frames cut off. On random models the rule used here loses slightly less
    probability on average (``tests/transducer/test_pruned.py``).

    Args:
      blank_posteriors: float ``[*batch, T, U + 1]``, from `rnnt_posteriors`.
      label_posteriors: float ``[*batch, T, U]``.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U.
      s_range: The number of positions; U + 1 if it is larger than that.
      monotonic: Whether a label takes its frame, as in `rnnt_loss` and in the posteriors given.
      max_symbols: The most labels at one frame, likewise.

    Returns:
      int32 ``[*batch, T, min(s_range, U + 1)]``, the positions, each row consecutive.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `s_range` are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> arcs = jaxctc.rnnt_log_probs(jnp.zeros((4, 5, 3)), jnp.array([1, 2, 1, 2]))
      >>> posteriors = jaxctc.rnnt_posteriors(*arcs)
      >>> print(jaxctc.rnnt_prune_ranges(*posteriors, s_range=3))
      [[0 1 2]
       [0 1 2]
       [2 3 4]
       [2 3 4]]

    References:
      Kuang et al. 2022, eqs. 10–12, arXiv 2206.13236.
    """
    arcs = transducer_checks.arcs(
        blank_posteriors, label_posteriors, logit_lengths, label_lengths, "posteriors"
    )
    s_range = checks.positive("s_range", s_range)
    s_range = min(s_range, arcs.blank.shape[-1])
    monotonic, max_symbols = transducer_checks.emission(monotonic, max_symbols)
    most = s_range - 1 if max_symbols is None else min(s_range - 1, max_symbols)
    return _prune_ranges(*arcs, s_range, 1 if monotonic else most)


@meshes.jit(trailing=(2, 2, 0, 0), static_argnums=(4, 5))
def _prune_ranges(blank, label, logit_lengths, label_lengths, s_range, step):
    time = lax.broadcasted_iota(jnp.int32, blank.shape[:-1], blank.ndim - 2)
    inside = time < logit_lengths[..., None]
    no_label = [(0, 0)] * (label.ndim - 1) + [(0, 1)]
    visits = widen(blank) + jnp.pad(widen(label), no_label)
    used = lax.broadcasted_iota(jnp.int32, visits.shape, visits.ndim - 1)
    used = inside[..., None] & (used <= label_lengths[..., None, None])
    visits = jnp.where(used, visits, 0)
    # Each window is summed by itself: differences of cumulative sums would not be exact.
    window = (1,) * (blank.ndim - 1) + (s_range,)
    zero = visits.dtype.type(0)
    sums = lax.reduce_window(visits, zero, lax.add, window, (1,) * blank.ndim, "VALID")
    begins = jnp.argmax(sums, axis=-1).astype(jnp.int32)

    last = jnp.maximum(label_lengths + 1 - s_range, 0)[..., None]
    remaining = jnp.maximum(logit_lengths[..., None] - 1 - time, 0)
    begins = jnp.where(inside, begins, last)
    begins = jnp.clip(begins, jnp.maximum(last - step * remaining, 0), last)
    begins = lax.cummax(begins, axis=begins.ndim - 1)
    # At most `step` per frame, from 0 on. This keeps them monotone, and they still end at `last`.
    begins = lax.cummin(jnp.minimum(begins - step * time, 0), axis=begins.ndim - 1) + step * time
    places = lax.broadcasted_iota(jnp.int32, (*begins.shape, s_range), begins.ndim)
    return begins[..., None] + places


class PrunedInputs(NamedTuple):
    """The inputs of a joint network at the positions of a pruned lattice.

    Attributes:
      encoder: float ``[*batch, T, s_range, D]``.
      predictor: float ``[*batch, T, s_range, E]``.
    """

    encoder: jax.Array
    predictor: jax.Array


def rnnt_prune(
    encoder: checks.ArrayLike,
    predictor: checks.ArrayLike,
    ranges: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
) -> PrunedInputs:
    """Encoder and predictor outputs at the positions that `rnnt_prune_ranges` chose.

    Args:
      encoder: float ``[*batch, T, D]``.
      predictor: float ``[*batch, U + 1, E]``.
      ranges: integer ``[*batch, T, s_range]``.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U.

    Returns:
      `PrunedInputs`, float ``encoder [*batch, T, s_range, D]``, the same at every position, and
      ``predictor [*batch, T, s_range, E]``. Both are 0 past a length, since NaN there would make
      the joint network's gradient NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or positions are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> ranges = jnp.array([[0, 1], [1, 2]])
      >>> pruned = jaxctc.rnnt_prune(jnp.zeros((2, 8)), jnp.arange(3.0)[:, None], ranges)
      >>> print(pruned.encoder.shape, pruned.predictor[..., 0])
      (2, 2, 8) [[0. 1.]
       [1. 2.]]
    """
    encoder = checks.logits_array("encoder", encoder, ("T", "D"))
    predictor = checks.logits_array("predictor", predictor, ("U + 1", "E"))
    *batch, frames, _ = encoder.shape
    if predictor.shape[:-2] != tuple(batch):
        shape = ", ".join([*map(str, batch), "U + 1, E"])
        raise ValueError(f"predictor has shape {predictor.shape}; it must be [{shape}].")
    spaces = predictor.shape[-2]
    ranges = transducer_checks.positions("ranges", ranges, (*batch, frames), spaces)
    logit_lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)
    label_lengths = checks.lengths_array("label_lengths", label_lengths, tuple(batch), spaces - 1)
    return _prune(encoder, predictor, ranges, logit_lengths, label_lengths)


@meshes.jit(trailing=(2, 2, 2, 0, 0))
def _prune(encoder, predictor, ranges, logit_lengths, label_lengths):
    read_frames = frames_inside(encoder, logit_lengths)
    read_spaces = frames_inside(predictor, label_lengths + 1)
    encoder = jnp.where(read_frames[..., None], encoder, 0)
    predictor = jnp.where(read_spaces[..., None], predictor, 0)
    shape = (*ranges.shape, encoder.shape[-1])
    chosen = jnp.take_along_axis(
        predictor[..., None, :, :], ranges[..., None], axis=-2, mode="clip"
    )
    return PrunedInputs(jnp.broadcast_to(encoder[..., None, :], shape), chosen)
