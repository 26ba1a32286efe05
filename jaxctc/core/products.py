"""A function in a loop whose parameters' gradients are added up in one place, in float32.

A function called once a chunk has as its gradient a sum over the chunks. Left to differentiation,
each chunk's share of a large parameter's gradient is an array of the parameter's size before it
is added, and shares of half precision are added in half precision. Here tangents of parameters
come from *accumulators*, zeros in float32 whose tangents are those of the parameters, and
products of matrices with a parameter add their share to the accumulator block by block.

Only the tangents are rearranged, by linear functions, so that all of JAX's transformations apply.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend import core

from jaxctc.core.emissions import wide, widen

# A share of a gradient is computed so many numbers at a time.
BLOCK = 2**23


class Accumulated(NamedTuple):
    """A function, and what a loop hands from each of its calls to the next."""

    start: dict[int, jax.Array]  # the accumulators of parameters in products
    call: Callable[..., tuple[dict[int, jax.Array], Any]]  # of accumulators and an array


def accumulated(function: Callable[[jax.Array], jax.Array], example: jax.Array) -> Accumulated:
    """`function`, pure, of an array like `example`, with what it closes over as parameters."""
    closed = jax.make_jaxpr(function)(example)
    kinds = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in closed.consts]
    totals = [_accumulator(x) if kind else None for x, kind in zip(closed.consts, kinds)]
    values = [lax.stop_gradient(x) if kind else x for x, kind in zip(closed.consts, kinds)]
    matrices = {
        var: _View(i, False)
        for i, (var, kind) in enumerate(zip(closed.jaxpr.constvars, kinds))
        if kind and var.aval.ndim == 2
    }
    used = _in_products(closed.jaxpr, matrices)

    def call(running: dict[int, jax.Array], x: jax.Array):
        constants = [
            value if total is None else _attach(value, total)
            for value, total in zip(values, totals)
        ]
        running = dict(running)
        (result,) = _evaluate(closed.jaxpr, matrices, running, constants, [x])
        return running, result

    return Accumulated({i: totals[i] for i in sorted(used)}, call)


class _View(NamedTuple):
    """A variable that holds a parameter, maybe in another dtype."""

    index: int
    transposed: bool


def _view_of(eqn: core.JaxprEqn, views: dict) -> _View | None:
    """What the result of an equation is a view of."""
    first = eqn.invars[0] if eqn.invars else None
    if isinstance(first, core.Literal) or first not in views:
        return None
    view = views[first]
    if eqn.primitive.name == "convert_element_type":
        is_float = jnp.issubdtype(eqn.params["new_dtype"], jnp.floating)
        return view if is_float else None
    if eqn.primitive.name == "transpose" and tuple(eqn.params["permutation"]) == (1, 0):
        return view._replace(transposed=not view.transposed)
    return None


def _product_of(eqn: core.JaxprEqn, views: dict) -> _View | None:
    """The parameter by which an equation multiplies the last axis of an array."""
    if eqn.primitive.name != "dot_general":
        return None
    left, right = eqn.invars
    if isinstance(right, core.Literal) or right not in views:
        return None
    if not isinstance(left, core.Literal) and left in views:
        return None
    (ours, theirs), batch = eqn.params["dimension_numbers"]
    if tuple(map(tuple, batch)) != ((), ()) or tuple(ours) != (left.aval.ndim - 1,):
        return None
    view = views[right]
    return view._replace(transposed=view.transposed != (tuple(theirs) == (1,)))


def _inner(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """The program of a call of a jitted function."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def _passed_on(eqn: core.JaxprEqn, inner: core.ClosedJaxpr, views: dict) -> dict:
    """The views that a jitted function is called with."""
    return {
        variable: views[outer]
        for variable, outer in zip(inner.jaxpr.invars, eqn.invars)
        if not isinstance(outer, core.Literal) and outer in views
    }


def _in_products(jaxpr: core.Jaxpr, views: dict) -> set[int]:
    """Which parameters stand in products."""
    views, found = dict(views), set()
    for eqn in jaxpr.eqns:
        if view := _view_of(eqn, views):
            views[eqn.outvars[0]] = view
        elif view := _product_of(eqn, views):
            found.add(view.index)
        elif inner := _inner(eqn):
            found |= _in_products(inner.jaxpr, _passed_on(eqn, inner, views))
    return found


