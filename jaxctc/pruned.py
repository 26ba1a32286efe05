"""Pruned transducer training (Kuang et al. 2022): a cheap joint says where the dear one matters.

1. `rnnt_loss_simple` adds encoder and predictor instead of joining them by a network, so that
   its normaliser is a product of matrices and nothing of size T × U × C exists.
2. The posteriors of that lattice tell `rnnt_prune_ranges` which few label positions matter at
   each frame, and `rnnt_prune` picks what the joint network then sees.
3. `rnnt_loss_pruned` is the transducer loss of the joint's logits at those positions.

Both losses are trained together.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc import checks, recursion
from jaxctc.emissions import (
    arc_log_probabilities,
    frames_inside,
    log_normaliser,
    log_softmax,
    widen,
)
from jaxctc.transducer import (
    TransducerArcs,
    cells,
    readable_labels,
    rnnt_loss_from_log_probs,
    total,
    unflatten,
)

# Below this a sum of products may have lost terms to underflow.
_SMALLEST = 1e-30


def rnnt_simple_log_probs(
    encoder_logits: checks.ArrayLike,
    predictor_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    lm_only_scale: float = 0.0,
    am_only_scale: float = 0.0,
) -> TransducerArcs:
    """Log-probabilities of a joint that adds: ``softmax(encoder_logits + predictor_logits)``.

    They may be smoothed, so that the lattice is not trusted too early: mixed, as logarithms,
    with what the predictor alone says (`lm_only_scale`) and with what the encoder says when
    the predictor is replaced by its mean over the sequence (`am_only_scale`).

    Args:
      encoder_logits: float ``[*batch, T, C]``.
      predictor_logits: float ``[*batch, U + 1, C]``: after no label, after the first, …
      labels: integer ``[*batch, U]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U.
      blank_id: The class that is the blank.
      lm_only_scale, am_only_scale: Shares from 0 up, together at most 1.

    Returns:
      `TransducerArcs`, for `rnnt_loss_from_log_probs` and `rnnt_posteriors`.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, `blank_id` or a scale are out of
        range.

    Example:
      >>> import jax.numpy as jnp, jaxctc
      >>> labels = jnp.array([1, 2])
      >>> arcs = jaxctc.rnnt_simple_log_probs(jnp.zeros((4, 3)), jnp.zeros((3, 3)), labels)
      >>> loss = jaxctc.rnnt_loss_from_log_probs(*arcs)
      >>> posteriors = jaxctc.rnnt_posteriors(*arcs)

    References:
      Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training", eqs. 4–9,
      arXiv 2206.13236. There the mean is over a batch, here over the sequence, so that a
      sequence's loss does not depend on its neighbours.
    """
    encoder = checks.logits_array("encoder_logits", encoder_logits)
    *batch, frames, classes = encoder.shape
    labels = checks.labels_array("labels", labels, tuple(batch))
    spaces = labels.shape[-1] + 1
    predictor = checks.logits_array("predictor_logits", predictor_logits, ("U + 1", "C"))
    if predictor.shape != (*batch, spaces, classes):
        expected = (*batch, spaces, classes)
        raise ValueError(f"predictor_logits has shape {predictor.shape}; it must be {expected}.")
    return _simple_log_probs(
        encoder,
        predictor,
        labels,
        checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames),
        checks.lengths_array("label_lengths", label_lengths, tuple(batch), spaces - 1),
        checks.class_id("blank_id", blank_id, classes),
        *checks.shares(lm_only_scale=lm_only_scale, am_only_scale=am_only_scale),
    )


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _simple_log_probs(
    encoder, predictor, labels, logit_lengths, label_lengths, blank_id, lm_scale, am_scale
):
    batch, (frames, classes), spaces = (
        logit_lengths.shape,
        encoder.shape[-2:],
        predictor.shape[-2],
    )
    size = logit_lengths.size
    lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    inside = cells(frames, spaces, *lengths)
    read_frames = jnp.arange(frames)[None, :] < lengths[0][:, None]
    read_spaces = jnp.arange(spaces)[None, :] <= lengths[1][:, None]
    encoder = widen(encoder.reshape(size, frames, classes))
    encoder = jnp.where(read_frames[:, :, None], encoder, 0)
    predictor = widen(predictor.reshape(size, spaces, classes))
    predictor = jnp.where(read_spaces[:, :, None], predictor, 0)
    read, valid = readable_labels(labels.reshape(size, spaces - 1), classes, blank_id)

    def arcs(of_encoder, of_predictor, normaliser):
        """The blank's and the label's log-probabilities, [B, T, U + 1] each."""
        columns = jnp.take_along_axis(of_encoder, read[:, None, :], axis=2)
        labels = jnp.take_along_axis(of_predictor, read[:, :, None], axis=2)[:, :, 0]
        blank = of_encoder[:, :, None, blank_id] + of_predictor[:, None, :, blank_id]
        return blank - normaliser, columns + labels[:, None, :] - normaliser

    mixture = [
        (1.0 - lm_scale - am_scale, arcs(encoder, predictor, _normaliser(encoder, predictor)))
    ]
    if lm_scale:
        alone = log_softmax(predictor, read_spaces)
        mixture.append((lm_scale, arcs(jnp.zeros_like(encoder), alone, 0.0)))
    if am_scale:
        mean = _log_mean(log_softmax(predictor, read_spaces), read_spaces)
        joined = log_softmax(encoder + mean[:, None, :], read_frames)
        mixture.append((am_scale, arcs(joined, jnp.zeros_like(predictor), 0.0)))
    mixed = [[share * x for x in arc] for share, arc in mixture if share]
    blank, label = (functools.reduce(jnp.add, terms) for terms in zip(*mixed, strict=True))
    label = jnp.where(valid[:, None, :], label[:, :, :-1], -jnp.inf)
    label = jnp.where(inside[:, :, 1:], label, 0)
    return unflatten(TransducerArcs(jnp.where(inside, blank, 0), label), batch)


def _log_mean(log_probs: jax.Array, inside: jax.Array) -> jax.Array:
    """Logarithm of the mean probability of each class, ``[B, C]``, over the places inside.

    Of logarithms: a probability may underflow, and the logarithm of 0 has no derivative.
    """
    by_class = jnp.where(inside[:, :, None], log_probs, -jnp.inf).swapaxes(1, 2)
    possible = jnp.max(by_class, axis=2) != -jnp.inf  # NaN is to be seen
    total = log_normaliser(by_class, possible)
    count = jnp.maximum(jnp.sum(inside, axis=1, dtype=log_probs.dtype), 1)
    return jnp.where(possible, total - jnp.log(count)[:, None], -jnp.inf)


def _normaliser(encoder: jax.Array, predictor: jax.Array) -> jax.Array:
    """``logsumexp(encoder[t] + predictor[u])`` over the classes, [B, T, U + 1]."""

    def by_product(encoder, predictor):
        tops, factors = [], []
        for x in (encoder, predictor):
            top = lax.stop_gradient(jnp.max(x, axis=2, keepdims=True))
            tops.append(jnp.where(jnp.isfinite(top), top, 0))
            factors.append(jnp.exp(x - tops[-1]))
        products = jnp.einsum("btc,buc->btu", *factors, precision=lax.Precision.HIGHEST)
        return products, tops[0] + tops[1].swapaxes(1, 2)

    def fast(encoder, predictor):
        products, top = by_product(encoder, predictor)
        return jnp.log(products) + top

    def exact(encoder, predictor):
        # A frame at a time: there is no array of all frames, labels and classes here either.
        def of_frame(_, frame):
            sums = frame[:, None, :] + predictor
            # It is 0 where there is no class at all: the arcs are -inf.
            return None, log_normaliser(sums, jnp.ones(sums.shape[:2], bool))

        _, sums = lax.scan(jax.checkpoint(of_frame), None, encoder.swapaxes(0, 1))
        return sums.swapaxes(0, 1)

    products, _ = by_product(*lax.stop_gradient((encoder, predictor)))
    usable = (products > _SMALLEST) & (products < jnp.inf)  # neither is NaN
    return lax.cond(jnp.all(usable), fast, exact, encoder, predictor)


def rnnt_loss_simple(
    encoder_logits: checks.ArrayLike,
    predictor_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    monotonic: bool = False,
    lm_only_scale: float = 0.0,
    am_only_scale: float = 0.0,
) -> jax.Array:
    """The transducer loss of a joint that adds; memory is T × C, U × C and T × U.

    Arguments and errors are those of `rnnt_simple_log_probs`; `monotonic` is that of `rnnt_loss`.

    Returns:
      float ``[*batch]``, as `rnnt_loss` of ``encoder_logits[t] + predictor_logits[u]``.

    Example:
      >>> import jax.numpy as jnp, jaxctc
      >>> encoder, predictor = jnp.zeros((4, 3)), jnp.ones((3, 3))
      >>> simple = jaxctc.rnnt_loss_simple(encoder, predictor, jnp.array([1, 2]))
      >>> full = jaxctc.rnnt_loss(encoder[:, None, :] + predictor[None, :, :], jnp.array([1, 2]))
      >>> print(jnp.allclose(simple, full))
      True
    """
    arcs = rnnt_simple_log_probs(
        encoder_logits,
        predictor_logits,
        labels,
        logit_lengths,
        label_lengths,
        blank_id=blank_id,
        lm_only_scale=lm_only_scale,
        am_only_scale=am_only_scale,
    )
    return rnnt_loss_from_log_probs(*arcs, logit_lengths, label_lengths, monotonic=monotonic)


def rnnt_prune_ranges(
    blank_posteriors: checks.ArrayLike,
    label_posteriors: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    s_range: int,
    monotonic: bool = False,
) -> jax.Array:
    """The `s_range` neighbouring label positions that hold most of the probability of each frame.

    They start at 0 in the first frame, end at the last label in the last, never go back, and
    advance by at most ``s_range - 1`` a frame, so that a path through them exists wherever the
    frames suffice: ``U <= (s_range - 1) * T``. If `monotonic` they advance by at most 1, as a path
    does, and ``U <= T`` suffices from an `s_range` of 2 on.

    Args:
      blank_posteriors: float ``[*batch, T, U + 1]``, from `rnnt_posteriors`.
      label_posteriors: float ``[*batch, T, U]``.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U.
      s_range: How many positions; more than U + 1 are taken as U + 1.
      monotonic: Whether a label takes its frame, as in `rnnt_loss`: give it the posteriors of that.

    Returns:
      int32 ``[*batch, T, min(s_range, U + 1)]``, the positions, each row consecutive.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `s_range` are out of range.

    Example:
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
    arcs = checks.transducer_arcs(
        blank_posteriors, label_posteriors, logit_lengths, label_lengths, "posteriors"
    )
    s_range = checks.positive("s_range", s_range)
    return _prune_ranges(*arcs, min(s_range, arcs.blank.shape[-1]), monotonic)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _prune_ranges(blank, label, logit_lengths, label_lengths, s_range, monotonic):
    time = lax.broadcasted_iota(jnp.int32, blank.shape[:-1], blank.ndim - 2)
    inside = time < logit_lengths[..., None]
    no_label = [(0, 0)] * (label.ndim - 1) + [(0, 1)]
    visits = widen(blank) + jnp.pad(widen(label), no_label)
    used = lax.broadcasted_iota(jnp.int32, visits.shape, visits.ndim - 1)
    used = inside[..., None] & (used <= label_lengths[..., None, None])
    visits = jnp.where(used, visits, 0)
    # One window sum at a time is exact; differences of cumulative sums would not be.
    window = (1,) * (blank.ndim - 1) + (s_range,)
    zero = visits.dtype.type(0)
    sums = lax.reduce_window(visits, zero, lax.add, window, (1,) * blank.ndim, "VALID")
    begins = jnp.argmax(sums, axis=-1).astype(jnp.int32)

    last = jnp.maximum(label_lengths + 1 - s_range, 0)[..., None]
    remaining = jnp.maximum(logit_lengths[..., None] - 1 - time, 0)
    step = 1 if monotonic else s_range - 1
    begins = jnp.where(inside, begins, last)
    begins = jnp.clip(begins, jnp.maximum(last - step * remaining, 0), last)
    begins = lax.cummax(begins, axis=begins.ndim - 1)
    # No faster than `step` a frame, from 0 on: what is left is still monotone and ends at `last`.
    begins = lax.cummin(jnp.minimum(begins - step * time, 0), axis=begins.ndim - 1) + step * time
    places = lax.broadcasted_iota(jnp.int32, (*begins.shape, s_range), begins.ndim)
    return begins[..., None] + places


