"""The state of a prefix beam search: its start, its extension by frames, its hypotheses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import meshes
from jaxctc.core.recursion import never_positive
from jaxctc.ctc import prefix_search, prefixes
from jaxctc.ctc.frames import frames_of, skip_blanks
from jaxctc.ctc.prefixes import Beam, Search
from jaxctc.ctc.traces import Alignments, Runs, extended, no_runs, trace_back, unmoved
from jaxctc.decoding import fusion
from jaxctc.decoding.fusion import Fusion
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer


class BeamState(NamedTuple):
    """A beam search between two pieces of an utterance. Every array has the leading batch axes.

    Attributes:
      beam: The prefixes and their probabilities, ``[*batch, W]``.
      labels: int32 ``[*batch, W, L]``: the labels of each prefix, -1 past its length.
      frames: int32 ``[*batch, 2 W, L]``: where each label is in the best alignment; of those that
        end in a blank, then of the others.
      frame_count: int32 ``[*batch]``: how many frames were read.
      runs: ``[*batch, 2 W, L]``: of each label its run of frames and its scores, as `frames`.
      after_segment: bool ``[*batch]``: do the labels begin where another segment ended, or is it
        unknown? False if the search began with a scorer's start, or labels before these have been
        handed out.
    """

    beam: Beam
    labels: jax.Array
    frames: jax.Array
    frame_count: jax.Array
    runs: Runs
    after_segment: jax.Array


class Settings(NamedTuple):
    """How a search is done, beside its scorer."""

    blank_id: int
    prune: int | None  # labels that are possible at a frame
    beam_threshold: jax.Array | None
    class_threshold: jax.Array | None
    blank_skip: jax.Array | None  # a probability


class Ranked(NamedTuple):
    """The hypotheses of beams, ``[B, W]``, and their order."""

    scores: jax.Array  # log-probabilities
    scorer_scores: jax.Array  # with those of the end
    complete: jax.Array  # bool
    order: jax.Array  # int32: their places, the best first
    exists: jax.Array  # bool, in this order


def start(
    width: int,
    max_labels: int,
    dtype,
    begun: tuple[Any, jax.Array],
    after_segment: bool = False,
) -> BeamState:
    """A search before the first frame; `begun` has the scorer's states and scores of a batch."""
    batch = begun[1].shape[0]
    return BeamState(
        prefixes.start(width, dtype, *begun),
        jnp.full((batch, width, max_labels), -1, jnp.int32),
        jnp.full((batch, 2 * width, max_labels), -1, jnp.int32),
        jnp.zeros(batch, jnp.int32),
        no_runs((batch, 2 * width, max_labels), dtype),
        jnp.full(batch, after_segment),
    )


def extend(
    state: BeamState,
    logits: jax.Array,
    lengths: jax.Array,
    scorer: Scorer | None,
    weight: jax.Array,
    settings: Settings,
    capped: bool,
) -> BeamState:
    width, max_labels = state.labels.shape[1:]
    inside = jnp.arange(logits.shape[1], dtype=jnp.int32)[None, :] < lengths[:, None]
    prune = settings.prune is not None and min(settings.prune, logits.shape[2] - 1)
    # Without a scorer, `candidates` considers no more labels than these. With one, any label
    # may be the best.
    labels = prune or (width + 1 if scorer is None else None)
    threshold = _as(settings.class_threshold, logits.dtype)
    frames = frames_of(logits, inside, labels, settings.blank_id, bool(prune), threshold, capped)
    chosen = None
    if frames.top_labels is not None and scorer is None:
        # A prefix of `max_labels` labels has no longer ones, so the bound in `candidates` fails.
        chosen = prefix_search.candidates(width, frames.top_labels.shape[2], capped)
    search = Search(
        chosen,
        max_labels,
        capped,
        scorer,
        weight.astype(logits.dtype),
        _as(settings.beam_threshold, logits.dtype),
    )

    def step(beam, frame):
        return prefix_search.step(beam, frame, search)

    number = jnp.arange(inside.shape[1], dtype=jnp.int32)[:, None]
    if settings.blank_skip is not None:
        frames, number = skip_blanks(frames, settings.blank_skip)
        step = _where_any_is_inside(step)
    beam, traces = meshes.scan(step, state.beam, frames)
    found = trace_back(traces, frames, beam.length)
    after = _append(state, beam, found, state.frame_count[None] + number)
    return after._replace(frame_count=state.frame_count + lengths)


