"""Semirings: what the sum over paths and the product along a path are.

| semiring      | a weight is            | plus      | times | total over all paths         |
|---------------|------------------------|-----------|-------|------------------------------|
| `Probability` | `xfloat.XFloat`        | a + b     | a * b | probability, exact gradients |
| `Log`         | array of log-weights   | logaddexp | a + b | log-probability              |
| `MaxTropical` | array of log-weights   | max       | a + b | score of the best path       |

A weight is a pytree of arrays of one shape, so code that only moves weights
(slices, shifts, selections) is a `jax.tree.map` and needs no semiring. The gradient of
`to_log(total)` with respect to the log-scores of the arcs is, in `Probability` and `Log`,
the posterior of each arc; in `MaxTropical` it is 1 on the arcs of the best path and 0 elsewhere.

Ties: `MaxTropical.plus(a, b)` prefers ``a``. A topology adds its arcs in the
order of preference, so the best path is unique.
"""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import xfloat
from jaxctc.core.xfloat import choose

# How many steps a recursion may take before it calls `rescale`.
# In `Probability`, a step multiplies a mantissa by at most the number of terms in a sum times the
# largest mantissa of a score: 3 * 1.42 for CTC, and 4.3**48 = 2**101 fits into float32.
MAX_CHUNK = 48

Weight = Any  # a pytree of arrays of one shape
State = tuple[Weight, ...]  # what a recursion carries from frame to frame


class Semiring(Protocol):
    """What `jaxctc.core.recursion` and the topologies need of a semiring."""

    def zeros(self, shape, dtype) -> Weight:
        """Zeros, the neutral element of `plus`."""
        ...

    def ones(self, shape, dtype) -> Weight:
        """Ones, the neutral element of `times`."""
        ...

    def from_log(self, x: jax.Array) -> Weight:
        """Weights from log-weights; ``-inf`` is zero."""
        ...

    def pull_from_log(self, a: Weight, cotangent: jax.Array) -> jax.Array:
        """That of log-weights, from the cotangent of their weights' first array."""
        ...

    def to_log(self, a: Weight) -> jax.Array:
        """Log-weights; where the weight is zero, so is the gradient."""
        ...

    def plus(self, a: Weight, b: Weight) -> Weight:
        """The sum of two weights; a tie goes to the first."""
        ...

    def times(self, a: Weight, b: Weight) -> Weight:
        """The product of two weights."""
        ...

    def scatter_sum(
        self, a: Weight, index: tuple[jax.Array, ...], shape: tuple[int, ...]
    ) -> Weight:
        """Weights of `shape`, in range, where ``a[i]`` is added at ``index[i]``.

        A tie goes to the first along axis 0. Indices must be in range.
        """
        ...

    def normalise(self, a: Weight) -> Weight:
        """The same weight, in range: for a step that multiplies a weight several times."""
        ...

    def rescale(self, state: State, axis: int) -> tuple[State, Weight]:
        """The state with its weights in range, and the scale, one along `axis`, divided out.

        Called every few dozen steps of a recursion.
        """
        ...


class Probability:
    """Sums of probabilities as extended-range floats: exact in float32 at any length."""

    def zeros(self, shape, dtype) -> xfloat.XFloat:
        return xfloat.zeros(shape, dtype)

    def ones(self, shape, dtype) -> xfloat.XFloat:
        return xfloat.XFloat(jnp.ones(shape, dtype), jnp.zeros(shape, dtype))

    def from_log(self, x: jax.Array) -> xfloat.XFloat:
        return xfloat.from_log(x)

    def pull_from_log(self, a: xfloat.XFloat, cotangent: jax.Array) -> jax.Array:
        return choose(a.mantissa != 0, a.mantissa * cotangent, 0)

    def to_log(self, a: xfloat.XFloat) -> jax.Array:
        return xfloat.to_log(a)

    def plus(self, a: xfloat.XFloat, b: xfloat.XFloat) -> xfloat.XFloat:
        return xfloat.add(a, b)

    def times(self, a: xfloat.XFloat, b: xfloat.XFloat) -> xfloat.XFloat:
        return xfloat.multiply(a, b)

    def scatter_sum(self, a: xfloat.XFloat, index, shape) -> xfloat.XFloat:
        return xfloat.scatter_sum(a, index, shape)

    def normalise(self, a: xfloat.XFloat) -> xfloat.XFloat:
        return xfloat.normalise(a)

    def rescale(self, state: State, axis: int) -> tuple[State, xfloat.XFloat]:
        # The largest exponent is subtracted from all, so that they stay exact however improbable
        # the input is: float32 holds whole numbers up to 2**24 only.
        base = _finite_max([a.exponent for a in state], axis)
        scale = xfloat.XFloat(jnp.ones_like(base), base)
        state = tuple(xfloat.normalise(xfloat.XFloat(m, e - base)) for m, e in state)
        return state, scale


