"""Log-probabilities of the classes of a frame, and how sure they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def whole_sum(x: jax.Array) -> jax.Array:
    """The sum over the last axis, which stays, with size 1."""
    return jnp.sum(x, axis=-1, keepdims=True)


def sum_by_halves(x: jax.Array) -> jax.Array:
    """The same, one half added to the other.

    In a reduction the compiler chooses an order that depends on the number of frames: a
    stream's last bits would then depend on how it was cut.
    """
    while (classes := x.shape[-1]) > 1:
        half = (classes + 1) // 2
        rest = jnp.pad(x[..., half:], [(0, 0)] * (x.ndim - 1) + [(0, 2 * half - classes)])
        x = x[..., :half] + rest
    return x


def normalised(
    logits: jax.Array, sum_of: Callable[[jax.Array], jax.Array] = whole_sum
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities ``[*axes, C]``, and their confidences ``[*axes]``.

    NaN if a class is NaN or ``+inf``, ``-inf`` if all classes are. A confidence is 1 minus the
    entropy as a share of log C, the highest there is (Laptev and Ginsburg 2022, "Fast
    entropy-based methods of word-level confidence estimation for end-to-end automatic speech
    recognition", arXiv 2212.08703, section 4, Gibbs entropy with linear normalisation).
    """
    top = jnp.max(logits, axis=-1, keepdims=True)
    top = jnp.where(top != -jnp.inf, top, 0)
    # Subtracted in two steps: with large logits, maximum plus logarithm would round.
    shifted = logits - top
    share = jnp.exp(shifted)
    total = sum_of(share)
    total = jnp.where(total == 0, 1, total)
    log_total = jnp.log(total)
    mean = sum_of(share * jnp.where(share > 0, shifted, 0)) / total
    most = jnp.log(jnp.asarray(max(logits.shape[-1], 2), logits.dtype))
    confidence = jnp.clip(1 - (log_total - mean) / most, 0, 1)
    return shifted - log_total, confidence[..., 0]