def _evaluate(jaxpr, views, running, constants, arguments) -> list:
    """The results of a program; its products with parameters change `running`."""
    views = dict(views)
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments]))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        if view := _view_of(eqn, views):
            views[eqn.outvars[0]] = view
        if view := _product_of(eqn, views):
            product = _Product(eqn, views[eqn.invars[1]].transposed)
            total, result = _multiply(product, running[view.index], *map(read, eqn.invars))
            running[view.index], results = total, [result]
        elif inner := _inner(eqn):
            below = _passed_on(eqn, inner, views)
            given = [read(x) for x in eqn.invars]
            results = _evaluate(inner.jaxpr, below, running, inner.consts, given)
        else:
            variables = list(dict.fromkeys(x for x in eqn.invars if isinstance(x, core.Var)))
            alone = core.Jaxpr([], variables, eqn.outvars, [eqn], eqn.effects)
            results = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*map(read, variables))
        values.update(zip(eqn.outvars, results))
    return [read(x) for x in jaxpr.outvars]


@jax.custom_jvp
def _accumulator(parameter: jax.Array) -> jax.Array:
    """Zeros, whose tangent is that of the parameter."""
    return jnp.zeros(parameter.shape, wide(parameter.dtype))


@_accumulator.defjvp
def _accumulator_jvp(primals, tangents):
    return _accumulator(*primals), widen(tangents[0])


@jax.custom_jvp
def _attach(value: jax.Array, total: jax.Array) -> jax.Array:
    """The value, whose tangent is that of the accumulator."""
    return value


@_attach.defjvp
def _attach_jvp(primals, tangents):
    value, total = primals
    return _attach(value, total), tangents[1].astype(value.dtype)


class _Product(NamedTuple):
    """An equation that multiplies the last axis of an array by a view of a parameter."""

    eqn: core.JaxprEqn
    transposed: bool  # the view, with respect to the parameter

    def __call__(self, x: jax.Array, matrix: jax.Array) -> jax.Array:
        return self.eqn.primitive.bind(x, matrix, **self.eqn.params)

    def of_total(self, x: jax.Array, total: jax.Array) -> jax.Array:
        """The same with an array like the parameter, or like some of its rows."""
        total = total.astype(self.eqn.invars[1].aval.dtype)
        return self(x, total.T if self.transposed else total)

    @property
    def rows_are_classes(self) -> bool:
        """Are rows of the parameter columns of the result? Else they belong to those of `x`."""
        ((_, (axis,)), _) = self.eqn.params["dimension_numbers"]
        return self.transposed != (axis == 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _multiply(product: _Product, total: jax.Array, x: jax.Array, matrix: jax.Array):
    """The accumulator as it is, and the product, to whose tangent it contributes."""
    return total, product(x, matrix)


@functools.partial(_multiply.defjvp, symbolic_zeros=True)
def _multiply_jvp(product, primals, tangents):
    total, x, matrix = primals
    total_dot, x_dot, _ = tangents  # that of the matrix is in the accumulator
    results = _multiply(product, total, x, matrix)
    if type(x_dot) is SymbolicZero and type(total_dot) is SymbolicZero:
        return results, (total_dot, jnp.zeros_like(results[1]))
    if type(total_dot) is SymbolicZero:
        return results, (total_dot, product(x_dot, matrix))
    if type(x_dot) is SymbolicZero:
        return results, (total_dot, product.of_total(x, total_dot))
    return results, _contribute(product, x, total_dot, product(x_dot, matrix))


def _contribute(product: _Product, x: jax.Array, total: jax.Array, y: jax.Array):
    """``(total, y + x @ total)``, whose transpose is ``(total + x^T y, y)``, in place.

    As the solution of a linear system, since that is the linear function whose transpose may be
    given by all that JAX does: forward mode, batches, and derivatives of it.
    """

    def matvec(pair):
        total, y = pair
        return total, y - product.of_total(x, total)

    def solve(_, pair):
        total, y = pair
        return total, y + product.of_total(x, total)

    def transpose_solve(_, pair):
        total, y = pair
        return _add_share(product, total, x, y), y

    return lax.custom_linear_solve(matvec, (total, y), solve, transpose_solve)


def _add_share(product: _Product, total: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """The accumulator with the gradient of one product, whose result has the gradient `y`."""
    rows = len(total)
    blocks = next(n for n in range(1, rows + 1) if rows % n == 0 and total.size <= n * BLOCK)

    def at_once(total, x, y):
        (share,) = jax.linear_transpose(lambda t: product.of_total(x, t), total)(y)
        return total + share

    def by_blocks(total, x, y):
        size = rows // blocks

        def add(i, total):
            at = functools.partial(lax.dynamic_slice_in_dim, start_index=i * size, slice_size=size)
            parts = (x, at(y, axis=-1)) if product.rows_are_classes else (at(x, axis=-1), y)
            return lax.dynamic_update_slice_in_dim(
                total, at_once(at(total), *parts), i * size, axis=0
            )

        return lax.fori_loop(0, blocks, add, total)

    if blocks == 1:
        return at_once(total, x, y)
    # Elsewhere the product itself adds to what there is.
    return lax.platform_dependent(total, x, y, cpu=by_blocks, default=at_once)