class _LogWeights:
    """What `Log` and `MaxTropical` share: their weights are logarithms."""

    def zeros(self, shape, dtype) -> jax.Array:
        return jnp.full(shape, -jnp.inf, dtype)

    def ones(self, shape, dtype) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def from_log(self, x: jax.Array) -> jax.Array:
        return x

    def pull_from_log(self, a: jax.Array, cotangent: jax.Array) -> jax.Array:
        return cotangent

    def to_log(self, a: jax.Array) -> jax.Array:
        return choose(a != -jnp.inf, a, -jnp.inf)  # no gradient where there is no path

    def times(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def normalise(self, a: jax.Array) -> jax.Array:
        return a


class Log(_LogWeights):
    """Sums of probabilities as logarithms. Gradients lose precision as sequences grow."""

    def plus(self, a: jax.Array, b: jax.Array) -> jax.Array:
        # jnp.logaddexp has NaN derivatives where both are -inf.
        both_zero = jnp.maximum(a, b) == -jnp.inf
        total = jnp.logaddexp(choose(both_zero, 0, a), choose(both_zero, 0, b))
        return choose(both_zero, -jnp.inf, total)

    def scatter_sum(self, a: jax.Array, index, shape) -> jax.Array:
        top = _scatter_max(a, index, shape)
        top = choose(top > -jnp.inf, top, 0)
        terms = jnp.exp(a - take(top, index))
        total = jnp.zeros(shape, a.dtype).at[index].add(terms, mode="promise_in_bounds")
        positive = total > 0
        return choose(positive, jnp.log(choose(positive, total, 1)) + top, -jnp.inf)

    def rescale(self, state: State, axis: int) -> tuple[State, jax.Array]:
        scale = _finite_max([lax.stop_gradient(a) for a in state], axis)
        return tuple(a - scale for a in state), scale


class MaxTropical(_LogWeights):
    """Score of the best path; its gradient is the path. Ties go to the first term of `plus`."""

    def plus(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return choose((a >= b) | (a != a), a, b)  # NaN is passed on

    def scatter_sum(self, a: jax.Array, index, shape) -> jax.Array:
        best = a == take(_scatter_max(a, index, shape), index)
        place = lax.broadcasted_iota(jnp.int32, a.shape, 0)
        nowhere = jnp.full(shape, a.shape[0], jnp.int32)
        first = nowhere.at[index].min(choose(best, place, a.shape[0]), mode="promise_in_bounds")
        chosen = choose(place == take(first, index), a, 0)
        total = jnp.zeros(shape, a.dtype).at[index].add(chosen, mode="promise_in_bounds")
        return choose(first < nowhere, total, -jnp.inf)

    def rescale(self, state: State, axis: int) -> tuple[State, jax.Array]:
        # Not rescaled: that would round, and rounding creates or breaks ties.
        return state, jnp.zeros_like(lax.slice_in_dim(state[0], 0, 1, axis=axis))


PROBABILITY = Probability()
LOG = Log()
MAX_TROPICAL = MaxTropical()


def _finite_max(arrays: list[jax.Array], axis: int) -> jax.Array:
    """The maximum of all arrays along `axis`, kept with size 1; 0 where all are ``-inf``."""
    top = jnp.max(functools.reduce(jnp.maximum, arrays), axis=axis, keepdims=True)
    return choose(top > -jnp.inf, top, 0)


def _scatter_max(a: jax.Array, index, shape) -> jax.Array:
    """For each place of `shape` the maximum of ``a[i]`` over its ``index[i]``; no gradient."""
    lowest = jnp.full(shape, -jnp.inf, a.dtype)
    return lowest.at[index].max(lax.stop_gradient(a), mode="promise_in_bounds")


def take(a: Weight, index: tuple[jax.Array, ...]) -> Weight:
    """``a[index]`` on weights; indices must be in range."""
    return jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), a)


def select(a: Weight, index: jax.Array, axis: int) -> Weight:
    """Each sequence's weight at its place `index` along `axis`: ``[B]`` from two axes.

    A masked sum, not a gather, so that the transpose needs no scatter.
    """
    place = lax.broadcasted_iota(jnp.int32, jax.tree.leaves(a)[0].shape, axis)
    chosen = place == jnp.expand_dims(index, axis)
    return jax.tree.map(lambda x: jnp.sum(choose(chosen, x, 0), axis), a)


def where(mask: jax.Array, a: Weight, b: Weight) -> Weight:
    """`jnp.where` on weights."""
    return jax.tree.map(functools.partial(choose, mask), a, b)


def first_state(
    semiring: Semiring, entries: tuple[bool, ...], shape: tuple[int, ...], axis: int, dtype
) -> tuple[State, Weight]:
    """A state of weights of one `shape`, and a scale of one.

    A weight with an entry is one at the first place along `axis`; everything else is zero.
    """
    first = lax.broadcasted_iota(jnp.int32, shape, axis) == 0
    zeros = semiring.zeros(shape, dtype)
    entered = where(first, semiring.ones(shape, dtype), zeros)
    state = tuple(entered if entry else zeros for entry in entries)
    return state, semiring.ones((*shape[:axis], 1, *shape[axis + 1 :]), dtype)


def shift(semiring: Semiring, a: Weight, axis: int) -> Weight:
    """Moves weights up by one place along `axis`: the first becomes zero, the last is dropped."""
    leaf = jax.tree.leaves(a)[0]
    padding = [(0, 0, 0)] * leaf.ndim
    padding[axis] = (1, -1, 0)
    zero = semiring.zeros((), leaf.dtype)
    return jax.tree.map(lambda x, fill: lax.pad(x, fill, padding), a, zero)