class PrunedInputs(NamedTuple):
    """What a joint network sees of a pruned lattice."""

    encoder: jax.Array  # [*batch, T, s_range, D]
    predictor: jax.Array  # [*batch, T, s_range, E]


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
      ``predictor [*batch, T, s_range, E]``. Both are 0 past a length, since a NaN there would come
      back through the joint network's gradient.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or positions are out of range.

    Example:
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
    ranges = checks.positions("ranges", ranges, (*batch, frames), spaces)
    logit_lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)
    label_lengths = checks.lengths_array("label_lengths", label_lengths, tuple(batch), spaces - 1)
    return _prune(encoder, predictor, ranges, logit_lengths, label_lengths)


@jax.jit
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


def rnnt_loss_pruned(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    ranges: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    monotonic: bool = False,
) -> jax.Array:
    """The transducer loss over the paths within `ranges`: with all positions, `rnnt_loss`.

    Args:
      logits: float ``[*batch, T, s_range, C]``, the joint network's of `rnnt_prune`'s output.
      labels: integer ``[*batch, U]``, without blanks.
      ranges: integer ``[*batch, T, s_range]``, from `rnnt_prune_ranges`: rows are consecutive.
      logit_lengths, label_lengths, blank_id, monotonic: As in `rnnt_loss`.

    Returns:
      float ``[*batch]``: never less than `rnnt_loss`, since paths are left out; ``inf`` if
      none is left.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, positions or `blank_id` are out
        of range.

    Example:
      >>> import jax.numpy as jnp, jaxctc
      >>> encoder, predictor = jnp.zeros((4, 3)), jnp.zeros((5, 3))
      >>> labels = jnp.array([1, 2, 1, 2])
      >>> arcs = jaxctc.rnnt_simple_log_probs(encoder, predictor, labels)
      >>> ranges = jaxctc.rnnt_prune_ranges(*jaxctc.rnnt_posteriors(*arcs), s_range=3)
      >>> pruned = jaxctc.rnnt_prune(encoder, predictor, ranges)
      >>> logits = pruned.encoder + pruned.predictor  # here a joint network belongs
      >>> print(jaxctc.rnnt_loss_pruned(logits, labels, ranges).shape)
      ()

    References:
      Kuang et al. 2022, section 3.3, arXiv 2206.13236.
    """
    logits = checks.logits_array("logits", logits, ("T", "s_range", "C"))
    *batch, frames, width, classes = logits.shape
    labels = checks.labels_array("labels", labels, tuple(batch))
    spaces = labels.shape[-1] + 1
    ranges = checks.positions("ranges", ranges, (*batch, frames), spaces)
    if ranges.shape[-1] != width:
        raise ValueError(
            f"ranges has shape {ranges.shape}; it must be {(*batch, frames, width)}, as logits."
        )
    return _loss_pruned(
        logits,
        labels,
        ranges,
        checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames),
        checks.lengths_array("label_lengths", label_lengths, tuple(batch), spaces - 1),
        checks.class_id("blank_id", blank_id, classes),
        monotonic,
    )


