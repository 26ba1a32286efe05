"""The state of a transducer's beam search: its start, its extension by frames, its hypotheses."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import meshes
from jaxctc.core.kernels.plans import chunks_of
from jaxctc.core.recursion import never_positive
from jaxctc.decoding import fusion
from jaxctc.decoding.fusion import Fusion
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.transducer import emitted as emissions
from jaxctc.transducer.emitted import Emitted, Nodes
from jaxctc.transducer.model import Tree
from jaxctc.transducer.rounds import Beam, Search, merged, one_frame, scored


class Stream(NamedTuple):
    """A search between two pieces of an utterance; all arrays begin with axis B."""

    beams: Beam  # [B, A, W]: at the next frame, and at those after it that can be reached
    emitted: Emitted  # [B, A * W, L]
    frame_count: jax.Array  # int32
    full: jax.Array  # bool


def start(
    begun: tuple[Tree, Tree],
    scored: tuple[Any, jax.Array],
    room: tuple[int, int],
    beams: tuple[int, int],
    dtype,
) -> Stream:
    """Beams of the hypothesis without labels and of empty places.

    Args:
      begun: The predictor's output and state after the start symbol.
      scored: The scorer's states and scores, which begin with axis B.
      room: B and the most labels.
      beams: A and W.
      dtype: That of scores.
    """
    batch, max_labels = room
    shape = batch, *beams
    output, state = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), begun)
    zero, word = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.uint32)
    score = jnp.full(shape, -jnp.inf, dtype).at[:, 0, 0].set(0)
    known, share = jax.tree.map(
        lambda x: jnp.broadcast_to(x[:, None, None], (*shape, *x.shape[1:])), scored
    )
    heavy = share.astype(dtype), output, state, known
    every = Beam(score, score, zero, word, word, zero - 1, zero - 1, *heavy)
    emitted = emissions.nothing((batch, math.prod(beams), max_labels), dtype)
    return Stream(every, emitted, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))


def search_whole(search: Search, stream: Stream, encoder: jax.Array, lengths: jax.Array) -> Stream:
    """`extend` by a few dozen frames at a time, so that nodes need no more memory."""
    batch, frames, size = encoder.shape
    chunks, per_chunk = chunks_of(frames, 96, 48)
    padding = [(0, 0), (0, chunks * per_chunk - frames), (0, 0)]
    pieces = jnp.pad(encoder, padding).reshape(batch, chunks, per_chunk, size).swapaxes(0, 1)

    def step(stream, piece):
        inside = jnp.clip(lengths - stream.frame_count, 0, per_chunk)
        return extend(search, stream, piece, inside), None

    return meshes.scan(step, stream, pieces)[0]


def extend(search: Search, stream: Stream, encoder: jax.Array, lengths: jax.Array) -> Stream:
    """The search after more frames ``[B, T, D]``."""
    batch, frames = encoder.shape[:2]
    shape = stream.beams.score.shape
    per_frame = search.nodes_per_frame(shape[2])
    roots = emissions.root(jnp.arange(shape[1] * shape[2], dtype=jnp.int32))
    beams = stream.beams._replace(
        node=jnp.broadcast_to(roots.reshape(1, *shape[1:]), shape),
    )
    dtype = search.model.dtype
    none = Nodes(
        jnp.full((frames, batch, per_frame), -1, jnp.int32),
        emissions.nothing((frames, batch, per_frame), dtype),
    )

    def unfinished(carry):
        return carry[0] < jnp.max(lengths, initial=0)

    def step(carry):
        time, beams, nodes, full = carry
        frame = lax.dynamic_index_in_dim(encoder, jnp.minimum(time, frames - 1), 1, False)

        def one(frame, beams, count, inside):
            after, new, crowded = one_frame(search, frame, beams, count + time, time * per_frame)
            after = jax.tree.map(lambda x, y: jnp.where(inside, x, y), after, beams)
            return after, new, crowded & inside

        inside = time < lengths
        beams, new, crowded = jax.vmap(one)(frame, beams, stream.frame_count, inside)
        nodes = jax.tree.map(
            lambda x, y: lax.dynamic_update_index_in_dim(x, y, time, 0), nodes, new
        )
        return time + 1, beams, nodes, full | crowded

    # A loop whose length is not known to the compiler: it would round a loop of one frame
    # in another way, and the results of a stream would depend on how it was cut.
    carry = jnp.int32(0), beams, none, stream.full
    _, beams, nodes, full = meshes.while_loop(unfinished, step, carry) if frames else carry

    # Of places without a hypothesis the nodes mean nothing.
    last = jnp.where(beams.score != -jnp.inf, beams.node, -1)
    last, ends = (x.reshape(batch, shape[1] * shape[2]) for x in (last, beams.length))
    nodes = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(batch, frames * per_frame), nodes)
    emitted = jax.vmap(emissions.written)(stream.emitted, nodes, last, ends)
    return Stream(beams, emitted, stream.frame_count + lengths, full)


class Ranked(NamedTuple):
    """The hypotheses of one sequence's beams, ``[A * W]``, and their order."""

    beam: Beam  # with the places of their emissions as nodes
    scorer_score: jax.Array  # with that of the end
    complete: jax.Array  # bool
    order: jax.Array  # int32: their places, the best first
    exists: jax.Array  # bool, in this order


