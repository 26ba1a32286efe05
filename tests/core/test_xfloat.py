"""Extended-range floats against exact numbers, at the edges of their range, with derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxctc.core import xfloat
from jaxctc.core.kernels import tpu

ZERO = (0.0, -np.inf)


def exact(a):
    """The values, in a float64 that must have room for them."""
    with np.errstate(invalid="ignore"):
        value = np.asarray(a.mantissa, float) * 2.0 ** np.asarray(a.exponent, float)
    return value


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_aligned(x64, dtype):
    """Exponents that differ by nothing, a little, more than a mantissa holds, and infinitely."""
    numbers = [ZERO, (1.5, 0), (1.25, -3), (1.0, -30), (1.75, -126), (1.5, -127), (1.0, -300)]
    a, b = np.array([(x, y) for x in numbers for y in numbers], dtype).transpose(1, 2, 0)
    a, b = xfloat.XFloat(*map(jnp.asarray, a)), xfloat.XFloat(*map(jnp.asarray, b))
    got = jax.jit(xfloat.add)(a, b)
    assert got.mantissa.dtype == dtype
    tolerance = 2 * np.finfo(dtype).eps
    np.testing.assert_allclose(exact(got), exact(a) + exact(b), rtol=tolerance)
    # Of the sum as a value, in units of its exponent.
    first, second = jax.jit(jax.grad(lambda *m: _mantissas(m, a, b).sum(), (0, 1)))(
        a.mantissa, b.mantissa
    )
    top = np.maximum(a.exponent, b.exponent)
    with np.errstate(invalid="ignore"):
        for found, x in ((first, a), (second, b)):
            want = np.where(np.isfinite(top), 2.0 ** (np.asarray(x.exponent) - top), 0)
            want[want < np.finfo(dtype).tiny] = 0
            finite = np.isfinite(top)  # two zeros have any
            np.testing.assert_array_equal(np.asarray(found)[finite], want[finite])


def _mantissas(mantissas, a, b):
    first, second = mantissas
    return xfloat.add(a._replace(mantissa=first), b._replace(mantissa=second)).mantissa


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FFFFFFF])
def test_two_zeros_are_zero_whatever_the_bits_of_nan(bits):
    nan = jnp.asarray(np.array([bits], np.uint32).view(np.float32))
    assert jax.jit(xfloat._half_to)(nan) == 0


def test_exponentials():
    x = jnp.array([0, -0.3, 5, -87, -1e4, -3e6, -1e9, -2e38, 80, 1e6, -np.inf], jnp.float32)
    got = jax.jit(xfloat.from_log)(x)
    log = np.log2(np.asarray(got.mantissa, float)[:-1]) + np.asarray(got.exponent, float)[:-1]
    want = np.asarray(x, float)[:-1] / np.log(2)
    np.testing.assert_allclose(log, want, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(got.exponent[:-1], np.round(got.exponent[:-1]))
    assert np.all((got.mantissa[:-1] > 0.7) & (got.mantissa[:-1] < 1.42))
    assert got.mantissa[-1] == 0
    assert got.exponent[-1] == -np.inf
    bad = jax.jit(xfloat.from_log)(jnp.array([np.nan, np.inf]))
    assert np.all(np.isnan(bad.mantissa))


def test_every_derivative_of_an_exponential_is_itself():
    def mantissa(x):
        return xfloat.from_log(x).mantissa

    first = jax.grad(mantissa)
    points = jnp.array([0.2, -3.0, -1e4, -jnp.inf])
    want = jax.vmap(mantissa)(points)
    for derivative in (first, jax.jacfwd(mantissa), jax.grad(first), jax.jacfwd(first)):
        np.testing.assert_array_equal(jax.vmap(derivative)(points), want)


def test_tpu_kernels_round_as_everywhere():
    borders = 2.0 ** np.arange(0, 24)[:, None] + np.array([-1, -0.5, 0, 0.5, 1])
    x = np.concatenate([borders.ravel(), np.linspace(-3, 3, 121), [np.inf]]).astype(np.float32)
    x = np.concatenate([x, -x])
    even = jax.lax.RoundingMethod.TO_NEAREST_EVEN
    got = np.asarray(tpu._round(jnp.asarray(x), even))
    small = np.abs(x) <= 2.0**23
    np.testing.assert_array_equal(got[small], np.round(x[small]))
    large = jnp.asarray([1e9, -1e9, 3e38, np.inf, 2.0**23 + 1, -(2.0**24) - 2], jnp.float32)
    got = np.asarray(tpu._round(large, even))
    np.testing.assert_array_equal(got, np.round(got))
    np.testing.assert_allclose(got, large, rtol=2.0**-23)
    assert np.isnan(tpu._round(jnp.float32(np.nan), even))
