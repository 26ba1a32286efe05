"""Extended-range floats: floating-point numbers with an exponent of their own.

A value is ``mantissa * 2**exponent``: two arrays of one shape and one floating
dtype, the exponent holding whole numbers (Fukushima 2012, "Numerical computation
of spherical harmonics of arbitrary degree and order by extending exponent of
floating point numbers"). Sums of probabilities keep the full precision of the
mantissa however small they are; log-space loses precision as the logarithm grows,
and linear space underflows.

The exponents are whole numbers in a floating-point dtype: up to 2**24 (float32)
they are exact, beyond that they round as a logarithm would, and where an integer
would overflow they are ``-inf``, which is also the exponent of zero.

Differentiation treats exponents as constants. That is exact, not an approximation: the
value is linear in the mantissas. The cotangent of a mantissa near 1 is about as
large as a posterior, so it neither overflows nor vanishes where it matters.

Mantissas need not be normalised. A sum aligns its terms to the largest exponent, so a
mantissa grows by at most a factor of the number of terms: `normalise` is needed
only every few dozen operations.
"""

import contextlib
import contextvars
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_AT_ONCE = contextvars.ContextVar("derivatives at once", default=False)
LOG2_E = float(np.log2(np.e))
LN_2 = float(np.log(2.0))


class XFloat(NamedTuple):
    """An array of extended-range floats, ``mantissa * 2**exponent``; zero is ``(0, -inf)``."""

    mantissa: jax.Array
    exponent: jax.Array


class _Format(NamedTuple):
    """The bit layout of a binary floating-point format."""

    integer: type
    mantissa_bits: int
    bias: int
    # ln 2 = ln2_high + ln2_low with few bits in ln2_high, so that n * ln2_high is exact
    # for moderate n (Cody and Waite 1980).
    ln2_high: float
    ln2_low: float


_FORMATS = {
    np.dtype("float32"): _Format(np.int32, 23, 127, 0.693359375, -2.12194440e-4),
    np.dtype("float64"): _Format(
        np.int64, 52, 1023, 6.93147180369123816490e-1, 1.90821492927058770002e-10
    ),
}


def _half_to(n: jax.Array) -> jax.Array:
    """``2**-n`` for whole ``n >= 0``, built from bits; 0 where that is subnormal or n is NaN."""
    fmt = _FORMATS[n.dtype]
    # Adding 1.5 * 2**mantissa_bits leaves the whole number bias - n in the low bits of the sum;
    # the shift moves it to the exponent's place and drops the other bits. Nothing is left of
    # that constant alone, which is taken where n is too large or NaN.
    zero = n.dtype.type(1.5 * 2.0**fmt.mantissa_bits)
    number = (zero + n.dtype.type(fmt.bias)) - n
    number = choose(number > zero, number, zero)
    bits = lax.bitcast_convert_type(number, fmt.integer)
    return lax.bitcast_convert_type(bits << fmt.mantissa_bits, n.dtype)


def choose(mask: jax.Array, a, b) -> jax.Array:
    """`jnp.where` for an array and an array or a number, in the first array's dtype.

    `jnp.where` is a jitted function: each use is traced, linearised and transposed as one. A loss
    would use it about a hundred times, and take longer to compile.
    """
    dtype = next(x.dtype for x in (a, b) if isinstance(x, jax.Array))
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in (mask, a, b)))

    def case(x):
        return jnp.broadcast_to(x, shape) if jnp.ndim(x) else lax.full(shape, x, dtype)

    return lax.select(jnp.broadcast_to(mask, shape), case(a), case(b))


def zeros(shape, dtype) -> XFloat:
    """Zeros of the given shape."""
    return XFloat(jnp.zeros(shape, dtype), jnp.full(shape, -jnp.inf, dtype))


def from_log(x: jax.Array) -> XFloat:
    """``exp(x)``, with the mantissa in [0.7, 1.42]; NaN where x is NaN or ``+inf``."""
    constant = lax.stop_gradient(x) * x.dtype.type(LOG2_E)
    n = lax.round(constant, lax.RoundingMethod.TO_NEAREST_EVEN)
    return XFloat(_mantissa(x, n), n)


