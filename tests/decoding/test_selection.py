"""The best of many, found by counting, against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxctc.decoding import selection


@pytest.mark.parametrize("width", [1, 5, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counting_finds_the_best(width, dtype):
    rng = np.random.default_rng(width)
    rank = rng.normal(size=(6, 9 * width + 3)).astype(dtype)
    rank[1] = np.round(rank[1], 1)  # ties
    rank[2] = -np.inf
    rank[3, width // 2 + 1 :] = -np.inf  # fewer than are asked for
    rank[4, 1] = np.nan
    with jax.enable_x64(dtype == np.float64):
        value, place = jax.jit(lambda x: selection.by_counting(x, width))(jnp.asarray(rank))
        value, place = np.asarray(value), np.asarray(place)
    clean = np.where(np.isnan(rank), -np.inf, rank)
    for b in range(6):
        order = np.argsort(-clean[b], kind="stable")[:width]
        exists = clean[b, order] > -np.inf
        got = place[b][value[b] > -np.inf]
        assert sorted(got.tolist()) == sorted(order[exists].tolist())
        np.testing.assert_array_equal(value[b][value[b] > -np.inf], rank[b, got])


@pytest.mark.parametrize(
    ("size", "count"), [(4000, 8), (1003, 5), (20, 3), (9, 8), (3, 3), (40, 1)]
)
def test_few_of_many_are_those_of_sorting(size, count):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(5, size)).astype(np.float32)
    x[1] = np.round(x[1], 1)  # ties
    x[2] = -np.inf
    x[3, count // 2 :] = -np.inf
    want = jax.lax.top_k(x, count)
    found = jax.jit(jax.vmap(lambda x: selection.few_of_many(x, count)))(x)
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_array_equal(got, expected)
