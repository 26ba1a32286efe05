"""Cases for the tests of several transducer losses."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc

LOSS_AND_GRADIENT = {}


def loss_and_gradient(logits, labels, frames=None, lengths=None, blank=0, monotonic=False):
    """Losses [B] and the gradient of their sum; compiled once for each shape."""

    def run(logits, labels, frames, lengths):
        losses, pullback = jax.vjp(
            lambda x: jaxctc.rnnt_loss(
                x, labels, frames, lengths, blank_id=blank, monotonic=monotonic
            ),
            logits,
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    compiled = LOSS_AND_GRADIENT.setdefault((blank, monotonic), jax.jit(run))
    losses, gradient = compiled(logits, labels, frames, lengths)
    return np.asarray(losses), np.array(gradient)


BATCH = (
    np.random.default_rng(0).standard_normal((3, 6, 5, 7)).astype(np.float32),
    np.array([[1, 2, 2, 3], [6, 5, 4, 0], [1, 1, 1, 1]], np.int32),
    np.array([6, 4, 5], np.int32),
    np.array([4, 2, 0], np.int32),
)
