"""Greedy search and beam search of transducers.

At frame t and after labels y the joint network gives a distribution over the labels, which
append to y, and the blank, which moves on to frame t + 1 (Graves 2012, arXiv 1211.3711, section 2).

* Greedy: every sequence of a batch is at its own frame, so that one loop serves them all. Its
  number of steps is that of the sequence with the most frames plus labels.
* Beam: frame by frame. *Open* hypotheses are at the frame, and a round appends one more label to
  the best of them; *ended* ones have left it by a blank. Open hypotheses of one round are different
  label sequences, since those of the round before were. Ended ones of two rounds may have equal
  labels, and so the same predictor output; these are merged. As in Graves' algorithm 1, a
  frame is over when W ended hypotheses are at least as probable as any open one would be.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import meshes
from jaxctc.core.recursion import never_positive
from jaxctc.decoding.hashing import prefix_hash
from jaxctc.decoding.hypotheses import Hypotheses

Tree = Any  # a pytree of arrays


class Transducer(NamedTuple):
    """A transducer's functions for one hypothesis, and the start of its predictor."""

    joint: Callable[[jax.Array, Tree], jax.Array]
    predictor: Callable[[Tree, jax.Array], tuple[Tree, Tree]]
    output: Tree  # the predictor's after the start symbol
    state: Tree
    blank_id: int
    dtype: Any  # of log-probabilities

    def log_probs(self, frame: jax.Array, output: Tree) -> jax.Array:
        """Log-probabilities ``[C]``."""
        logits = self.joint(frame, output).astype(self.dtype)
        # If all classes are -inf, log_softmax is NaN, which is only for NaN or +inf in the logits.
        return jnp.where(jnp.max(logits) == -jnp.inf, -jnp.inf, jax.nn.log_softmax(logits))


class Bounds(NamedTuple):
    """The most labels there may be."""

    symbols: int  # per frame, before its blank
    labels: int  # per hypothesis
    monotonic: bool  # a label ends its frame, as a blank does


class Path(NamedTuple):
    """The state of the greedy search in each sequence; all arrays begin with axis B."""

    frame: jax.Array  # int32 [B]
    symbols: jax.Array  # int32 [B]: labels in this frame
    labels: jax.Array  # int32 [B, L]
    frames: jax.Array  # int32 [B, L]
    length: jax.Array  # int32 [B]
    score: jax.Array  # [B]
    output: Tree
    state: Tree


def greedy(model: Transducer, encoder: jax.Array, lengths: jax.Array, bounds: Bounds) -> Hypotheses:
    """The path of the best classes through each sequence of a batch ``[B, T, D]``."""
    batch, frames = encoder.shape[:2]
    row = jnp.arange(batch, dtype=jnp.int32)

    def unfinished(path):
        return jnp.any(path.frame < lengths)

    def step(path):
        active = path.frame < lengths
        frame = encoder[row, jnp.minimum(path.frame, jnp.maximum(lengths - 1, 0))]
        log_probs = jax.vmap(model.log_probs)(frame, path.output)
        room = (path.symbols < bounds.symbols) & (path.length < bounds.labels)
        room &= jnp.max(log_probs, axis=1) != -jnp.inf  # if all classes are -inf, the blank
        choice = jnp.where(room, jnp.argmax(log_probs, axis=1).astype(jnp.int32), model.blank_id)
        gain = jnp.take_along_axis(log_probs, choice[:, None], axis=1)[:, 0]
        emits = active & (choice != model.blank_id)
        ends = active & (bounds.monotonic | ~emits)

        def advanced():
            new = jax.vmap(model.predictor)(path.state, choice)
            return jax.vmap(_where)(emits, new, (path.output, path.state))

        # With few sequences, most steps have blanks only, which the predictor does not read.
        output, state = meshes.cond(jnp.any(emits), advanced, lambda: (path.output, path.state))
        place = jnp.where(emits, path.length, bounds.labels)  # else outside, and dropped
        return Path(
            frame=path.frame + ends.astype(jnp.int32),
            symbols=jnp.where(ends, 0, path.symbols + emits.astype(jnp.int32)),
            labels=path.labels.at[row, place].set(choice, mode="drop"),
            frames=path.frames.at[row, place].set(path.frame, mode="drop"),
            length=path.length + emits.astype(jnp.int32),
            score=path.score + jnp.where(active, gain, 0),
            output=output,
            state=state,
        )

    zeros = jnp.zeros(batch, jnp.int32)
    nothing = jnp.full((batch, bounds.labels), -1, jnp.int32)
    output, state = _repeat((model.output, model.state), batch)
    score = jnp.zeros(batch, model.dtype)
    path = Path(zeros, zeros, nothing, nothing, zeros, score, output, state)
    if frames:
        path = meshes.while_loop(unfinished, step, path)
    return Hypotheses(
        path.labels,
        path.length,
        never_positive(path.score),
        path.frames,
        jnp.zeros_like(score),
        path.score > -jnp.inf,
    )


class Beam(NamedTuple):
    """W hypotheses of one sequence, axis W first. Empty places have the score ``-inf``."""

    score: jax.Array  # log-probability of all alignments found
    best: jax.Array  # log-probability of the best of them
    labels: jax.Array  # int32 [W, L]
    frames: jax.Array  # int32 [W, L]: of the best alignment
    length: jax.Array  # int32
    high: jax.Array  # uint32: the hash of the labels
    low: jax.Array  # uint32: and its second word
    output: Tree
    state: Tree


class Growth(NamedTuple):
    """The W best ways to append a label to hypotheses of a beam, the best first; all ``[W]``."""

    score: jax.Array
    best: jax.Array
    parent: jax.Array  # int32: the place in the beam
    label: jax.Array  # int32


