"""Programs for many devices: support for `jax.shard_map` and for meshes with explicit axes.

Inside `jax.shard_map` the type of an array lists the mesh axes over which the array varies, that
is, differs between devices. What a loop carries must vary over the same axes before and after a
step, but its initial value is often a constant, which varies over none. `scan`, `while_loop` and
`cond` are those of `jax.lax`; before that they make all carried arrays vary over the same axes.

On a mesh with explicit axes the type of an array contains its sharding, and operations check it.
`jit` leaves shardings inside a function to the compiler, and shards the results like the batch.
`with_functions` does so for a search, but not for the functions that a user gives it: these may
close over arrays with explicit axes.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend import core
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


def with_functions(
    run: Callable[[Tree, Tree], Tree],
    functions: Tree,
    arrays: Sequence[Tree],
    trailing: Sequence[int | None],
) -> Tree:
    """``run(functions, arrays)``; explicit axes are automatic inside it, but not in the functions.

    Args:
      run: May call the functions under `jax.vmap`, the axis of the batch outermost and as one.
      functions: A pytree of functions of arrays.
      arrays: Pytrees of arrays.
      trailing: As for `jit`, of each of the arrays.
    """
    with_batch = [(x, n) for x, n in zip(arrays, trailing, strict=True) if n is not None]
    mesh = _explicit_mesh([x for x, _ in with_batch])
    if mesh is None:
        return run(functions, arrays)
    shape = jnp.shape(jax.tree.leaves(with_batch[0][0])[0])
    batch = math.prod(shape[: len(shape) - with_batch[0][1]])
    spec = _batch_spec(with_batch)
    names = tuple(x for name in spec if name for x in (name if isinstance(name, tuple) else [name]))
    if batch % math.prod(mesh.shape[name] for name in names):
        names = ()
    functions = jax.tree.map(lambda f: _explicit(f, mesh, batch, names), functions)
    return jax.sharding.auto_axes(
        functools.partial(run, functions),
        axes=mesh.explicit_axes,
        out_sharding=NamedSharding(mesh, spec),
    )(arrays)


def explicit(function: Callable) -> Callable:
    """A function for a `run` of `with_functions` that is not told of it; no result is sharded."""
    mesh = _explicit_mesh(())

    def whole(*args):
        return jax.tree.map(lambda x: jax.sharding.reshard(x, PartitionSpec()), function(*args))

    return function if mesh is None else _explicit(whole, mesh, 0, ())


def _explicit(function: Callable, mesh: Any, batch: int, names: tuple[str, ...]) -> Callable:
    """A function that runs with explicit axes where it is called with automatic ones.

    An outermost mapped axis of size `batch` is sharded over the axes of those names, if the
    function can be computed so; else every device computes all.
    """

    def call(*args):
        if jax.sharding.get_abstract_mesh().explicit_axes:
            return function(*args)
        kinds = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), args)
        with jax.sharding.use_abstract_mesh(mesh):
            program, found = jax.make_jaxpr(function, return_shape=True)(*kinds)

        def of_one(constants, *args):
            # What the function closes over are the constants of its program.
            run = core.jaxpr_as_fun(core.ClosedJaxpr(program.jaxpr, constants))
            return jax.tree.unflatten(jax.tree.structure(found), run(*jax.tree.leaves(args)))

        return _mapped(of_one, mesh, batch, names, 0)(program.consts, *args)

    return call


def _mapped(function: Callable, mesh: Any, batch: int, names: tuple[str, ...], axes: int):
    """``function(constants, *args)`` of arguments with so many mapped axes in front.

    `jax.vmap` alone would not shard its axis, since where it is applied that is automatic.
    """

    @custom_vmap
    def run(constants, *args):
        def sharded(spec):
            of_args = functools.partial(function, constants)
            of_args = jax.sharding.explicit_axes(of_args, axes=mesh.explicit_axes, in_sharding=spec)
            return of_args(*args)

        if axes and names and jax.tree.leaves(args)[0].shape[0] == batch:
            try:
                return sharded(PartitionSpec(names))
            except Exception:  # a lookup at labels, for one, needs to be told its sharding
                pass
        return sharded(PartitionSpec())

    @run.def_vmap
    def _(size, is_mapped, constants, *args):
        def whole(x, is_mapped):
            return x if is_mapped else jnp.broadcast_to(x, (size, *jnp.shape(x)))

        args = jax.tree.map(whole, args, tuple(is_mapped[1:]))
        inner = jax.vmap(function, (None, *(0 for _ in args)))
        found = _mapped(inner, mesh, batch, names, axes + 1)(constants, *args)
        return found, jax.tree.map(lambda _: True, found)

    return run


def unsharded(x: jax.Array, axis: int) -> jax.Array:
    """An array whose axis, counted from the last one, is not sharded over explicit axes."""
    spec = [*jax.typeof(x).sharding.spec]
    if spec[axis:] and spec[axis] is not None:
        spec[axis] = None
        return jax.sharding.reshard(x, PartitionSpec(*spec))
    return x


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


def vary_as(x: jax.Array, kind: jax.core.ShapedArray) -> jax.Array:
    """`x` varying over the axes over which an array of this type varies."""
    return _vary(x, _varying(kind))


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
