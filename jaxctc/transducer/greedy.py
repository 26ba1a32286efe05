"""Greedy search of transducers: the best arc at every step.

Every sequence of a batch is at its own frame, so that one loop serves them all. Its number of steps
is that of the sequence with the most frames plus labels. The predictor is called only after
labels, and only for sequences that have emitted one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import meshes
from jaxctc.core.recursion import never_positive
from jaxctc.decoding import fusion
from jaxctc.decoding.fusion import Fusion
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer, weighted
from jaxctc.transducer import emitted as emissions
from jaxctc.transducer.emitted import Emitted
from jaxctc.transducer.model import Bounds, Transducer, Tree


class Path(NamedTuple):
    """The one hypothesis of each sequence; all arrays begin with axis B."""

    frame: jax.Array  # int32: the next frame to be read, which may be one to come
    symbols: jax.Array  # int32: labels in this frame
    length: jax.Array  # int32
    score: jax.Array
    output: Tree
    state: Tree
    scorer_state: Any
    scorer_score: jax.Array


class Stream(NamedTuple):
    """A search between two pieces of an utterance; all arrays begin with axis B."""

    path: Path
    emitted: Emitted
    frame_count: jax.Array  # int32
    full: jax.Array  # bool


def start(
    begun: tuple[Tree, Tree], scored: tuple[Any, jax.Array], room: tuple[int, int], dtype
) -> Stream:
    """The hypothesis without labels of each sequence.

    Args:
      begun: The predictor's output and state after the start symbol.
      scored: The scorer's states and scores, which begin with axis B.
      room: B and the most labels.
      dtype: That of scores.
    """
    batch, _ = room
    output, state = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *jnp.shape(x))), begun)
    zero, score = jnp.zeros(batch, jnp.int32), jnp.zeros(batch, dtype)
    known, share = scored
    path = Path(zero, zero, zero, score, output, state, known, share.astype(dtype))
    emitted = emissions.nothing(room, dtype)
    return Stream(path, emitted, zero, jnp.zeros(batch, bool))


def extend(
    model: Transducer,
    stream: Stream,
    encoder: jax.Array,
    lengths: jax.Array,
    bounds: Bounds,
    sum_of: Fusion,
) -> Stream:
    """The search after more frames ``[B, T, D]``."""
    scorer = sum_of.scorer
    batch, frames = encoder.shape[:2]
    row, end = jnp.arange(batch, dtype=jnp.int32), stream.frame_count + lengths
    label_frames = jnp.array([way.frames for way in model.label_ways], jnp.int32)

    def unfinished(carry):
        return jnp.any(carry[0].frame < end)

    def step(carry):
        path, emitted, full = carry
        active = path.frame < end
        here = jnp.clip(path.frame - stream.frame_count, 0, jnp.maximum(lengths - 1, 0))
        arcs = jax.vmap(model.arcs)(encoder[row, here], path.output)
        tokens, rank = arcs.tokens, arcs.tokens
        blank_frames = np.zeros(tokens.shape[1], np.int32)  # 0 for labels
        for blank, count in model.blanks.items():
            blank_frames[blank] = count
        is_label = blank_frames == 0
        every = jnp.arange(tokens.shape[1], dtype=jnp.int32)
        grown = jnp.zeros_like(tokens)
        if scorer is not None:
            grown = sum_of.added(path.scorer_state, tokens)
            rank = jnp.where(is_label[None, :], tokens + weighted(grown, sum_of.weight), tokens)
        of_label = arcs.durations
        of_blank = jnp.where((label_frames > 0)[None, :], of_label, -jnp.inf)
        if model.durations is not None:
            tail = [jnp.max(x, axis=1, keepdims=True) for x in (of_label, of_blank)]
            rank = rank + jnp.where(is_label[None, :], *tail)

        room = path.length < bounds.labels
        full = full | (active & ~room)
        may = room & (path.symbols < bounds.symbols)
        rank = jnp.where(may[:, None] | ~is_label[None, :], rank, -jnp.inf)
        best = jnp.max(rank, axis=1)
        # Faster than argmax on a CPU. If nothing is possible or known, the blank.
        first = jnp.min(jnp.where(rank == best[:, None], every[None, :], every.size), axis=1)
        choice = jnp.where(best > -jnp.inf, first, model.blank_id)
        skips = jnp.asarray(blank_frames)[choice]
        emits = active & (skips == 0)

        def at(x):
            return jnp.take_along_axis(x, choice[:, None], axis=1)[:, 0]

        gain, moves = at(tokens), jnp.where(emits, label_frames[0], skips)
        if model.durations is not None:
            place = jnp.argmax(jnp.where(emits[:, None], of_label, of_blank), axis=1)
            moves = label_frames[place]
            gain += jnp.take_along_axis(of_label, place[:, None], axis=1)[:, 0]
        moves = jnp.where(active, moves, 0)
        new = Emitted(choice, path.frame, moves, at(tokens), arcs.confidence)
        place = jnp.where(emits, path.length, bounds.labels)  # else outside, and dropped
        emitted = jax.tree.map(lambda x, y: x.at[row, place].set(y, mode="drop"), emitted, new)
        path = path._replace(
            frame=path.frame + moves,
            symbols=jnp.where(moves > 0, 0, path.symbols + emits.astype(jnp.int32)),
            length=path.length + emits.astype(jnp.int32),
            score=path.score + jnp.where(active, gain, 0),
            scorer_score=path.scorer_score + jnp.where(emits, at(grown), 0),
        )
        return _after_labels(model, path, choice, emits, scorer), emitted, full

    carry = stream.path, stream.emitted, stream.full
    if frames:
        carry = meshes.while_loop(unfinished, step, carry)
    path, emitted, full = carry
    return Stream(path, emitted, end, full)


def _after_labels(
    model: Transducer, path: Path, label: jax.Array, emits: jax.Array, scorer: Scorer | None
) -> Path:
    """The path after predictor and scorer have read the labels of some sequences.

    A few sequences at a time, since mostly few emit a label at once. It must be the same number
    always: with another one, a matrix product may round differently.
    """
    batch = label.size
    # A power of two: of such a number of rows each rounds alike, wherever it is.
    few = min(batch, 1 << max(0, (batch // 4).bit_length() - 1))

    def some(carry):
        return jnp.any(carry[0])

    def read(carry):
        left, memory = carry
        waits, place = lax.top_k(left.astype(jnp.int32), few)
        output, state, scorer_state = jax.tree.map(lambda x: x[place], memory)
        output, state = jax.vmap(model.predictor)(state, label[place])
        if scorer is not None:
            scorer_state, _ = jax.vmap(scorer.extend)(scorer_state, label[place])
        new = output, state, scorer_state
        target = jnp.where(waits > 0, place, batch)  # else outside, and dropped
        memory = jax.tree.map(lambda x, y: x.at[target].set(y, mode="drop"), memory, new)
        return left.at[target].set(False, mode="drop"), memory

    memory = path.output, path.state, path.scorer_state
    _, memory = meshes.while_loop(some, read, (emits, memory))
    output, state, scorer_state = memory
    return path._replace(output=output, state=state, scorer_state=scorer_state)


def finish(stream: Stream, sum_of: Fusion) -> Hypotheses:
    """The hypotheses if the utterances end here."""
    path = stream.path
    share, complete = fusion.ended(sum_of.scorer, path.scorer_state, path.scorer_score)
    found = stream.emitted
    return Hypotheses(
        found.labels,
        path.length,
        never_positive(path.score),
        found.frames,
        share,
        complete & (path.score > -jnp.inf),
        found.durations,
        found.scores,
        found.confidences,
        stream.full,
    )


def commit(stream: Stream) -> tuple[Emitted, Stream]:
    """All labels so far, and the search without them."""
    path = stream.path._replace(length=jnp.zeros_like(stream.path.length))
    empty = emissions.nothing(stream.emitted.labels.shape, stream.emitted.scores.dtype)
    return stream.emitted, stream._replace(path=path, emitted=empty)
