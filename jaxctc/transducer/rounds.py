"""One frame of a transducer's beam search.

*Open* hypotheses are at the frame, and a round appends one more label to the best of them.
Arcs that advance lead to the beams of the frames to come, one for each number of frames ahead;
without durations and big blanks there is one. Each has the W best hypotheses that have got there,
and those with equal labels are merged. As in algorithm 1 of Graves 2012 (arXiv 1211.3711), a frame
is over when no open hypothesis could get into one of these beams.

* A hypothesis of a beam does not ask the predictor until it is open: so only W are asked a
  round, whatever the number of durations.
* Within a frame, labels of hypotheses that do not advance differ, since those of the round before
  did. Merging needs to look for equal labels only between hypotheses that come from
  different places: the beam so far, blanks, and labels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import meshes
from jaxctc.decoding import selection
from jaxctc.decoding.fusion import Fusion
from jaxctc.decoding.hashing import prefix_hash
from jaxctc.language.scorer import Scorer
from jaxctc.transducer.emitted import Emitted, Nodes
from jaxctc.transducer.model import Arcs, Bounds, Transducer, Tree


class Beam(NamedTuple):
    """W hypotheses at one frame, axis W last of the first. Empty places have the score ``-inf``."""

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

    def light(self, source: jax.Array) -> "Beam":
        """The beam with the place of its states instead of them, which are large."""
        return self._replace(output=source, state=(), scorer_state=())

    def with_states(self, of: "Beam") -> "Beam":
        """A `light` beam with its states, from the places of another beam."""
        kept = of.output, of.state, of.scorer_state
        output, state, scorer_state = jax.tree.map(lambda x: x[self.output], kept)
        return self._replace(output=output, state=state, scorer_state=scorer_state)


class Search(NamedTuple):
    """What stays the same over the frames of a search."""

    model: Transducer
    bounds: Bounds
    fusion: Fusion

    @property
    def rounds(self) -> int:
        """The most labels at one frame."""
        return self.bounds.symbols if self.model.stays else 1

    def nodes_per_frame(self, width: int) -> int:
        return self.rounds * len(self.model.label_ways) * width

    def total(self, beam: Beam) -> jax.Array:
        """What hypotheses are ranked by."""
        return self.fusion.total(beam.score, beam.scorer_score)


def one_frame(
    search: Search, frame: jax.Array, beams: Beam, time: jax.Array, first_node: jax.Array
) -> tuple[Beam, Nodes, jax.Array]:
    """The beams ``[A, W]`` after one more frame.

    Returns:
      The beams, the frame's emissions, and whether a hypothesis had no room for labels.
    """
    model = search.model
    opened = jax.tree.map(lambda x: x[0], beams)
    # What was the first of the beams becomes the last, an empty one.
    beams = jax.tree.map(lambda x: jnp.concatenate([x[1:], x[:1]]), beams)
    beams = beams._replace(score=beams.score.at[-1].set(-jnp.inf))
    if any(way.frames > 0 for way in model.label_ways):
        opened = predicted(model, opened, search.fusion.scorer)
    crowded = jnp.any((opened.length >= search.bounds.labels) & (opened.score > -jnp.inf))
    first = time, first_node, jnp.bool_(True)
    beams, grown, nodes = _round(search, frame, opened, beams, *first)
    if not model.stays:
        return beams, nodes, crowded

    size = nodes.parent.size
    every = jax.tree.map(lambda x: jnp.zeros((search.rounds, size), x.dtype).at[0].set(x), nodes)
    reached = np.array([way.frames - 1 for way in model.blank_ways])

    def unfinished(carry):
        symbols, beams, grown, _ = carry
        least = jnp.min(search.total(beams)[reached, -1])
        return (symbols <= search.rounds) & (search.total(grown)[0] > least)

    def another(carry):
        symbols, beams, grown, every = carry
        opened = predicted(model, grown, search.fusion.scorer)
        place = time, first_node + symbols * size, symbols < search.rounds
        beams, grown, new = _round(search, frame, opened, beams, *place)
        every = jax.tree.map(lambda x, y: x.at[symbols].set(y, mode="drop"), every, new)
        return symbols + 1, beams, grown, every

    carry = jnp.int32(1), beams, grown, every
    _, beams, _, every = meshes.while_loop(unfinished, another, carry)
    return beams, jax.tree.map(lambda x: x.reshape(search.rounds * size), every), crowded


def _round(
    search: Search,
    frame: jax.Array,
    opened: Beam,
    beams: Beam,
    time: jax.Array,
    first_node: jax.Array,
    grows: jax.Array,
) -> tuple[Beam, Beam, Nodes]:
    """The beams to come with the arcs of open hypotheses, those that stay, and all emissions."""
    model, (ahead, width) = search.model, beams.score.shape
    place = jnp.arange(width, dtype=jnp.int32)
    # The predictor's output may be empty.
    arcs = jax.vmap(model.arcs, (None, 0), axis_size=width)(frame, opened.output)
    # A source is a place among the hypotheses of the beam so far and the open ones.
    light = opened.light(width + place)
    grown, nodes = _grown(search, light, opened.scorer_state, arcs, first_node, time, grows)

    before = beams.light(jnp.broadcast_to(place[None, :], (ahead, width)))
    gain = arcs.tokens.T
    if model.durations is not None:
        gain = arcs.durations.T + gain[model.blank_id][None, :]
    gain = _at_frames(gain, model.blank_ways, ahead)
    left = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (ahead, *x.shape)), light)
    parts = [before, left._replace(score=left.score + gain, best=left.best + gain)]
    onwards = [way for way in model.label_ways if way.frames > 0]
    if onwards:
        chosen = np.zeros(ahead, np.int32)
        chosen[[way.frames - 1 for way in onwards]] = [way.place for way in onwards]
        longer = jax.tree.map(lambda x: x[chosen], grown)
        parts.append(longer._replace(score=_at_frames(grown.score, onwards, ahead)))

    def merge(parts, beam):
        found = merged(search.fusion, parts, width)
        both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), beam, opened)
        return found.with_states(both)

    beams = jax.vmap(merge)(parts, beams)
    staying = next((way.place for way in model.label_ways if way.frames == 0), 0)
    staying = jax.tree.map(lambda x: x[staying], grown)
    staying = staying._replace(output=staying.output - width).with_states(opened)
    return beams, staying, nodes


def _at_frames(x: jax.Array, ways: Any, ahead: int) -> jax.Array:
    """Rows of ``[D, W]`` by the number of frames they advance, from 1 on; ``-inf`` if none does."""
    rows = dict((way.frames, x[way.place]) for way in ways)
    nothing = jnp.full_like(x[0], -jnp.inf)
    return jnp.stack([rows.get(frames, nothing) for frames in range(1, ahead + 1)])


def _grown(
    search: Search,
    light: Beam,
    scorer_states: Any,
    arcs: Arcs,
    first_node: jax.Array,
    time: jax.Array,
    grows: jax.Array,
) -> tuple[Beam, Nodes]:
    """The W best hypotheses with one more label, for each duration: ``[D, W]``, and emissions."""
    model, tokens = search.model, arcs.tokens
    width, classes = tokens.shape
    possible = jnp.asarray(~np.isin(np.arange(classes), [*model.blanks]))[None, :]
    possible &= (grows & (light.length < search.bounds.labels))[:, None]
    total = light.score[:, None] + tokens
    scorer_score = jnp.broadcast_to(light.scorer_score[:, None], tokens.shape)
    if search.fusion.scorer is not None:
        added = search.fusion.added(scorer_states, tokens)
        possible &= added > -jnp.inf
        scorer_score += jnp.where(added > -jnp.inf, added, 0)
        total += search.fusion.weight * scorer_score
    total = jnp.where(possible, total, -jnp.inf)
    kept, label = classes, None
    if len(model.label_ways) > 1:
        # The best of each hypothesis, once for all durations.
        kept = min(width, classes)
        total, label = lax.top_k(total, kept)

    def of_way(place, duration):
        # Of equals the first.
        rank, cell = selection.few_of_many((total + duration[:, None]).reshape(-1), width)
        parent, chosen = cell // kept, cell % kept
        if label is not None:
            chosen = label[parent, chosen]
        score = tokens[parent, chosen]
        gain = score + duration[parent]
        before = jax.tree.map(lambda x: x[parent], light)
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
        return longer, before.node, chosen, score, arcs.confidence[parent]

    moves = np.array([way.frames for way in model.label_ways], np.int32)
    places = jnp.arange(len(moves), dtype=jnp.int32)
    longer, parent, *said = jax.vmap(of_way)(places, arcs.durations.T)
    label, score, confidence = said
    emission = Emitted(
        label,
        jnp.broadcast_to(time, label.shape),
        jnp.broadcast_to(jnp.asarray(moves)[:, None], label.shape),
        score,
        confidence,
    )
    nodes = Nodes(parent, emission)
    return longer, jax.tree.map(lambda x: x.reshape(len(moves) * width), nodes)


def predicted(model: Transducer, beam: Beam, scorer: Scorer | None) -> Beam:
    """Hypotheses, with one axis, after the predictor and the scorer have read what waits."""
    new = jax.vmap(model.predictor)(beam.state, jnp.maximum(beam.waiting, 0))
    output, state = _moved(beam.waiting >= 0, new, (beam.output, beam.state))
    return beam._replace(
        output=output,
        state=state,
        scorer_state=scored(beam, scorer),
        waiting=jnp.full_like(beam.waiting, -1),
    )


def scored(beam: Beam, scorer: Scorer | None) -> Any:
    """The scorer's states of hypotheses, with one axis, after it has read what waits."""
    if scorer is None:
        return ()
    after, _ = jax.vmap(scorer.extend)(beam.scorer_state, jnp.maximum(beam.waiting, 0))
    return _moved(beam.waiting >= 0, after, beam.scorer_state)


def _moved(mask: jax.Array, new: Tree, old: Tree) -> Tree:
    def one(mask, new, old):
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), new, old)

    return jax.vmap(one)(mask, new, old)


def merged(fusion: Fusion, parts: list[Beam], width: int) -> Beam:
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
    _, order = lax.top_k(fusion.total(score, every.scorer_score), width)
    return jax.tree.map(lambda x: x[order], every)
