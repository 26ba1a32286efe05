"""Log-probabilities of some classes at every frame, without the log-softmax of all.

With many classes this is where the time and the memory of a loss go, so the derivative is
given by its formula, ``d log p_k = dx_k - sum_c p_c dx_c``: logits are read twice and the gradient
is written once. The rule is a `jax.custom_jvp` of differentiable parts, so that forward mode,
reverse mode and higher derivatives all follow from it.

Frames outside a sequence may hold anything: nothing of them is in a value or a derivative.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core.xfloat import choose


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def arc_log_probabilities(
    logits: jax.Array, labels: jax.Array, inside: jax.Array, blank_id: int
) -> tuple[jax.Array, jax.Array]:
    """``log_softmax(logits)`` at the blank and at one label, 0 outside.

    Args:
      logits: float ``[..., U, C]``.
      labels: integer ``[..., U]`` in ``0…C-1``, of a shape that broadcasts.
      inside: bool ``[..., U]``.
      blank_id: The class that is the blank.

    Returns:
      Two arrays of the shape of `inside`, float32, or float64 if the logits are.
    """
    top, rest = _log_normaliser(logits, inside)
    label = jnp.take_along_axis(logits, labels[..., None], -1, mode="promise_in_bounds")[..., 0]
    # In two steps: the sum of the two would round where logits are large.
    blank, label = ((widen(x) - top) - rest for x in (logits[..., blank_id], label))
    return choose(inside, blank, 0), choose(inside, label, 0)


@arc_log_probabilities.defjvp
def _arc_log_probabilities_jvp(blank_id, primals, tangents):
    logits, labels, inside = primals
    tangent = widen(tangents[0])
    mean = _mean(logits, inside, tangent)
    classes = lax.broadcasted_iota(
        jnp.int32, (1,) * (logits.ndim - 1) + logits.shape[-1:], logits.ndim - 1
    )

    def of(chosen):
        # Selected, not gathered: the transpose is then part of the one pass that writes the
        # gradient, where a scatter would be a second.
        of_chosen = jnp.sum(choose(classes == chosen, tangent, 0), axis=-1)
        return choose(inside, of_chosen, 0) - mean

    change = of(blank_id), of(labels[..., None])
    return arc_log_probabilities(logits, labels, inside, blank_id), change


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def log_probabilities(
    logits: jax.Array, classes: jax.Array, inside: jax.Array, outside: jax.Array, axis: int
) -> jax.Array:
    """``log_softmax(logits)`` at chosen classes, frames first.

    Args:
      logits: float ``[B, T, C]``.
      classes: integer ``[B, N]`` in ``0…C-1``.
      inside: bool ``[B, T]``: is the frame one of the sequence's?
      outside: What stands at frames that are not, for each class, ``[B, N]`` or ``[N, B]``.
      axis: Where the classes go: 1 gives ``[T, B, N]``, 0 gives ``[T, N, B]``.

    Returns:
      float32, or float64 if the logits are.
    """
    top, rest = _log_normaliser(logits, inside)
    # In two steps: the sum of the two would round where logits are large.
    picked, frames_last = _pick(logits, classes)
    apart = 1 if frames_last else 2  # what is per frame has no axis of classes
    log_probs = (picked - jnp.expand_dims(top, apart)) - jnp.expand_dims(rest, apart)
    outside = jnp.expand_dims(outside if axis == 1 else outside.T, 3 - apart)
    log_probs = choose(jnp.expand_dims(inside, apart), log_probs, outside.astype(picked.dtype))
    return _frames_first(log_probs, frames_last, axis)


@log_probabilities.defjvp
def _log_probabilities_jvp(axis, primals, tangents):
    logits, classes, inside, outside = primals
    # Widened here once: the transpose then adds up in float32 and rounds to half precision last.
    tangent = widen(tangents[0])
    # Masked where there is one number a frame and label, not one a class: the transpose then
    # has no pass over the gradient for it.
    mean = _mean(logits, inside, tangent)
    change = _frames_first(*_pick(tangent, classes), axis)
    change = choose(jnp.expand_dims(inside.T, axis + 1), change, 0)
    return (
        log_probabilities(logits, classes, inside, outside, axis),
        change - jnp.expand_dims(mean.T, axis + 1),
    )


def _pick(logits: jax.Array, classes: jax.Array) -> tuple[jax.Array, bool]:
    """Logits of the classes, and whether they are ``[B, N, T]``; else they are ``[B, T, N]``."""
    if logits.shape[2] <= classes.shape[1]:
        # Few classes: gather, and scatter back in the transpose, whole rows of frames.
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

    Logits are read as they are, and what is outside is replaced after the reduction:
    selecting before it would keep XLA from vectorising it.
    """
    # The maximum of what there is: widened first, half precision would be copied as float32.
    top = widen(jnp.max(logits, axis=-1))
    # A frame without any class has no path; one with NaN passes it on, to be seen.
    top = choose(inside & (top != -jnp.inf), top, 0)
    # Without the barrier XLA writes the maxima, and half precision as float32, out to the size of
    # the logits before it adds up.
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
    """The expectation over the classes of `values`, as `inside`; 0 outside."""
    top, rest = (x[..., None] for x in _log_normaliser(logits, inside))
    x = choose(inside[..., None], widen(logits), 0)
    mean = jnp.sum(jnp.exp((x - top) - rest) * values, axis=-1)
    return choose(inside, mean, 0)


def frames_inside(logits: jax.Array, logit_lengths: jax.Array) -> jax.Array:
    """Which frames of ``[*batch, T, C]`` count, bool ``[*batch, T]``."""
    frame = lax.broadcasted_iota(jnp.int32, logits.shape[:-1], logits.ndim - 2)
    return frame < logit_lengths[..., None]


def log_normaliser(logits: jax.Array, inside: jax.Array) -> jax.Array:
    """``logsumexp(logits)`` of each frame; 0 outside, and where no class is possible."""
    top, rest = _log_normaliser(logits, inside)
    # The derivative of the two is in the second: the maximum is any number to them.
    return top + rest


def log_softmax(logits: jax.Array, inside: jax.Array) -> jax.Array:
    """``log_softmax(logits)`` of each frame; 0 outside."""
    top, rest = (x[..., None] for x in _log_normaliser(logits, inside))
    return choose(inside[..., None], (widen(logits) - top) - rest, 0)


def widen(x: jax.Array) -> jax.Array:
    """Half precision as float32; everything is computed in that, or in float64."""
    return lax.convert_element_type(x, wide(x.dtype))


def wide(dtype) -> jnp.dtype:
    """What numbers of a dtype are computed in."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