def _where_any_is_inside(step: Callable) -> Callable:
    """A step that takes no time at a frame that no sequence has."""

    def nothing(beam, _):
        return beam, unmoved(beam.last)

    return lambda beam, frame: meshes.cond(jnp.any(frame.inside), step, nothing, beam, frame)


def _as(x: jax.Array | None, dtype) -> jax.Array | None:
    return None if x is None else x.astype(dtype)


def _append(state: BeamState, beam: Beam, found: Alignments, number: jax.Array) -> BeamState:
    """The state with the labels that began appended to those at their origin.

    `number` has the numbers of the frames, [T, B].
    """
    width, max_labels = state.labels.shape[1:]
    before = jnp.concatenate([state.beam.length] * 2, axis=1)
    before = jnp.take_along_axis(before, found.origin, axis=1)[:, :, None]
    row = jnp.arange(before.shape[0], dtype=jnp.int32)[:, None, None]
    column = jnp.arange(2 * width, dtype=jnp.int32)[None, :, None]
    slot = jnp.arange(max_labels, dtype=jnp.int32)[None, None, :]

    # Of each label, at which of these frames it begins, -1 if at none: one scatter for all.
    place = jnp.where(found.begun >= 0, found.place, max_labels).transpose(1, 2, 0)
    time = jnp.arange(number.shape[0], dtype=jnp.int32)[None, None, :]
    at = jnp.full((*before.shape[:2], max_labels), -1, jnp.int32)
    at = at.at[row, column, place].set(time, mode="drop")
    new, at = at >= 0, jnp.maximum(at, 0)

    def old(x):
        return jnp.take_along_axis(x, found.origin[:, :, None], axis=1)

    def begun(x):
        return x[at, row, column]

    # The label that had begun before goes on at the first frames.
    merged = extended(jax.tree.map(old, state.runs), slot == before - 1, found.first)
    labels = old(jnp.concatenate([state.labels] * 2, axis=1))
    if number.shape[0]:
        labels = jnp.where(new, begun(found.begun), labels)
        frames = jnp.where(new, number[at, row], old(state.frames))
        runs = jax.tree.map(lambda x, y: jnp.where(new, begun(x), y), found.runs, merged)
    else:
        frames, runs = old(state.frames), merged
    # The alignments of both endings have the prefix's labels, but one of them may not exist.
    blank_ending = (beam.best_blank > beam.best_label)[:, :, None]
    labels = jnp.where(blank_ending, labels[:, :width], labels[:, width:])
    return state._replace(beam=beam, labels=labels, frames=frames, runs=runs)


def ranked(state: BeamState, scorer: Scorer | None, weight: jax.Array) -> Ranked:
    """The hypotheses if the utterances end here."""
    beam = state.beam
    scores = jnp.logaddexp(beam.blank, beam.label)
    share, complete = fusion.ended(scorer, beam.scorer_state, beam.scorer_score)
    complete &= scores > -jnp.inf
    total = Fusion(scorer, weight.astype(share.dtype)).total(scores, share)
    return Ranked(scores, share, complete, *jax.vmap(fusion.order)(scores, total, complete))


def finish(state: BeamState, scorer: Scorer | None, weight: jax.Array) -> Hypotheses:
    width, max_labels = state.labels.shape[1:]
    beam = state.beam
    scores, share, complete, order, exists = ranked(state, scorer, weight)

    def take(x):
        return jnp.take_along_axis(x, order, axis=1)

    place = jnp.arange(width, dtype=jnp.int32)[None, :]
    ending = jnp.where(beam.best_blank > beam.best_label, 0, width) + place
    frames, runs = jax.tree.map(
        lambda x: jnp.take_along_axis(x, take(ending)[:, :, None], axis=1),
        (state.frames, state.runs),
    )
    labels = jnp.take_along_axis(state.labels, order[:, :, None], axis=1)
    lengths = jnp.where(exists, take(beam.length), 0)
    inside = jnp.arange(max_labels, dtype=jnp.int32)[None, None, :] < lengths[:, :, None]
    return Hypotheses(
        jnp.where(inside, labels, -1),
        lengths,
        # Clipped only here, since it would change the ranks.
        never_positive(jnp.where(exists | jnp.isnan(scores), take(scores), -jnp.inf)),
        jnp.where(inside, frames, -1),
        jnp.where(exists, take(share), 0),
        take(complete),
        jnp.where(inside, runs.durations, 0),
        jnp.where(inside, runs.scores, 0),
        jnp.where(inside, runs.confidences, 0),
        jnp.broadcast_to(beam.full[:, None], lengths.shape),
    )
