"""Programs for many devices: support for `jax.shard_map` and for meshes with explicit axes.

Inside `jax.shard_map` the type of an array lists the mesh axes over which the array varies, that
is, differs between devices. What a loop carries must vary over the same axes before and after a
step, but its initial value is often a constant, which varies over none. `scan`, `while_loop` and
`cond` are those of `jax.lax`; before that they make all carried arrays vary over the same axes.

On a mesh with explicit axes the type of an array contains its sharding, and operations check it.
`jit` leaves shardings inside a function to the compiler, and shards the results like the batch.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Tree = Any  # a pytree of arrays


def jit(*, trailing: Sequence[int | None], static_argnums: int | tuple[int, ...] = ()) -> Callable:
    """`jax.jit` of a function whose first arguments, and all results, begin with the batch axes.

    Args:
      trailing: The number of axes after the batch axes in each of the first arguments (of a
        pytree, in its first array); None for an argument without batch axes. If empty,
        results have no batch axes.
      static_argnums: As in `jax.jit`.
    """

    def decorate(function):
        jitted = jax.jit(function, static_argnums=static_argnums)
        static = (static_argnums,) if isinstance(static_argnums, int) else static_argnums

        @functools.wraps(function)
        def call(*args):
            given = {i: x for i, x in enumerate(args) if i not in static}

            def with_static(given):
                return jitted(*(given.get(i, x) for i, x in enumerate(args)))

            if mesh := _explicit_mesh(given):
                spec = _batch_spec([(given[i], n) for i, n in enumerate(trailing)])
                given = jax.tree.map(jnp.asarray, given)
                return jax.sharding.auto_axes(
                    with_static, axes=mesh.explicit_axes, out_sharding=NamedSharding(mesh, spec)
                )(given)
            return with_static(alike(given))

        return call

    return decorate


def _explicit_mesh(arrays: Tree) -> jax.sharding.AbstractMesh | None:
    """The mesh with explicit axes that is set, or over which arrays are sharded."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        meshes = [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(arrays)]
        mesh = next((m for m in meshes if not m.empty), mesh)
    return mesh if AxisType.Explicit in mesh.axis_types else None


def _batch_spec(arguments: Iterable[tuple[Any, int | None]]) -> PartitionSpec:
    """The sharding of the batch axes: of each, that of the first argument that has one.

    An argument that is broadcast lacks the first axes.
    """
    found: list[Any] = []  # from the last axis
    for x, trailing in arguments:
        if trailing is not None and x is not None:
            kind = jax.typeof(jax.tree.leaves(x)[0])
            for i, name in enumerate(reversed(kind.sharding.spec[: kind.ndim - trailing])):
                found += [None] * (i + 1 - len(found))
                found[i] = found[i] or (name if name not in found else None)
    return PartitionSpec(*reversed(found))


def alike(arrays: Tree) -> Tree:
    """Arrays that all vary over the axes over which any of them varies.

    The derivative with respect to an array that does not vary is a sum over the devices. A caller
    expects this sum, but a function that differentiates inside must not use it.
    """
    if not _is_manual():
        return arrays
    leaves = jax.tree.leaves(arrays)
    return _vary(arrays, _union(map(jax.typeof, leaves)))


def scan(
    f: Callable, init: Tree, xs: Tree, *, reverse: bool = False, unroll: int = 1
) -> tuple[Tree, Tree]:
    """`jax.lax.scan`."""

    def first(carry):
        return f(carry, jax.tree.map(lambda x: jnp.zeros_like(x, shape=x.shape[1:]), xs))[0]

    axes = _carried_axes(first, init)

    def step(carry, x):
        carry, y = f(carry, x)
        return _vary(carry, axes), y

    return lax.scan(step, _vary(init, axes), xs, reverse=reverse, unroll=unroll)


def while_loop(condition: Callable, body: Callable, init: Tree) -> Tree:
    """`jax.lax.while_loop`."""
    axes = _carried_axes(body, init)
    return lax.while_loop(condition, lambda carry: _vary(body(carry), axes), _vary(init, axes))


def cond(condition: jax.Array, yes: Callable, no: Callable, *operands: Tree) -> Tree:
    """`jax.lax.cond`."""
    axes = _carried_axes(yes, *operands) | _carried_axes(no, *operands)
    branches = ((lambda *xs, f=f: _vary(f(*xs), axes)) for f in (yes, no))
    return lax.cond(condition, *branches, *operands)


def _carried_axes(step: Callable, *init: Tree) -> frozenset[str]:
    """The axes over which any input or output of a step varies.

    A step may make each array depend on all others, so all get the same axes.
    """
    if not _is_manual():
        return frozenset()
    given = map(jax.typeof, jax.tree.leaves(init))
    return _union([*given, *jax.make_jaxpr(step)(*init).out_avals])


def _is_manual() -> bool:
    return AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def _vary(arrays: Tree, axes: frozenset[str]) -> Tree:
    def vary(x):
        missing = tuple(sorted(axes - _varying(jax.typeof(x))))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, arrays) if axes else arrays


def _union(kinds: Iterable[jax.core.ShapedArray]) -> frozenset[str]:
    return frozenset().union(*map(_varying, kinds))


def _varying(kind: jax.core.ShapedArray) -> frozenset[str]:
    """The mesh axes over which an array of this type varies."""
    if hasattr(kind, "manual_axis_type"):
        return frozenset(kind.manual_axis_type.varying)
    return frozenset(getattr(kind, "vma", ()))  # before jax 0.10