@jax.custom_jvp
def _mantissa(x: jax.Array, n: jax.Array) -> jax.Array:
    """``exp(x) / 2**n``, with the derivative of ``exp(x)``."""
    fmt = _FORMATS[x.dtype]
    remainder = (x - n * x.dtype.type(fmt.ln2_high)) - n * x.dtype.type(fmt.ln2_low)
    # Where the exponentials of neighbouring floats differ by more than a factor of two, the
    # remainder is noise. That of NaN and of +inf is NaN.
    fine = jnp.abs(n) < 2.0**fmt.mantissa_bits
    remainder = choose(fine, remainder, x - x)
    return jnp.exp(choose(x != -jnp.inf, remainder, -jnp.inf))


@_mantissa.defjvp
def _mantissa_jvp(primals, tangents):
    x, n = primals
    mantissa = _mantissa(x, n)
    return mantissa, mantissa * choose(x != -jnp.inf, tangents[0], 0)


def to_log(a: XFloat) -> jax.Array:
    """The natural logarithm; ``-inf`` with a zero gradient where the value is zero.

    A value whose exponent went below all numbers is zero too. NaN is passed on.
    """
    possible = (a.mantissa != 0) & ((a.exponent != -jnp.inf) | jnp.isnan(a.mantissa))
    mantissa = choose(possible, a.mantissa, 1)
    exponent = choose(possible, a.exponent, 0)
    log = jnp.log(mantissa) + exponent * a.mantissa.dtype.type(LN_2)
    return choose(possible, log, -jnp.inf)


def add(a: XFloat, b: XFloat) -> XFloat:
    """``a + b``; both are aligned to the larger exponent."""
    # If both are zero, the difference is NaN: the comparison is false and the scale
    # some finite number, so the sum is zero.
    difference = a.exponent - b.exponent
    first = difference > 0
    scale = _half_to(jnp.abs(difference))
    mantissa = _aligned_sum(a.mantissa, b.mantissa, first, scale)
    return XFloat(mantissa, choose(first, a.exponent, b.exponent))


@jax.custom_jvp
def _aligned_sum(a: jax.Array, b: jax.Array, first: jax.Array, scale: jax.Array) -> jax.Array:
    # Selecting is cheaper than two scales. In the derivative it is the reverse, if nothing is kept.
    return choose(first, a, b) + choose(first, b, a) * scale


@_aligned_sum.defjvp
def _aligned_sum_jvp(primals, tangents):
    first, scale = primals[2:]
    a, b = tangents[:2]
    if _AT_ONCE.get():
        tangent = a * choose(first, 1, scale) + b * choose(first, scale, 1)
    else:  # what is kept for the transpose is smaller
        tangent = choose(first, a, b) + choose(first, b, a) * scale
    return _aligned_sum(*primals), tangent


@contextlib.contextmanager
def derivatives_at_once():
    """Derivatives that are traced inside take fewer operations, but more memory if kept."""
    token = _AT_ONCE.set(True)
    try:
        yield
    finally:
        _AT_ONCE.reset(token)


def multiply(a: XFloat, b: XFloat) -> XFloat:
    """``a * b``."""
    return XFloat(a.mantissa * b.mantissa, a.exponent + b.exponent)


def scatter_sum(a: XFloat, index: tuple[jax.Array, ...], shape: tuple[int, ...]) -> XFloat:
    """An array of `shape` where ``a[i]`` is added at ``index[i]``; normalised."""
    exponent = lax.stop_gradient(a.exponent)
    top = jnp.full(shape, -jnp.inf, exponent.dtype)
    top = top.at[index].max(exponent, mode="promise_in_bounds")
    scale = _half_to(top.at[index].get(mode="promise_in_bounds") - exponent)
    total = jnp.zeros(shape, a.mantissa.dtype)
    total = total.at[index].add(a.mantissa * scale, mode="promise_in_bounds")
    return normalise(XFloat(total, top))


def normalise(a: XFloat) -> XFloat:
    """The same values with every nonzero mantissa in [1, 2)."""
    fmt = _FORMATS[a.mantissa.dtype]
    bits = lax.bitcast_convert_type(lax.stop_gradient(a.mantissa), fmt.integer)
    n = choose(a.mantissa > 0, (bits >> fmt.mantissa_bits) - fmt.bias, 0)
    scale = lax.bitcast_convert_type((fmt.bias - n) << fmt.mantissa_bits, a.mantissa.dtype)
    return XFloat(a.mantissa * scale, a.exponent + n.astype(a.exponent.dtype))