@functools.partial(jax.jit, static_argnums=(5, 6))
def _loss_pruned(logits, labels, ranges, logit_lengths, label_lengths, blank_id, monotonic):
    batch, (frames, width, classes) = logits.shape[:-3], logits.shape[-3:]
    lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    size, spaces = lengths[0].size, labels.shape[-1] + 1
    logits = logits.reshape(size, frames, width, classes)
    ranges = ranges.reshape(size, frames, width)
    read, valid = readable_labels(labels.reshape(size, spaces - 1), classes, blank_id)

    inside = cells(frames, spaces, *lengths)
    begins = ranges[:, :, :1]
    positions = begins + lax.broadcasted_iota(jnp.int32, ranges.shape, 2)
    kept = jnp.take_along_axis(inside, positions, axis=2, mode="fill", fill_value=False)
    # Rows that are not consecutive, or not of the lattice, are taken to hold nothing.
    kept &= (ranges == positions) & (begins >= 0)
    read = jnp.take_along_axis(read[:, None, :], positions, axis=2, mode="clip")
    pruned = arc_log_probabilities(logits, read, kept, blank_id)

    # Back in their places among all positions; elsewhere there is no arc.
    place = jnp.arange(spaces, dtype=jnp.int32)[None, None, :] - begins
    covered = (place >= 0) & (place < width)
    index = jnp.clip(place, 0, width - 1)
    covered &= jnp.take_along_axis(kept, index, axis=2)
    blank, label = (
        jnp.where(covered, jnp.take_along_axis(x, index, axis=2), -jnp.inf) for x in pruned
    )
    label = jnp.where(valid[:, None, :], label[:, :, :-1], -jnp.inf)
    log_z = total(TransducerArcs(blank, label), *lengths, monotonic)
    return recursion.negative_log_likelihood(log_z).reshape(batch)
