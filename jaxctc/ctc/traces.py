"""Where the best alignments of a beam came from; read backwards, this gives labels and frames."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import meshes
from jaxctc.ctc.frames import Frame


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


class Runs(NamedTuple):
    """The frames of each label in an alignment; maxima, since sums depend on how a run is cut."""

    durations: jax.Array  # int32: how many
    scores: jax.Array  # the label's log-probability at the surest, -inf past the length
    confidences: jax.Array  # 1 minus the entropy of the classes, at the surest


def no_runs(shape: tuple[int, ...], dtype) -> Runs:
    zero = jnp.zeros(shape, dtype)
    return Runs(jnp.zeros(shape, jnp.int32), jnp.full(shape, -jnp.inf, dtype), zero)


def extended(runs: Runs, mask: jax.Array, more: Runs) -> Runs:
    """Runs ``[B, 2 W, L]`` of which those in a mask have more frames, ``[B, 2 W]``."""
    more = jax.tree.map(lambda x: x[:, :, None], more)
    return Runs(
        runs.durations + jnp.where(mask, more.durations, 0),
        jnp.where(mask, jnp.maximum(runs.scores, more.scores), runs.scores),
        jnp.where(mask, jnp.maximum(runs.confidences, more.confidences), runs.confidences),
    )


class Alignments(NamedTuple):
    """The best alignments of all prefixes, 2 W places, at each frame."""

    begun: jax.Array  # int32 [T, B, 2 W]: the label that begins, -1 if none does
    place: jax.Array  # int32 [T, B, 2 W]: which label of the prefix that is
    runs: Runs  # [T, B, 2 W]: all frames of a label, at the first
    origin: jax.Array  # int32 [B, 2 W]: the place before the first frame
    first: Runs  # [B, 2 W]: of the label that had begun before the first frame


def trace_back(traces: Trace, frames: Frame, length: jax.Array) -> Alignments:
    """The best alignments, from a `Trace` of arrays ``[T, B, W]``.

    Args:
      traces: Where they came from.
      frames: The frames.
      length: int32 ``[B, W]``: the labels of each prefix after the last frame.
    """
    before = jnp.concatenate([traces.blank, traces.label], axis=2)
    # The label that a frame belongs to, and whether it begins there, in one number.
    code = 2 * traces.last + traces.begins.astype(jnp.int32)
    code = jnp.where(frames.inside[:, :, None], code, -1)
    code = jnp.concatenate([jnp.full_like(code, -1), code], axis=2)
    nothing = no_runs((length.shape[0], 2 * length.shape[1]), frames.log_probs.dtype)

    def back(carry, frame):
        place, length, runs = carry
        before, code, log_probs, sure = frame
        before, code = (jnp.take_along_axis(x, place, axis=1) for x in (before, code))
        label, begins = code >> 1, (code >= 0) & (code % 2 == 1)
        score = jnp.take_along_axis(log_probs, jnp.maximum(label, 0), axis=1)
        runs = Runs(
            runs.durations + (code >= 0).astype(jnp.int32),
            jnp.where(code >= 0, jnp.maximum(runs.scores, score), runs.scores),
            jnp.where(code >= 0, jnp.maximum(runs.confidences, sure[:, None]), runs.confidences),
        )
        after = jax.tree.map(lambda x, y: jnp.where(begins, x, y), nothing, runs)
        carry = before, length - begins.astype(jnp.int32), after
        return carry, (jnp.where(begins, label, -1), length - 1, runs)

    place = jnp.broadcast_to(
        jnp.arange(before.shape[2], dtype=jnp.int32)[None, :], before.shape[1:]
    )
    carry = place, jnp.concatenate([length, length], axis=1), nothing
    read = before, code, frames.log_probs, frames.confidence
    (origin, _, first), (begun, place, runs) = meshes.scan(back, carry, read, reverse=True)
    return Alignments(begun, place, runs, origin, first)