def _ranked(beams: Beam, sum_of: Fusion) -> Ranked:
    """The hypotheses if the utterance ends here, those at frames to come included."""
    ahead, width = beams.score.shape
    beam = _flat(beams._replace(output=(), state=()))
    beam = beam._replace(node=jnp.arange(ahead * width, dtype=jnp.int32))
    if ahead > 1:
        beam = merged(sum_of, [beam], ahead * width)
    states = scored(beam, sum_of.scorer)
    share, complete = fusion.ended(sum_of.scorer, states, beam.scorer_score)
    complete &= beam.score > -jnp.inf
    order = fusion.order(beam.score, sum_of.total(beam.score, share), complete)
    return Ranked(beam, share, complete, *order)


def finish(stream: Stream, sum_of: Fusion) -> Hypotheses:
    """The hypotheses if the utterances end here, those at frames to come included."""

    def one(beams, emitted, full):
        width = beams.score.shape[1]
        beam, share, complete, order, exists = _ranked(beams, sum_of)
        order, exists = order[:width], exists[:width]
        score = beam.score[order]
        lengths = jnp.where(exists, beam.length[order], 0)
        found = jax.tree.map(lambda x: x[beam.node[order]], emitted)
        found = emissions.within(found, lengths)
        return Hypotheses(
            found.labels,
            lengths,
            never_positive(score),  # only here, since it would change the ranks
            found.frames,
            jnp.where(exists, share[order], 0),
            complete[order],
            found.durations,
            found.scores,
            found.confidences,
            jnp.broadcast_to(full, lengths.shape),
        )

    return jax.vmap(one)(stream.beams, stream.emitted, stream.full)


def commit(stream: Stream, sum_of: Fusion) -> tuple[Emitted, Stream]:
    """The labels that all hypotheses begin with, as the best has them, and the search without."""

    def one(beams, emitted):
        beam = _flat(beams)
        live = beam.score > -jnp.inf
        found = _ranked(beams, sum_of)
        best = found.beam.node[found.order[0]]
        place = jnp.arange(emitted.labels.shape[1], dtype=jnp.int32)
        agrees = emitted.labels == emitted.labels[best][None, :]
        agrees &= place[None, :] < beam.length[:, None]
        agrees = jnp.all(agrees | ~live[:, None], axis=0)
        count = jnp.sum(jnp.cumprod(agrees.astype(jnp.int32)), dtype=jnp.int32)
        count = jnp.where(jnp.any(live), count, 0)
        first, rest = emissions.split(emitted, count, best)
        return first, beams._replace(length=beams.length - count), rest

    first, beams, rest = jax.vmap(one)(stream.beams, stream.emitted)
    return first, stream._replace(beams=beams, emitted=rest)


def _flat(beams: Beam) -> Beam:
    """All hypotheses ``[A * W]`` of beams ``[A, W]``."""
    size = beams.score.size
    return jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), beams)
