"""How a recursion is divided for a kernel, and the work around its launches.

A kernel works on whole tiles of states and sequences, and on whole chunks of frames; padding has
weight zero. It carries the state forward over all frames, or the cotangents of the last state
backward. The topology's start and finish run outside the kernel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core.kernels.parts import Arrays, Recursion, take_apart
from jaxctc.core.semirings import Semiring


class Plan(NamedTuple):
    """The sizes of a run, after padding."""

    axis: int  # the axis of the states in a weight: [states, batch] or [batch, states]
    chunks: int
    frames: int  # per chunk
    states: int
    batch: int
    block: int  # sequences per program
    whole: bool = False  # whether all states of the only chunk are kept

    def shape(self, batch: int) -> tuple[int, int]:
        """The shape of the weights of `batch` sequences."""
        return (self.states, batch) if self.axis == 0 else (batch, self.states)


class Form(NamedTuple):
    """The structure of the arrays that a kernel reads."""

    recursion: Recursion
    topology: Any  # its tree structure
    flags: tuple[bool, ...]  # which of its arrays are bool, passed as int32

    def topology_of(self, arrays):
        """A topology of the arrays that a kernel has read."""
        pairs = zip(arrays, self.flags, strict=True)
        return jax.tree.unflatten(self.topology, [x != 0 if flag else x for x, flag in pairs])

    def scores_of(self, arrays):
        """The scores of a frame from the arrays that a kernel has read."""
        return jax.tree.unflatten(self.recursion.scores, arrays)


class Operands(NamedTuple):
    """The padded arrays that a kernel reads."""

    form: Form
    topology: Arrays  # those with the shape of weights
    scores: Arrays  # [chunks * frames, ...]


class Kernels(Protocol):
    """The launches of a platform."""

    def forward(
        self, plan: Plan, operands: Operands, state: jax.Array, scale: jax.Array, keep: bool
    ) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """The last state and its scale; with `keep` also what `backward` needs, such as the states
        ``[chunks, …]`` at the starts of chunks.

        States are stacks of arrays, ``[n, *plan.shape(batch)]``, and in range.
        """
        ...

    def backward(
        self, plan: Plan, operands: Operands, kept: list[jax.Array], cotangents: jax.Array
    ) -> Arrays:
        """Cotangents of all scores, from those of the last state's arrays with derivatives."""
        ...


def sizes(topology, scores, semiring: Semiring) -> tuple[int, int, int, int]:
    """The numbers of frames, of states, of sequences, and of arrays of a state."""
    frames, *shape = jax.tree.leaves(scores)[0].shape
    state = jax.eval_shape(lambda t: t.start(semiring, jnp.float32)[0], topology)
    return frames, shape[topology.axis], shape[1 - topology.axis], len(jax.tree.leaves(state))


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def chunks_of(frames: int, most: int, least: int) -> tuple[int, int]:
    """Number and length of the chunks; a length that divides `frames` is preferred."""
    if frames <= most:
        return (1 if frames else 0), frames
    for length in range(most, least - 1, -1):
        if frames % length == 0:
            return frames // length, length
    chunks = -(-frames // most)
    return chunks, -(-frames // chunks)


def run(
    kernels: Kernels,
    plan: Plan,
    topology,
    scores,
    semiring: Semiring,
    finish: Callable,
    gradient: bool,
) -> tuple:
    """``finish(topology, semiring, state, scale)`` after all frames; with `gradient`, also that."""
    recursion, state, scale = take_apart(topology, scores, semiring)
    shape, edge = state[0].shape, scale[0].shape
    # Padding of the states has weight zero.
    nothing = jax.tree.leaves(semiring.zeros((), jnp.float32)) * len(state)
    start = [
        tiled(x, zero, plan.shape(plan.batch)) for x, zero in zip(state, nothing, strict=False)
    ]
    edges = [1 if i == plan.axis else n for i, n in enumerate(plan.shape(plan.batch))]
    scale = [tiled(x, 0, edges) for x in scale]
    operands = _operands(recursion, topology, scores, plan)
    state, scale, kept = kernels.forward(
        plan, operands, jnp.stack(start), jnp.stack(scale), gradient
    )

    def total(moving):
        arrays = recursion.join(moving, fixed)
        state = jax.tree.unflatten(recursion.state, arrays)
        return finish(topology, semiring, state, jax.tree.unflatten(recursion.weight, scale))

    moving, fixed = recursion.split(list(cut(state, (len(state), *shape))))
    scale = list(cut(scale, (len(scale), *edge)))
    if not gradient:
        return (total(moving),)
    value, pullback = jax.vjp(total, moving)
    (cotangents,) = pullback(jnp.ones_like(value))
    cotangents = tiled(jnp.stack(cotangents), 0, plan.shape(plan.batch))
    found = kernels.backward(plan, operands, kept, cotangents)
    leaves, tree = jax.tree.flatten(scores)
    found = [cut(x, like.shape) for x, like in zip(found, leaves, strict=True)]
    return value, jax.tree.unflatten(tree, found)


def tiled(x: jax.Array, fill, shape) -> jax.Array:
    """`x` with its last axes padded to `shape`."""
    before = x.ndim - len(shape)
    padding = [(0, n - m, 0) for n, m in zip(shape, x.shape[before:], strict=True)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0)] * before + padding)


def cut(x: jax.Array, shape) -> jax.Array:
    """The inverse of `tiled`."""
    return x[tuple(slice(n) for n in shape)]


def _operands(recursion: Recursion, topology, scores, plan: Plan) -> Operands:
    shape = plan.shape(plan.batch)

    def chunked(x, neutral):
        missing = plan.chunks * plan.frames - x.shape[0]
        if missing:
            frames = jnp.broadcast_to(neutral.astype(x.dtype), (missing, *x.shape[1:]))
            x = jnp.concatenate([x, frames])
        return tiled(x, -jnp.inf, shape)

    # A step reads only arrays with the shape of weights. Kernels cannot store bool.
    like_weights = jax.tree.map(lambda x: x if x.ndim == 2 else None, topology)
    leaves, tree = jax.tree.flatten(like_weights)
    flags = tuple(x.dtype == jnp.bool_ for x in leaves)
    leaves = [x.astype(jnp.int32) if flag else x for x, flag in zip(leaves, flags, strict=True)]
    chunks = jax.tree.leaves(jax.tree.map(chunked, scores, topology.neutral))
    form = Form(recursion, tree, flags)
    return Operands(form, [tiled(x, 0, shape) for x in leaves], chunks)


def in_lists(items, counts) -> list:
    """Splits items into lists of the given lengths."""
    items = iter(items)
    return [[next(items) for _ in range(n)] for n in counts]


def varying_as(like: jax.Array, x) -> jax.ShapeDtypeStruct:
    """The type of a result that varies over the same mesh axes as `like` in a `shard_map`."""
    kind = jax.typeof(like)
    # The argument's name changed in jax 0.11.
    for name in ("manual_axis_type", "vma"):
        if getattr(kind, name, None) is not None:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, **{name: getattr(kind, name)})
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
