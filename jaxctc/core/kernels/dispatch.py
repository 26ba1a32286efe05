"""From the recursion to the kernels: derivatives, `jax.vmap`, and the choice of kernel or scan.

* The derivative of log Z is the product of the posteriors and the tangents of the scores; that of
  the posteriors is computed by the scan (`jax.custom_jvp`).
* An axis of `jax.vmap` becomes part of the batch (`jax.custom_batching.custom_vmap`).
* The kernel, or the scan, is chosen when a program is lowered for a platform. A compiler that
  splits a program over GPUs gives each a kernel (`shards`); on other platforms it splits the scan.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend import core
from jax.interpreters import mlir

from jaxctc.core import meshes
from jaxctc.core.kernels import choice, plans, shards
from jaxctc.core.semirings import MAX_TROPICAL, PROBABILITY, Semiring

# From jax 0.11 on, Pallas has what the GPU kernels need, and can interpret them.
HOPPER = 9  # the compute capability from which on they compile
GPU = tuple(int(n) for n in jax.__version__.split(".")[:2]) >= (0, 11)


class Way(NamedTuple):
    """The functions of the recursion without kernels."""

    log_partition: Callable  # (topology, scores, semiring) -> [B]
    posteriors: Callable  # the same, with the gradient
    finish: Callable  # (topology, semiring, state, scale) -> [B]


class _Job(NamedTuple):
    """The static arguments of a call."""

    way: Way
    semiring: Semiring
    choice: choice.Choice
    gradient: bool


def applies(topology, scores, semiring: Semiring) -> bool:
    """Whether a kernel is chosen, and this recursion is of a kind that kernels can run."""
    return (
        bool(choice.current().platforms)
        and semiring in (PROBABILITY, MAX_TROPICAL)
        and hasattr(topology, "entries")
        and all(x.dtype == jnp.float32 and _known(x.shape) for x in jax.tree.leaves(scores))
    )


def _known(shape: tuple) -> bool:
    """Whether all sizes are numbers, none of them 0: an export may have symbols for them."""
    return all(isinstance(size, int) and size > 0 for size in shape)


def log_partition(topology, scores, semiring: Semiring, way: Way) -> jax.Array:
    """As `recursion.log_partition`, where a kernel `applies`."""
    return _log_partition(topology, scores, _job(semiring, way))


def posteriors(topology, scores, semiring: Semiring, way: Way) -> tuple[jax.Array, Any]:
    """As `recursion.posteriors`, where a kernel `applies`."""
    return _posteriors(topology, scores, _job(semiring, way))


def _job(semiring: Semiring, way: Way) -> _Job:
    return _Job(way, semiring, choice.current(), False)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _log_partition(topology, scores, job: _Job) -> jax.Array:
    return _mapped(job)(topology, scores)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _posteriors(topology, scores, job: _Job) -> tuple[jax.Array, Any]:
    return _mapped(job._replace(gradient=True))(topology, scores)


@_log_partition.defjvp
def _log_partition_jvp(job, primals, tangents):
    topology, scores = primals
    log_z, found = _posteriors(topology, scores, job)
    axes = 0, 1 + topology.axis
    products = jax.tree.map(lambda p, d: jnp.sum(p * d, axes), found, tangents[1])
    return log_z, functools.reduce(jnp.add, jax.tree.leaves(products))


@_posteriors.defjvp
def _posteriors_jvp(job, primals, tangents):
    topology, scores = primals
    return jax.jvp(
        lambda scores: job.way.posteriors(topology, scores, job.semiring), (scores,), tangents[1:]
    )


def _mapped(job: _Job) -> Callable:
    """The recursion of a batch; a mapped axis becomes part of the batch."""

    @custom_vmap
    def run(topology, scores):
        return _bind(topology, scores, job)

    @run.def_vmap
    def _(size, mapped, topology, scores):
        if size == 0:  # nothing to launch
            axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, mapped)
            scan = functools.partial(_by_scan, job=job)
            results = jax.vmap(scan, tuple(axes), axis_size=0)(topology, scores)
            return results, jax.tree.map(lambda _: True, results)
        batch = 1 - topology.axis

        def joined(extra, x, is_mapped):
            x = x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
            axis = _batch_axis(topology, x.ndim - 1, extra)
            # Behind the sequences, which may be sharded: then the joint axis is sharded like them.
            x = jnp.moveaxis(x, 0, axis + 1)
            return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

        def parted(axis, x):
            x = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
            return jnp.moveaxis(x, axis + 1, 0)

        results = run(
            jax.tree.map(functools.partial(joined, 0), topology, mapped[0]),
            jax.tree.map(functools.partial(joined, 1), scores, mapped[1]),
        )
        results = (
            parted(0, results[0]),
            *(jax.tree.map(functools.partial(parted, 1 + batch), x) for x in results[1:]),
        )
        return results, jax.tree.map(lambda _: True, results)

    return run


def _by_scan(topology, scores, job: _Job) -> tuple:
    if job.gradient:
        return job.way.posteriors(topology, scores, job.semiring)
    return (job.way.log_partition(topology, scores, job.semiring),)


def _by_kernel(topology, scores, job: _Job, platform: str | None, interpret: bool) -> tuple | None:
    """The same by a platform's kernel; None if there is none for the recursion's size."""
    # Imported late: importing Pallas is slow, and most users of the package do not need it.
    if platform == "tpu":
        from jaxctc.core.kernels import tpu as chip
    elif GPU:
        from jaxctc.core.kernels import gpu as chip
    else:
        return None
    turned = platform == "gpu" and topology.axis == 0
    if turned:  # the GPU kernel needs the states last
        topology, scores = _turned(topology), jax.tree.map(_turn, scores)
    with jax.enable_x64(False):  # a kernel's indices are of 32 bits
        plan = chip.plan(topology, scores, job.semiring)
        if plan is None:
            return None
        kernels, finish = chip.Kernels(interpret), job.way.finish
        log_z, *found = plans.run(
            kernels, plan, topology, scores, job.semiring, finish, job.gradient
        )
    return log_z, *(jax.tree.map(_turn, found) if turned else found)


def _batch_axis(topology, ndim: int, extra: int) -> int:
    """The batch axis of the lengths, or of a weight, after `extra` axes."""
    return extra + (1 - topology.axis if ndim == 2 + extra else 0)


def _turn(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2) if x.ndim > 1 else x


def _turned(topology):
    return dataclasses.replace(jax.tree.map(_turn, topology), axis=1 - topology.axis)


_run_p = core.Primitive("jaxctc_recursion")
_run_p.multiple_results = True


def _bind(topology, scores, job: _Job, *, is_part: bool = False) -> tuple:
    """The recursion, which may be one device's part of another."""
    if job.choice.interpreter == "gpu":  # now, not at lowering: it has ordered effects
        results = _by_kernel(topology, scores, job, "gpu", True)
        return _by_scan(topology, scores, job) if results is None else results
    operands, tree = jax.tree.flatten((topology, scores))
    result = None

    def scan(*operands):
        nonlocal result
        topology, scores = jax.tree.unflatten(tree, operands)
        found = _by_scan(topology, scores, job)
        result = jax.tree.structure(found)
        return jax.tree.leaves(found)

    def part(*operands):
        topology, scores = jax.tree.unflatten(tree, operands)
        return jax.tree.leaves(_bind(topology, scores, job, is_part=True))

    def axes(x, extra):
        return x.ndim, _batch_axis(topology, x.ndim, extra)

    jaxpr, parts = jax.make_jaxpr(scan)(*operands), None
    if not is_part:
        given = [axes(x, i) for i, xs in enumerate((topology, scores)) for x in jax.tree.leaves(xs)]
        log_z, *found = jaxpr.out_avals
        results = [axes(log_z, 0), *(axes(x, 1) for x in found)]
        parts = jax.make_jaxpr(shards.per_device(part, given, results))(*operands)
    results = _run_p.bind(*operands, scan=jaxpr, parts=parts, tree=tree, job=job)
    return jax.tree.unflatten(result, results)


