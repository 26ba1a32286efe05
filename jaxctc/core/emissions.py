"""Log-probabilities of a few classes at every frame, without the log-softmax of all.

With many classes, a loss spends most of its time and memory here. The derivative is therefore
given by its formula, ``d log p_k = dx_k - sum_c p_c dx_c``: logits are read twice and the gradient
is written once. The rule is a `jax.custom_jvp` of differentiable parts, so that forward mode,
reverse mode and higher derivatives all work.

Frames outside a sequence (padding) may hold anything: no value and no derivative depends on them.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxctc.core.xfloat import choose

# The name by which `jax.checkpoint` may keep what derivatives need beside the logits.
NORMALISER = "jaxctc.log_normaliser"


def arc_log_probabilities(
    logits: jax.Array, labels: jax.Array, inside: jax.Array, blank_id: int
) -> tuple[jax.Array, jax.Array]:
    """``log_softmax(logits)`` of the blank and of one label; 0 outside.

    Arguments and results are those of `several_log_probabilities`, for one blank.
    """
    (blank,), label = several_log_probabilities(logits, labels, inside, (blank_id,))
    return blank, label


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def several_log_probabilities(
    logits: jax.Array, labels: jax.Array, inside: jax.Array, blank_ids: tuple[int, ...]
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """``log_softmax(logits)`` of all blanks and of one label; 0 outside.

    Args:
      logits: float ``[..., U, C]``.
      labels: integer in ``0…C-1``, of a shape that broadcasts to ``[..., U]``.
      inside: bool ``[..., U]``.
      blank_ids: The classes that are blanks.

    Returns:
      Arrays of the shape of `inside`, float32, or float64 if the logits are.
    """
    top, rest = _log_normaliser(logits, inside)
    label = jnp.take_along_axis(logits, labels[..., None], -1, mode="promise_in_bounds")[..., 0]
    # Subtracted one after the other: with large logits, top + rest would round.
    *blanks, label = (
        choose(inside, (widen(x) - top) - rest, 0)
        for x in (*(logits[..., c] for c in blank_ids), label)
    )
    return tuple(blanks), label


@several_log_probabilities.defjvp
def _several_log_probabilities_jvp(blank_ids, primals, tangents):
    logits, labels, inside = primals
    tangent = widen(tangents[0])
    mean = _mean(logits, inside, tangent)
    classes = lax.broadcasted_iota(
        jnp.int32, (1,) * (logits.ndim - 1) + logits.shape[-1:], logits.ndim - 1
    )

    def of(chosen):
        # A masked sum, not a gather: its transpose is part of the one pass that writes the
        # gradient; a scatter would be a second pass.
        of_chosen = jnp.sum(choose(classes == chosen, tangent, 0), axis=-1)
        return choose(inside, of_chosen, 0) - mean

    change = tuple(of(c) for c in blank_ids), of(labels[..., None])
    return several_log_probabilities(logits, labels, inside, blank_ids), change


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def log_probabilities(
    logits: jax.Array, classes: jax.Array, inside: jax.Array, outside: jax.Array, axis: int
) -> jax.Array:
    """``log_softmax(logits)`` of chosen classes, frames first.

    Args:
      logits: float ``[B, T, C]``.
      classes: integer ``[B, N]`` in ``0…C-1``.
      inside: bool ``[B, T]``: which frames belong to the sequence.
      outside: The values at all other frames, ``[B, N]`` with axis 1, ``[N, B]`` with axis 0.
      axis: The layout: 1 gives ``[T, B, N]``, 0 gives ``[T, N, B]``.

    Returns:
      float32, or float64 if the logits are.
    """
    top, rest = _log_normaliser(logits, inside)
    picked, frames_last = _pick(logits, classes)
    apart = 1 if frames_last else 2  # the axis of the classes, which top and rest lack
    # Subtracted one after the other: with large logits, top + rest would round.
    log_probs = (picked - jnp.expand_dims(top, apart)) - jnp.expand_dims(rest, apart)
    outside = jnp.expand_dims(outside if axis == 1 else outside.T, 3 - apart)
    log_probs = choose(jnp.expand_dims(inside, apart), log_probs, outside.astype(picked.dtype))
    return _frames_first(log_probs, frames_last, axis)


@log_probabilities.defjvp
def _log_probabilities_jvp(axis, primals, tangents):
    logits, classes, inside, outside = primals
    # Widened once, here: the transpose then adds in float32 and rounds to half precision last.
    tangent = widen(tangents[0])
    # The mask is applied to the chosen classes, not to all classes: the transpose then needs no
    # further pass over the gradient.
    mean = _mean(logits, inside, tangent)
    change = _frames_first(*_pick(tangent, classes), axis)
    change = choose(jnp.expand_dims(inside.T, axis + 1), change, 0)
    return (
        log_probabilities(logits, classes, inside, outside, axis),
        change - jnp.expand_dims(mean.T, axis + 1),
    )


def shared_log_probabilities(
    logits: jax.Array, classes: jax.Array, inside: jax.Array, outside: jax.Array, axis: int
) -> jax.Array:
    """`log_probabilities` where several sequences of classes may read the same logits.

    Logits are ``[R, T, C]``, classes ``[B, N]`` and the others likewise, with B a multiple of R:
    the sequences that read the first logits come first. Logits are normalised once and not copied.
    """
    rows, batch = logits.shape[0], classes.shape[0]
    if rows == batch:
        return log_probabilities(logits, classes, inside, outside, axis)
    frames, count = logits.shape[1], classes.shape[1]
    by_row = classes.reshape(rows, batch // rows * count)
    read = jnp.any(inside.reshape(rows, batch // rows, frames), axis=1)
    nothing = jnp.zeros(by_row.shape, outside.dtype)
    scores = log_probabilities(logits, by_row, read, nothing, 1).reshape(frames, batch, count)
    scores = scores if axis == 1 else scores.swapaxes(1, 2)
    return choose(jnp.expand_dims(inside.T, axis + 1), scores, outside[None].astype(scores.dtype))


def frame_log_probabilities(
    logits: jax.Array, classes: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``log_softmax(logits)`` at one class a frame, and the normaliser; both 0 outside.

    Args:
      logits: float ``[R, T, C]``.
      classes: integer ``[B, T]`` in ``0…C-1``, with B a multiple of R, as above.
      inside: bool ``[B, T]``.
    """
    rows, frames = logits.shape[:2]
    batch = classes.shape[0]
    # Only asked where it is not 1, for a symbolic batch can't be divided.
    repeats = 1 if rows == batch else batch // rows
    by_row = classes.reshape(rows, repeats, frames)
    inside = inside.reshape(by_row.shape)
    top, rest = (x[:, None] for x in _log_normaliser(logits, jnp.any(inside, axis=1)))
    picked = jnp.take_along_axis(logits, by_row.swapaxes(1, 2), 2, mode="promise_in_bounds")
    # In two steps: the sum of the two would round where logits are large.
    log_probs = (widen(picked.swapaxes(1, 2)) - top) - rest
    return (
        choose(inside, log_probs, 0).reshape(classes.shape),
        choose(inside, top + rest, 0).reshape(classes.shape),
    )


