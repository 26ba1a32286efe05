"""FastEmit and the delay penalty, which make a transducer emit its labels early.

Both act on the log-probabilities of the labels' arcs, before the recursion: so they work for any
topology, and in kernels as in the scan.

* The delay penalty (Kang et al. 2023) adds ``delay_penalty * ((T - 1) / 2 - t)`` to a label at
  frame t of T. It is part of the loss: value and gradient are those of the changed scores.
* FastEmit (Yu et al. 2021) multiplies the gradient of labels' arcs by ``1 + fastemit_lambda``.
  That of ``L(blank, label) + fastemit_lambda * L(constant blank, label)`` is the same, and the
  value is that of this sum, ``(1 + fastemit_lambda) * L``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import checks, recursion


class Penalties(NamedTuple):
    """The two factors; None where a factor is known to be 0."""

    fastemit_lambda: float | jax.Array | None = None
    delay_penalty: float | jax.Array | None = None


NONE = Penalties()


def checked(fastemit_lambda: Any = 0.0, delay_penalty: Any = 0.0) -> Penalties:
    """The arguments of a loss; they may be traced."""
    given = Penalties(
        checks.real_from_zero("fastemit_lambda", fastemit_lambda),
        checks.finite("delay_penalty", delay_penalty),
    )
    return Penalties(*(x if checks.concrete(x) != 0 else None for x in given))


def penalised(label: jax.Array, logit_lengths: jax.Array, penalties: Penalties) -> jax.Array:
    """Log-probabilities of the labels' arcs, ``[B, T, U]``, with both penalties."""
    fastemit_lambda, delay_penalty = penalties
    if fastemit_lambda is not None:
        factor = 1 + jnp.asarray(fastemit_lambda, label.dtype)
        label = _scaled(label, jnp.ones_like(factor), factor)
    if delay_penalty is not None:
        last = jnp.maximum(logit_lengths - 1, 0).astype(label.dtype)
        frame = jnp.arange(label.shape[1], dtype=label.dtype)
        early = last[:, None] / 2 - frame[None, :]
        label += (jnp.asarray(delay_penalty, label.dtype) * early)[:, :, None]
    return label


def loss_of(log_z: jax.Array, penalties: Penalties, never_negative: bool = True) -> jax.Array:
    """The loss of penalised arcs, never negative if there is no delay penalty."""
    loss = -log_z
    if never_negative and penalties.delay_penalty is None:
        loss = recursion.never_negative(loss)
    if penalties.fastemit_lambda is not None:
        factor = 1 + jnp.asarray(penalties.fastemit_lambda, loss.dtype)
        loss = _scaled(loss, factor, jnp.ones_like(factor))
    return loss


def loss_with_sigma(log_z: jax.Array, penalties: Penalties, sigma: float | jax.Array) -> jax.Array:
    """`loss_of` arcs from which `sigma` is subtracted: if it is negative, the loss may be."""
    clipped, loss = (loss_of(log_z, penalties, clip) for clip in (True, False))
    return jnp.where(jnp.asarray(sigma) >= 0, clipped, loss)


@jax.custom_jvp
def _scaled(x: jax.Array, of_value: jax.Array, of_gradient: jax.Array) -> jax.Array:
    """``of_value * x`` with the derivative `of_gradient`; the factors have none."""
    return of_value * x


@_scaled.defjvp
def _scaled_jvp(primals, tangents):
    x, of_value, of_gradient = primals
    # Not `_scaled` again: a second derivative is the derivative of the gradient, which does not
    # contain the factors once more.
    return of_value * x, of_gradient * tangents[0]