@_run_p.def_abstract_eval
def _(*operands, scan, parts, tree, job):
    return scan.out_avals


@_run_p.def_impl
def _(*operands, **parameters):
    return jax.jit(functools.partial(_run_p.bind, **parameters))(*operands)


def _lower(platform: str | None, context, *operands, scan, parts, tree, job):
    def by_kernel(*operands):
        topology, scores = jax.tree.unflatten(tree, operands)
        which = job.choice.interpreter
        results = _by_kernel(topology, scores, job, which or platform, which is not None)
        if results is not None:
            return jax.tree.leaves(results)
        typed = zip(operands, context.avals_in, strict=True)
        return core.jaxpr_as_fun(scan)(*(meshes.vary_as(x, kind) for x, kind in typed))

    run = core.jaxpr_as_fun(scan)
    module = context.module_context
    if _is_offered(platform, module.backend, job.choice):
        if _on_one_device(module.axis_context):
            # Of one device: types must not say that operands vary, since Pallas forgets it of some
            # results, and a derivative of what does not vary is a sum over the devices.
            kinds = [jax.core.ShapedArray(x.shape, x.dtype) for x in context.avals_in]
            local = context.replace(avals_in=kinds)
            return mlir.lower_fun(by_kernel, multiple_results=True)(local, *operands)
        if parts is not None and _is_split(platform, module, job.choice):
            run = core.jaxpr_as_fun(parts)
    return mlir.lower_fun(run, multiple_results=True)(context, *operands)


def _is_offered(platform: str | None, client, chosen: choice.Choice) -> bool:
    """Whether the kernel is chosen on a platform, and runs there."""
    if chosen.interpreter is not None:
        return True
    return platform in chosen.platforms and not (platform == "gpu" and _too_old(client))


def _is_split(platform: str | None, module: mlir.ModuleContext, chosen: choice.Choice) -> bool:
    """Whether the compiler can give each device a kernel for its own sequences.

    For that it calls back into this process, which an exported program cannot. On TPUs it fails
    (https://github.com/jax-ml/jax/issues/38196), and so it does if a mesh with explicit axes is
    set, whose types it takes for those of one device's arrays.
    """
    axes = module.axis_context
    return (
        (platform == "gpu" or chosen.interpreter is not None)
        and not module.lowering_parameters.for_export
        and isinstance(axes, mlir.ShardingContext)
        and axes.abstract_mesh is not None
        and axes.abstract_mesh.are_all_axes_auto
    )


def _too_old(client) -> bool:
    """Whether a GPU is older than Hopper; no, if it is not known, as in an export."""
    devices = client.devices() if client is not None else ()
    known = (getattr(device, "compute_capability", None) for device in devices)
    return any(int(version.split(".")[0]) < HOPPER for version in known if version)


def _on_one_device(axes) -> bool:
    """Whether no compiler splits the program: one device, or `shard_map` over all axes."""
    if isinstance(axes, mlir.ShardingContext):
        return axes.num_devices == 1
    if isinstance(axes, mlir.SPMDAxisContext):
        return axes.manual_axes | set(axes.mesh.manual_axes) == set(axes.mesh.axis_names)
    return True


mlir.register_lowering(_run_p, functools.partial(_lower, None))
mlir.register_lowering(_run_p, functools.partial(_lower, "tpu"), platform="tpu")
mlir.register_lowering(_run_p, functools.partial(_lower, "gpu"), platform="cuda")