def _pick(logits: jax.Array, classes: jax.Array) -> tuple[jax.Array, bool]:
    """Logits of the classes, and their layout: True if ``[B, N, T]``, False if ``[B, T, N]``."""
    if logits.shape[2] <= classes.shape[1]:
        # Few classes: gather whole rows of frames, and scatter whole rows in the transpose.
        rows = jnp.swapaxes(logits, 1, 2)
        picked = jnp.take_along_axis(rows, classes[:, :, None], 1, mode="promise_in_bounds")
        return widen(picked), True
    picked = jnp.take_along_axis(logits, classes[:, None, :], 2, mode="promise_in_bounds")
    return widen(picked), False


def _frames_first(x: jax.Array, frames_last: bool, axis: int) -> jax.Array:
    """``[B, N, T]`` or ``[B, T, N]`` as ``[T, B, N]``, or with axis 0 ``[T, N, B]``."""
    frames, classes = (2, 1) if frames_last else (1, 2)
    return x.transpose((frames, classes, 0) if axis == 0 else (frames, 0, classes))


@jax.custom_jvp
def _log_normaliser(logits: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two arrays, of the shape of `inside`, whose sum is ``logsumexp(logits)``: maximum and rest.

    Frames outside are masked after the reduction: a mask before it would keep XLA from
    vectorising it.
    """
    # Maximum first, then widened: the other way round, half precision is copied as float32.
    top = widen(jnp.max(logits, axis=-1))
    # If all classes are -inf, the frame has no path. NaN is passed on.
    top = choose(inside & (top != -jnp.inf), top, 0)
    # Without the barrier XLA materialises arrays as large as the logits before it sums: the
    # maxima, and half precision as float32.
    x, largest = lax.optimization_barrier((logits, top))
    total = jnp.sum(jnp.exp(widen(x) - largest[..., None]), axis=-1)
    possible = inside & (total != 0)
    return top, choose(possible, jnp.log(choose(possible, total, 1)), 0)


@_log_normaliser.defjvp
def _log_normaliser_jvp(primals, tangents):
    logits, inside = primals
    top, rest = _log_normaliser(logits, inside)
    return (top, rest), (jnp.zeros_like(top), _mean(logits, inside, widen(tangents[0])))


def _mean(logits: jax.Array, inside: jax.Array, values: jax.Array) -> jax.Array:
    """The expectation of `values` over the classes, of the shape of `inside`; 0 outside."""
    normaliser = (checkpoint_name(x, NORMALISER) for x in _log_normaliser(logits, inside))
    top, rest = (x[..., None] for x in normaliser)
    x = choose(inside[..., None], widen(logits), 0)
    mean = jnp.sum(jnp.exp((x - top) - rest) * values, axis=-1)
    return choose(inside, mean, 0)


def frames_inside(logits: jax.Array, logit_lengths: jax.Array) -> jax.Array:
    """Which frames of ``[*batch, T, C]`` are within the lengths, bool ``[*batch, T]``.

    Where logits are broadcast, lengths have more batch axes: then within any of the lengths.
    """
    own, batch = logits.shape[:-2], logit_lengths.shape
    if own != batch:
        own = (1,) * (len(batch) - len(own)) + own
        shared = tuple(i for i in range(len(batch)) if own[i] != batch[i])
        longest = jnp.max(logit_lengths, axis=shared, initial=0)
        logit_lengths = longest.reshape(logits.shape[:-2])
    frame = jnp.arange(logits.shape[-2], dtype=jnp.int32).reshape((1,) * (logits.ndim - 2) + (-1,))
    return frame < logit_lengths[..., None]


def log_normaliser(logits: jax.Array, inside: jax.Array) -> jax.Array:
    """``logsumexp(logits)`` of each frame; 0 outside, and where no class is possible."""
    top, rest = _log_normaliser(logits, inside)
    # `top` counts as a constant; the whole derivative is in `rest`.
    return top + rest


def log_softmax(logits: jax.Array, inside: jax.Array) -> jax.Array:
    """``log_softmax(logits)`` of each frame; 0 outside."""
    top, rest = (x[..., None] for x in _log_normaliser(logits, inside))
    return choose(inside[..., None], (widen(logits) - top) - rest, 0)


def widen(x: jax.Array) -> jax.Array:
    """`x` in the dtype it is computed in: half precision as float32."""
    return lax.convert_element_type(x, wide(x.dtype))


def wide(dtype) -> jnp.dtype:
    """The dtype in which numbers of `dtype` are computed: float32 or float64."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
