"""Functions called in a loop: the gradients of their parameters are summed in place, in float32.

If a loop calls a function once per chunk, the gradient of a parameter is a sum over the chunks.
JAX alone would compute each chunk's share of it as an array of the parameter's size before adding
it, and would add half precision in half precision. Here the tangents of parameters come from
*accumulators*: zeros in float32 whose tangents are those of the parameters. If a parameter is a
matrix by which arrays are multiplied, the loop carries its accumulator, and each product adds its
share of the gradient to it, a block of rows at a time (`jaxctc.core.shares`).

The values of the function do not change, only how its gradient is computed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxctc.core import meshes
from jaxctc.core.emissions import wide, widen
from jaxctc.core.shares import Product, multiply


class Accumulated(NamedTuple):
    """A function, and what a loop passes from each call to the next."""

    start: dict[int, jax.Array]  # the accumulators of matrices
    call: Callable[[dict[int, jax.Array], jax.Array], tuple[dict[int, jax.Array], jax.Array]]


def accumulated(function: Callable[[jax.Array], jax.Array], example: jax.Array) -> Accumulated:
    """For a pure `function` of an array like `example`; its parameters are what it closes over."""
    closed = jax.make_jaxpr(function)(example)
    totals, values, views = {}, {}, {}
    for i, (variable, x) in enumerate(zip(closed.jaxpr.constvars, closed.consts, strict=True)):
        values[i] = x
        if jnp.issubdtype(variable.aval.dtype, jnp.floating):
            totals[i], values[i] = _accumulator(x), lax.stop_gradient(x)
            views[variable] = _View(i, False)
    # The gradient of what all devices share is summed over them once, after the loop.
    start = {i: meshes.alike((totals[i], example))[0] for i in _in_products(closed.jaxpr, views)}

    def call(running, x):
        running = dict(running)
        parameters = [_attach(v, totals[i]) if i in totals else v for i, v in values.items()]
        (result,) = _evaluate(closed.jaxpr, views, running, parameters, [x])
        return running, result

    return Accumulated(start, call)


@jax.custom_jvp
def _accumulator(parameter: jax.Array) -> jax.Array:
    """Zeros, whose tangent is that of the parameter."""
    return jnp.zeros_like(parameter, dtype=wide(parameter.dtype))


@_accumulator.defjvp
def _accumulator_jvp(primals, tangents):
    return _accumulator(*primals), widen(tangents[0])


@jax.custom_jvp
def _attach(value: jax.Array, total: jax.Array) -> jax.Array:
    """The value, with the tangent of its accumulator."""
    return value


@_attach.defjvp
def _attach_jvp(primals, tangents):
    return _attach(*primals), tangents[1].astype(primals[0].dtype)


class _View(NamedTuple):
    """A variable that holds a parameter, perhaps in another dtype, or transposed."""

    index: int
    transposed: bool


_Views = dict[core.Var, _View]


def _views_of(atoms: Any, views: _Views) -> list[_View | None]:
    return [None if isinstance(x, core.Literal) else views.get(x) for x in atoms]


def _result_view(eqn: core.JaxprEqn, views: _Views) -> _View | None:
    """What the result of an equation is a view of."""
    name, given = eqn.primitive.name, _views_of(eqn.invars, views)
    if len(given) != 1 or given[0] is None:
        return None
    if name == "transpose" and tuple(eqn.params["permutation"]) == (1, 0):
        return given[0]._replace(transposed=not given[0].transposed)
    same = name == "convert_element_type" and jnp.issubdtype(eqn.params["new_dtype"], jnp.floating)
    # `pvary` makes the matrix vary over the same mesh axes as the array it is multiplied with.
    return given[0] if same or name == "pvary" else None


def _product_view(eqn: core.JaxprEqn, views: _Views) -> _View | None:
    """The view of a matrix by which an equation multiplies the last axis of an array."""
    if eqn.primitive.name != "dot_general" or eqn.params.get("out_sharding") is not None:
        return None
    left, right = _views_of(eqn.invars, views)
    ((ours, _), batch) = eqn.params["dimension_numbers"]
    x, matrix = (atom.aval for atom in eqn.invars)
    assert isinstance(x, jax.core.ShapedArray)
    assert isinstance(matrix, jax.core.ShapedArray)
    plain = matrix.ndim == 2 and tuple(ours) == (x.ndim - 1,) and not any(batch)
    return right if plain and left is None else None


def _inner(eqn: core.JaxprEqn, views: _Views) -> tuple[core.ClosedJaxpr, _Views] | None:
    """The program of a call of a jitted function, and the views among its arguments."""
    if eqn.primitive.name not in ("jit", "pjit"):
        return None
    program = eqn.params["jaxpr"]
    given = zip(program.jaxpr.invars, _views_of(eqn.invars, views), strict=True)
    return program, {variable: view for variable, view in given if view is not None}


def _in_products(jaxpr: core.Jaxpr, views: _Views) -> list[int]:
    """Which parameters are matrices that arrays are multiplied by."""
    views, found = dict(views), set()
    for eqn in jaxpr.eqns:
        if view := _result_view(eqn, views):
            views[eqn.outvars[0]] = view
        elif view := _product_view(eqn, views):
            found.add(view.index)
        elif inner := _inner(eqn, views):
            found.update(_in_products(inner[0].jaxpr, inner[1]))
    return sorted(found)


def _evaluate(jaxpr: core.Jaxpr, views: _Views, running, constants, arguments) -> list:
    """The results of a program; its products with parameters update `running`."""
    views = dict(views)
    variables = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(variables, [*constants, *arguments], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        given = [read(x) for x in eqn.invars]
        if view := _result_view(eqn, views):
            views[eqn.outvars[0]] = view
        if view := _product_view(eqn, views):
            product = Product.of(eqn, view.transposed)
            running[view.index], result = multiply(product, running[view.index], *given)
            results = [result]
        elif inner := _inner(eqn, views):
            program, below = inner
            results = _evaluate(program.jaxpr, below, running, program.consts, given)
        else:
            results = _results(jaxpr, eqn, given)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _results(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, given: list) -> list:
    """The results of one equation of a program."""
    arguments = {x: v for x, v in zip(eqn.invars, given, strict=True) if isinstance(x, core.Var)}
    alone = jaxpr.replace(
        constvars=[],
        invars=[*arguments],
        outvars=eqn.outvars,
        eqns=[eqn],
        effects=eqn.effects,
        debug_info=jaxpr.debug_info._replace(
            arg_names=("",) * len(arguments), result_paths=("",) * len(eqn.outvars)
        ),
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*arguments.values())
