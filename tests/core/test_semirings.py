"""Sums of a semiring against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.core import semirings
from jaxctc.core.semirings import LOG, MAX_TROPICAL, PROBABILITY


def test_scattered_sums_of_nothing_and_of_large_degree():
    terms = np.full((4096, 1), np.log(1.9), np.float32)
    index = (jnp.zeros(4096, jnp.int32),)
    for semiring, want in ((PROBABILITY, np.log(1.9 * 4096)), (LOG, np.log(1.9 * 4096))):
        weights = semiring.from_log(jnp.asarray(terms))
        total = semiring.to_log(semiring.scatter_sum(weights, index, (2, 1)))
        np.testing.assert_allclose(total[:, 0], [want, -np.inf], rtol=1e-5)
    best, pullback = jax.vjp(
        lambda x: MAX_TROPICAL.scatter_sum(x, index, (2, 1)), jnp.asarray(terms)
    )
    np.testing.assert_allclose(best[:, 0], [np.log(1.9), -np.inf], rtol=1e-6)
    (gradient,) = pullback(jnp.ones_like(best))
    np.testing.assert_array_equal(np.flatnonzero(gradient), [0])  # the first of equals
    assert semirings.take(best, (jnp.array([1]),))[0, 0] == -np.inf
