"""The labels that hypotheses have emitted, and where each was.

While a search reads frames, an emission is a node that points to the one before it, so that
hypotheses that share labels share nodes, and none are copied as a beam is sorted. After some
frames the nodes are written to the arrays of each hypothesis, and the nodes are free again.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import meshes


class Emitted(NamedTuple):
    """Emissions of hypotheses, ``[*batch, (N,) L]``."""

    labels: jax.Array  # int32, -1 past the length
    frames: jax.Array  # int32, -1 past the length
    durations: jax.Array  # int32: the frames it advanced, 0 past the length
    scores: jax.Array  # float: log-probabilities of the labels, 0 past the length
    confidences: jax.Array  # float, 0 past the length


def nothing(shape: tuple[int, ...], dtype) -> Emitted:
    """No emissions."""
    none, zero = jnp.full(shape, -1, jnp.int32), jnp.zeros(shape, dtype)
    return Emitted(none, none, jnp.zeros(shape, jnp.int32), zero, zero)


def within(emitted: Emitted, lengths: jax.Array) -> Emitted:
    """The emissions up to lengths."""
    place = lax.broadcasted_iota(jnp.int32, emitted.labels.shape, emitted.labels.ndim - 1)
    inside = place < jnp.expand_dims(lengths, -1)
    empty = nothing(emitted.labels.shape, emitted.scores.dtype)
    return jax.tree.map(lambda x, y: jnp.where(inside, x, y), emitted, empty)


def split(emitted: Emitted, count: jax.Array, best: jax.Array) -> tuple[Emitted, Emitted]:
    """The first emissions ``[L]`` of the best hypothesis, and the rest of all ``[N, L]``."""
    room = emitted.labels.shape[1]
    place = jnp.arange(room, dtype=jnp.int32)

    def rest(x, empty):
        moved = x[:, jnp.minimum(place + count, room - 1)]
        return jnp.where((place + count < room)[None, :], moved, empty)

    first = within(jax.tree.map(lambda x: x[best], emitted), count)
    return first, jax.tree.map(rest, emitted, nothing((), emitted.scores.dtype))


class Nodes(NamedTuple):
    """Emissions as nodes, in arrays of any axes."""

    parent: jax.Array  # int32: the node before; below 0 a `root`
    emission: Emitted


def root(place: jax.Array) -> jax.Array:
    """The node of the hypothesis at a place, before all nodes. It is its own inverse."""
    return -1 - place


def written(emitted: Emitted, nodes: Nodes, last: jax.Array, lengths: jax.Array) -> Emitted:
    """The emissions of hypotheses that end in nodes of one sequence.

    Args:
      emitted: The emissions at the roots, arrays ``[N, L]``.
      nodes: The nodes since, arrays with one axis.
      last: int32 ``[M]``, the last node of each hypothesis.
      lengths: int32 ``[M]``, its number of labels.
    """
    count, room = last.size, emitted.labels.shape[-1]
    row = jnp.arange(count, dtype=jnp.int32)

    def unfinished(carry):
        return jnp.any(carry[0] >= 0)

    def back(carry):
        node, place, found = carry
        found = found.at[row, jnp.where(node >= 0, place, room)].set(node, mode="drop")
        before = nodes.parent[jnp.maximum(node, 0)]
        return jnp.where(node >= 0, before, node), place - 1, found

    node, found = last, jnp.full((count, room), -1, jnp.int32)
    if nodes.parent.size:
        node, _, found = meshes.while_loop(unfinished, back, (last, lengths - 1, found))
    origin = root(node)

    def taken(old, new):
        old = old[origin]
        return jnp.where(found >= 0, new[jnp.maximum(found, 0)], old) if new.size else old

    return jax.tree.map(taken, emitted, nodes.emission)
