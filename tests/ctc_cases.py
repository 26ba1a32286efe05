"""Cases for the tests of several CTC losses."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc

LOSS_AND_GRADIENT = {}


def loss_and_gradient(logits, labels, frames=None, lengths=None, blank=0):
    """Losses [B] and the gradient of their sum; compiled once for each shape."""

    def run(logits, labels, frames, lengths):
        losses, pullback = jax.vjp(
            lambda x: jaxctc.ctc_loss(x, labels, frames, lengths, blank_id=blank), logits
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    compiled = LOSS_AND_GRADIENT.setdefault(blank, jax.jit(run))
    losses, gradient = compiled(logits, labels, frames, lengths)
    return np.asarray(losses), np.asarray(gradient)


def case(dtype=jnp.float32):
    """Logits, labels and lengths of three pairs; the last has no frames and no labels."""
    keys = jax.random.split(jax.random.key(3), 2)
    logits = jax.random.normal(keys[0], (3, 60, 4), dtype)
    labels = jnp.array([[1, 1, 2, 3], [2, 1, 3, 3], [3, 1, 1, 1]])
    return logits, labels, jnp.array([60, 31, 0]), jnp.array([4, 2, 0])
