"""Features normalised to mean 0 and variance 1 in every band: of whole strings, or as they come."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from digits.data import HOP, MELS, RATE

FLOOR = 1e-2  # added to variances
MEMORY_SECONDS = 4.0  # after which a frame counts 1 / e
# Before the first frame the mean and deviation of recordings count like so many seconds.
TYPICAL_SECONDS, TYPICAL_MEAN, TYPICAL_DEVIATION = 0.5, -4.0, 2.5


class Moments(NamedTuple):
    """Sums over the frames of a stream so far, older ones with smaller weights."""

    weights: jax.Array  # [batch, 1]
    sums: jax.Array  # [batch, MELS]
    squares: jax.Array  # [batch, MELS]


def typical(batch: int) -> Moments:
    """Returns the moments before the first frame."""
    weights = jnp.full((batch, 1), TYPICAL_SECONDS * RATE / HOP)
    sums = TYPICAL_MEAN * weights * jnp.ones(MELS)
    return Moments(weights, sums, (TYPICAL_MEAN**2 + TYPICAL_DEVIATION**2) * weights + 0 * sums)


def whole(features: jax.Array, inside: jax.Array) -> jax.Array:
    """Returns strings [batch, T, MELS] normalised, and 0 where `inside` [batch, T, 1] is False."""
    count = jnp.maximum(jnp.sum(inside, 1, keepdims=True), 1)
    mean = jnp.sum(features * inside, 1, keepdims=True) / count
    x = (features - mean) * inside
    return x / jnp.sqrt(jnp.sum(x * x, 1, keepdims=True) / count + FLOOR)


def running(moments: Moments, features: jax.Array, inside: jax.Array) -> tuple[jax.Array, Moments]:
    """Returns frames normalised by those up to them, and the moments after the last one.

    Frames where `inside` is False count nothing, and what is returned for them means nothing.
    """
    x = jnp.where(inside, features, 0)
    count = jnp.cumsum(inside[:, :, 0], 1)  # [batch, T]
    age = count[:, :, None] - count[:, None, :]
    share = jnp.exp(-(HOP / RATE / MEMORY_SECONDS) * jnp.maximum(age, 0))
    share *= (age >= 0) & inside[:, None, :, 0]
    kept = jnp.exp(-(HOP / RATE / MEMORY_SECONDS) * count)[:, :, None]

    def sums(before, x):
        return kept * before[:, None] + share @ x

    after = Moments(
        sums(moments.weights, jnp.ones_like(x[:, :, :1])),
        sums(moments.sums, x),
        sums(moments.squares, x * x),
    )
    mean = after.sums / after.weights
    variance = jnp.maximum(after.squares / after.weights - mean * mean, 0)
    x = (features - mean) / jnp.sqrt(variance + FLOOR)
    return x, jax.tree.map(lambda x: x[:, -1], after)
