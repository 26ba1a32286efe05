"""Where the best alignments of a beam came from; read backwards, this gives labels and frames."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import meshes


class Trace(NamedTuple):
    """Where the best alignments at one frame came from, of 2 W places, blank-ending first."""

    blank: jax.Array  # int32 [B, W]: the place before
    label: jax.Array  # int32 [B, W]: the place before
    begins: jax.Array  # bool [B, W]: does the last label begin at this frame?
    last: jax.Array  # int32 [B, W]: the last label


def unmoved(last: jax.Array) -> Trace:
    """The trace of a frame that changes nothing, from the last labels ``[B, W]``."""
    width = last.shape[1]
    place = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None, :], last.shape)
    return Trace(place, place + width, jnp.zeros_like(place, bool), jnp.zeros_like(last))


class Alignments(NamedTuple):
    """The best alignments of all prefixes, 2 W places, at each frame."""

    begun: jax.Array  # int32 [T, B, 2 W]: the label that begins, -1 if none does
    label: jax.Array  # int32 [T, B, 2 W]: the label that the frame belongs to, -1 of a blank
    place: jax.Array  # int32 [T, B, 2 W]: which label of the prefix that is, or was the last
    origin: jax.Array  # int32 [B, 2 W]: the place before the first frame


def trace_back(traces: Trace, inside: jax.Array, length: jax.Array) -> Alignments:
    """The best alignments, from a `Trace` of arrays ``[T, B, W]``.

    Args:
      traces: Where they came from.
      inside: bool ``[T, B]``.
      length: int32 ``[B, W]``: the labels of each prefix after the last frame.
    """
    before = jnp.concatenate([traces.blank, traces.label], axis=2)
    begun = jnp.where(traces.begins, traces.last, -1)
    begun = jnp.concatenate([jnp.full_like(begun, -1), begun], axis=2)
    label = jnp.where(inside[:, :, None], traces.last, -1)
    label = jnp.concatenate([jnp.full_like(label, -1), label], axis=2)

    def back(carry, frame):
        place, length = carry
        before, begun, label = (jnp.take_along_axis(x, place, axis=1) for x in frame)
        return (before, length - (begun >= 0).astype(jnp.int32)), (begun, label, length - 1)

    place = jnp.broadcast_to(
        jnp.arange(before.shape[2], dtype=jnp.int32)[None, :], before.shape[1:]
    )
    carry = place, jnp.concatenate([length, length], axis=1)
    frames = before, begun, label
    (origin, _), (begun, label, place) = meshes.scan(back, carry, frames, reverse=True)
    return Alignments(begun, label, place, origin)
