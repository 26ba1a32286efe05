"""Scores of stars: classes that match any label missing from a transcript."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.semirings import LOG


def with_star(
    log_probs: checks.ArrayLike, *, blank_id: int = 0, excluding: bool = False
) -> jax.Array:
    """Log-probabilities with one more class, the star, which matches any label but not the blank.

    Args:
      log_probs: float ``[*batch, T, C]``.
      blank_id: The class that is the blank.
      excluding: Whether to append C more stars: class ``C + 1 + k`` matches any label other
        than k. Each is a sum over the labels it matches, not a difference, and so precise even if
        k has almost all of the probability.

    Returns:
      float ``[*batch, T, C + 1]``, or ``[*batch, T, 2 C + 1]``. The probability of a star is the
      sum over the labels it matches.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> log_probs = jnp.log(jnp.array([[0.5, 0.1, 0.4]]))
      >>> print(jnp.round(100 * jnp.exp(jaxctc.with_star(log_probs))))
      [[50. 10. 40. 50.]]
      >>> print(jnp.round(100 * jnp.exp(jaxctc.with_star(log_probs, excluding=True)[:, 4:])))
      [[50. 40. 10.]]

    References:
      Pratap, Hannun, Synnaeve, Collobert 2022, "Star temporal classification".
    """
    log_probs = checks.logits_array("log_probs", log_probs)
    blank_id = checks.class_id("blank_id", blank_id, log_probs.shape[-1])
    return _with_star(log_probs, blank_id, checks.flag("excluding", excluding))


@meshes.jit(trailing=(1,), static_argnums=(1, 2))
def _with_star(log_probs, blank_id, excluding):
    is_label = lax.broadcasted_iota(jnp.int32, log_probs.shape, log_probs.ndim - 1) != blank_id
    labels = jnp.where(is_label, log_probs, -jnp.inf)
    top = lax.stop_gradient(jnp.max(labels, axis=-1, keepdims=True))
    # If no label is possible, or padding holds NaN, there is no gradient.
    usable = jnp.isfinite(top)
    star = jax.nn.logsumexp(jnp.where(usable, labels, 0), axis=-1, keepdims=True)
    classes = [log_probs, jnp.where(usable, star, top)]
    if excluding:
        classes.append(jnp.where(usable, _sum_of_others(jnp.where(usable, labels, -jnp.inf)), top))
    return jnp.concatenate(classes, axis=-1)


def _sum_of_others(labels: jax.Array) -> jax.Array:
    """For each class the sum of all others: those before it and those after it."""
    axis = labels.ndim - 1

    def shifted(x, low, high):
        padding = [(0, 0, 0)] * axis + [(low, high, 0)]
        return lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)

    before = lax.associative_scan(LOG.plus, labels, axis=axis)
    after = lax.associative_scan(LOG.plus, labels, axis=axis, reverse=True)
    return LOG.plus(shifted(before, 1, -1), shifted(after, -1, 1))