def beam_search(
    model: Transducer, encoder: jax.Array, length: jax.Array, bounds: Bounds, width: int
) -> Hypotheses:
    """The best label sequences of one sequence ``[T, D]``, merged over their alignments."""

    def step(beam, now):
        frame, time = now
        none = beam._replace(score=jnp.full_like(beam.score, -jnp.inf))
        ended, growth = _end_and_rank(model, bounds, frame, beam, none)
        if bounds.monotonic:
            ended = _merge(ended, _grow(model, beam, growth, time))
        else:
            ended = more_symbols(frame, time, beam, growth, ended)
        # A frame past the end changes nothing.
        return _where(time < length, ended, beam), None

    def more_symbols(frame, time, beam, growth, ended):
        def unfinished(carry):
            symbols, _, growth, ended = carry
            return (symbols < bounds.symbols) & (growth.score[0] > ended.score[-1])

        def another(carry):
            symbols, opened, growth, ended = carry
            opened = _grow(model, opened, growth, time)
            ended, growth = _end_and_rank(model, bounds, frame, opened, ended)
            return symbols + 1, opened, growth, ended

        return meshes.while_loop(unfinished, another, (jnp.int32(0), beam, growth, ended))[-1]

    beam = _start(model, width, bounds.labels)
    times = jnp.arange(encoder.shape[0], dtype=jnp.int32)
    beam, _ = meshes.scan(step, beam, (encoder, times))
    exists = beam.score != -jnp.inf
    length = jnp.where(exists, beam.length, 0)
    inside = jnp.arange(bounds.labels, dtype=jnp.int32)[None, :] < length[:, None]
    return Hypotheses(
        jnp.where(inside, beam.labels, -1),
        length,
        never_positive(beam.score),  # only here, since it would change the ranks
        jnp.where(inside, beam.frames, -1),
        jnp.zeros_like(beam.score),
        exists & ~jnp.isnan(beam.score),
    )


def _start(model: Transducer, width: int, max_labels: int) -> Beam:
    """A beam of the hypothesis without labels and W - 1 empty places."""
    score = jnp.where(jnp.arange(width, dtype=jnp.int32) == 0, jnp.zeros((), model.dtype), -jnp.inf)
    labels = jnp.full((width, max_labels), -1, jnp.int32)
    word = jnp.zeros(width, jnp.uint32)
    output, state = _repeat((model.output, model.state), width)
    length = jnp.zeros(width, jnp.int32)
    return Beam(score, score, labels, labels, length, word, word, output, state)


def _end_and_rank(
    model: Transducer, bounds: Bounds, frame: jax.Array, opened: Beam, ended: Beam
) -> tuple[Beam, Growth]:
    """Ends open hypotheses by a blank, and ranks the labels that may be appended instead."""
    width = opened.score.size
    every = jax.vmap(model.log_probs, (None, 0), axis_size=width)  # the output may be empty
    log_probs = every(frame, opened.output)
    classes = log_probs.shape[1]
    blank = log_probs[:, model.blank_id]
    left = opened._replace(score=opened.score + blank, best=opened.best + blank)

    is_label = jnp.arange(classes, dtype=jnp.int32) != model.blank_id
    room = opened.length < bounds.labels
    score = opened.score[:, None] + log_probs
    score = jnp.where(is_label[None, :] & room[:, None], score, -jnp.inf)
    score, cell = lax.top_k(score.reshape(-1), width)
    best = (opened.best[:, None] + log_probs).reshape(-1)[cell]
    return _merge(ended, left), Growth(score, best, cell // classes, cell % classes)


def _grow(model: Transducer, beam: Beam, growth: Growth, time: jax.Array) -> Beam:
    """The hypotheses with their new labels."""
    before = jax.tree.map(lambda x: x[growth.parent], beam)
    output, state = jax.vmap(model.predictor)(before.state, growth.label)
    place = jnp.arange(growth.label.size, dtype=jnp.int32), before.length
    high, low = prefix_hash(before.high, before.low, growth.label)
    return Beam(
        score=growth.score,
        best=growth.best,
        labels=before.labels.at[place].set(growth.label, mode="drop"),
        frames=before.frames.at[place].set(time, mode="drop"),
        length=before.length + 1,
        high=high,
        low=low,
        output=output,
        state=state,
    )


def _merge(ended: Beam, fresh: Beam) -> Beam:
    """The best of two beams, with equal label sequences summed; ties go to the first beam."""
    same = ended.length[:, None] == fresh.length[None, :]
    same &= ended.high[:, None] == fresh.high[None, :]
    same &= ended.low[:, None] == fresh.low[None, :]
    same &= (ended.score > -jnp.inf)[:, None] & (fresh.score > -jnp.inf)[None, :]
    # Each beam's hypotheses differ, so there is at most one to add.
    found = jnp.max(jnp.where(same, fresh.score[None, :], -jnp.inf), axis=1)
    rival = jnp.where(same, fresh.best[None, :], -jnp.inf)
    better = jnp.max(rival, axis=1) > ended.best
    frames = fresh.frames[jnp.argmax(rival, axis=1)]
    ended = ended._replace(
        score=jnp.logaddexp(ended.score, found),
        best=jnp.maximum(ended.best, jnp.max(rival, axis=1)),
        frames=jnp.where(better[:, None], frames, ended.frames),
    )
    fresh = fresh._replace(score=jnp.where(jnp.any(same, axis=0), -jnp.inf, fresh.score))
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), ended, fresh)
    _, order = lax.top_k(both.score, ended.score.size)
    return jax.tree.map(lambda x: x[order], both)


def _where(mask: jax.Array, new: Tree, old: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(mask, x, y), new, old)


def _repeat(tree: Tree, times: int) -> Tree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (times, *jnp.shape(x))), tree)
