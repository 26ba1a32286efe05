"""Beam search of transducers.

Frame by frame. *Open* hypotheses are at the frame, and a round appends one more label to the best
of them. Arcs that advance lead to the beams of the frames to come, one for each number of
frames ahead; without durations there is one. Each has the W best hypotheses that have got there,
and those with equal labels are merged. As in algorithm 1 of Graves 2012 (arXiv 1211.3711), a
frame is over when no open hypothesis could get into one of these beams.

* A hypothesis of a beam does not ask the predictor until it is open: so only W are asked a
  round, whatever the number of durations.
* Within a frame, labels of hypotheses that do not advance differ, since those of the round before
  did. Merging needs to look for equal labels only between hypotheses that come from
  different places: the beam so far, blanks, and labels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import meshes
from jaxctc.core.kernels.plans import chunks_of
from jaxctc.core.recursion import never_positive
from jaxctc.decoding import fusion
from jaxctc.decoding.fusion import Fusion
from jaxctc.decoding.hashing import prefix_hash
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import emitted as emissions
from jaxctc.transducer.emitted import Emitted, Nodes
from jaxctc.transducer.greedy import predicted, scored
from jaxctc.transducer.model import Bounds, Transducer, Tree


class Beam(NamedTuple):
    """W hypotheses at one frame, axis W first. Empty places have the score ``-inf``."""

    score: jax.Array  # log-probability of all alignments found
    best: jax.Array  # log-probability of the best of them
    length: jax.Array  # int32
    high: jax.Array  # uint32: the hash of the labels
    low: jax.Array  # uint32: and its second word
    node: jax.Array  # int32: the last emission of the best alignment
    waiting: jax.Array  # int32: the label that the predictor has not read yet, or -1
    scorer_score: jax.Array
    output: Tree
    state: Tree
    scorer_state: Any


class Stream(NamedTuple):
    """A search between two pieces of an utterance; all arrays begin with axis B."""

    beams: tuple[Beam, ...]  # at the next frame, and at those after it
    emitted: Emitted  # [B, N, L], N the places of all beams
    frame_count: jax.Array  # int32
    full: jax.Array  # bool


class Search(NamedTuple):
    """What stays the same over the frames of a search."""

    model: Transducer
    bounds: Bounds
    fusion: Fusion


def start(
    model: Transducer,
    initial_state: Tree,
    batch: int,
    width: int,
    max_labels: int,
    scorer: Scorer | None,
) -> Stream:
    """Beams of the hypothesis without labels and of empty places."""
    begun = model.predictor(initial_state, jnp.int32(model.blank_id))
    shape = batch, width
    output, state = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), begun)
    zero, word = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.uint32)
    nothing, scorer_state = jnp.full(shape, -jnp.inf, model.dtype), fusion.start(scorer, *shape)
    share, heavy = jnp.zeros(shape, model.dtype), (output, state, scorer_state)
    empty = Beam(nothing, nothing, zero, word, word, zero - 1, zero - 1, share, *heavy)
    sure = nothing.at[:, 0].set(0)
    beams = (empty._replace(score=sure, best=sure), *[empty] * (model.ahead - 1))
    emitted = emissions.nothing((batch, model.ahead * width, max_labels), model.dtype)
    return Stream(beams, emitted, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, bool))


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
    width = stream.beams[0].score.shape[1]
    per_frame = _nodes_per_frame(search, width)
    places = jnp.arange(width * len(stream.beams), dtype=jnp.int32)
    roots = jnp.split(emissions.root(places), len(stream.beams))
    beams = tuple(
        beam._replace(node=jnp.broadcast_to(x[None], beam.node.shape))
        for beam, x in zip(stream.beams, roots, strict=True)
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
            after, new, crowded = _frame(search, frame, beams, count + time, time * per_frame)
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

    every = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *beams)
    last = jnp.where(every.score != -jnp.inf, every.node, emissions.root(places)[None, :])
    nodes = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(batch, frames * per_frame), nodes)
    emitted = jax.vmap(emissions.written)(stream.emitted, nodes, last, every.length)
    return Stream(beams, emitted, stream.frame_count + lengths, full)


def _nodes_per_frame(search: Search, width: int) -> int:
    rounds = search.bounds.symbols if search.model.stays else 1
    return rounds * len(search.model.label_ways) * width


def _frame(search: Search, frame, beams, time, first_node) -> tuple[tuple[Beam, ...], Nodes, Any]:
    """The beams after one frame, its emissions, and whether a hypothesis had no room for labels."""
    model, (opened, *coming) = search.model, beams
    if any(way.frames > 0 for way in model.label_ways):
        opened = predicted(model, opened, search.fusion.scorer)
    none = opened._replace(score=jnp.full_like(opened.score, -jnp.inf))
    slots = (*coming, none)
    crowded = jnp.any((opened.length >= search.bounds.labels) & (opened.score > -jnp.inf))
    slots, grown, nodes = _round(search, frame, opened, slots, time, first_node, jnp.bool_(True))
    if not model.stays:
        return slots, nodes, crowded

    rounds, size = search.bounds.symbols, nodes.parent.size
    every = jax.tree.map(lambda x: jnp.zeros((rounds, size), x.dtype).at[0].set(x), nodes)

    def unfinished(carry):
        symbols, slots, grown, _ = carry
        best = search.fusion.total(grown.score, grown.scorer_score)[0]
        reached = [slots[way.frames - 1] for way in model.blank_ways]
        least = [search.fusion.total(beam.score, beam.scorer_score)[-1] for beam in reached]
        return (symbols <= rounds) & (best > jnp.min(jnp.stack(least)))

    def another(carry):
        symbols, slots, grown, every = carry
        opened = predicted(model, grown, search.fusion.scorer)
        node = first_node + symbols * size
        more = symbols < rounds
        slots, grown, new = _round(search, frame, opened, slots, time, node, more)
        every = jax.tree.map(lambda x, y: x.at[symbols].set(y, mode="drop"), every, new)
        return symbols + 1, slots, grown, every

    carry = jnp.int32(1), slots, grown, every
    _, slots, _, every = meshes.while_loop(unfinished, another, carry)
    return slots, jax.tree.map(lambda x: x.reshape(-1), every), crowded


def _round(
    search: Search,
    frame: jax.Array,
    opened: Beam,
    slots: tuple[Beam, ...],
    time: jax.Array,
    first_node: jax.Array,
    grows: jax.Array,
) -> tuple[tuple[Beam, ...], Beam, Nodes]:
    """The beams to come with the arcs of open hypotheses, those that stay, and all emissions."""
    model, width = search.model, opened.score.size
    # The predictor's output may be empty.
    arcs = jax.vmap(model.arcs, (None, 0), axis_size=width)(frame, opened.output)
    tokens, classes = arcs.tokens, arcs.tokens.shape[1]
    possible = (jnp.arange(classes, dtype=jnp.int32) != model.blank_id)[None, :]
    possible &= (grows & (opened.length < search.bounds.labels))[:, None]
    total = opened.score[:, None] + tokens
    scorer_score = jnp.broadcast_to(opened.scorer_score[:, None], tokens.shape)
    if search.fusion.scorer is not None:
        added = search.fusion.added(opened.scorer_state, classes, tokens.dtype)
        possible &= added > -jnp.inf
        scorer_score += jnp.where(added > -jnp.inf, added, 0)
        total += search.fusion.weight * scorer_score
    # The best of each hypothesis, and of these the best of all: of equals the first.
    total, label = lax.top_k(jnp.where(possible, total, -jnp.inf), min(width, classes))

    parts: list[list[Beam]] = [[] for _ in slots]
    blank, staying, nodes = tokens[:, model.blank_id], opened, []
    for way in model.blank_ways:
        gain = blank
        if model.durations is not None:
            gain = blank + arcs.durations[:, way.place]
        left = opened._replace(score=opened.score + gain, best=opened.best + gain)
        parts[way.frames - 1].append(left)
    for place, way in enumerate(model.label_ways):
        rank = total
        if model.durations is not None:
            rank = total + arcs.durations[:, way.place][:, None]
        rank, cell = lax.top_k(rank.reshape(-1), width)
        parent = cell // total.shape[1]
        chosen = label.reshape(-1)[cell]
        score = tokens[parent, chosen]
        gain = score
        if model.durations is not None:
            gain = score + arcs.durations[parent, way.place]
        before = jax.tree.map(lambda x, parent=parent: x[parent], opened)
        high, low = prefix_hash(before.high, before.low, chosen)
        node = first_node + place * width + jnp.arange(width, dtype=jnp.int32)
        longer = before._replace(
            score=jnp.where(rank > -jnp.inf, before.score + gain, rank),
            best=before.best + gain,
            length=before.length + 1,
            high=high,
            low=low,
            node=node,
            waiting=chosen,
            scorer_score=scorer_score[parent, chosen],
        )
        moves = jnp.full(width, way.frames, jnp.int32)
        at = jnp.broadcast_to(time, (width,))
        emission = Emitted(chosen, at, moves, score, arcs.confidence[parent])
        nodes.append(Nodes(before.node, emission))
        if way.frames:
            parts[way.frames - 1].append(longer)
        else:
            staying = longer
    slots = tuple(
        merged(search.fusion, [beam, *some], width) if some else beam
        for beam, some in zip(slots, parts, strict=True)
    )
    return slots, staying, jax.tree.map(lambda *x: jnp.concatenate(x), *nodes)


def merged(sum_of: Fusion, parts: list[Beam], width: int) -> Beam:
    """The best of several beams, with equal label sequences summed; ties go to the first beam."""
    every = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    live = every.score != -jnp.inf
    same = live[:, None] & live[None, :]
    for x in (every.length, every.high, every.low):
        same &= x[:, None] == x[None, :]
    place = jnp.arange(live.size, dtype=jnp.int32)
    first = ~jnp.any(same & (place[None, :] < place[:, None]), axis=1)
    # The sum over each group, at its first place; of one alone it is exact.
    of_group = jnp.where(same, every.score[None, :], -jnp.inf)
    top = jnp.max(of_group, axis=1)
    shift = jnp.where(top == -jnp.inf, 0, top)[:, None]
    score = top + jnp.log(jnp.maximum(jnp.sum(jnp.exp(of_group - shift), axis=1), 1))
    score = jnp.where(first & live, score, -jnp.inf)
    rivals = jnp.where(same, every.best[None, :], -jnp.inf)
    winner = jnp.argmax(rivals, axis=1)
    every = every._replace(score=score, best=jnp.max(rivals, axis=1), node=every.node[winner])
    _, order = lax.top_k(sum_of.total(score, every.scorer_score), width)
    return jax.tree.map(lambda x: x[order], every)


def finish(stream: Stream, sum_of: Fusion) -> Hypotheses:
    """The hypotheses if the utterances end here, those at frames to come included."""

    def one(beams, emitted):
        width = beams[0].score.size
        size = width * len(beams)
        roots = jnp.split(jnp.arange(size, dtype=jnp.int32), len(beams))
        beams = [
            beam._replace(node=x, output=(), state=()) for beam, x in zip(beams, roots, strict=True)
        ]
        beam = merged(sum_of, beams, size) if len(beams) > 1 else beams[0]
        states = scored(beam, sum_of.scorer)
        share, complete = fusion.ended(sum_of.scorer, states, beam.scorer_score)
        complete &= beam.score > -jnp.inf
        order, exists = fusion.order(beam.score, sum_of.total(beam.score, share), complete)
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
        )

    return jax.vmap(one)(stream.beams, stream.emitted)
