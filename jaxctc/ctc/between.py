"""Between two pieces of a stream: what is sure is handed out, or the scorer changes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.ctc import checks as ctc_checks
from jaxctc.ctc.beam_state import BeamState, ranked
from jaxctc.ctc.prefixes import NOTHING
from jaxctc.ctc.traces import no_runs
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer, classes_of
from jaxctc.language.sequences import read, segment_start, start_states


def ctc_beam_commit(
    state: BeamState,
    *,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> tuple[jax.Array, jax.Array, BeamState]:
    """The labels that all hypotheses of a beam begin with, and the beam without them.

    A stream without end needs no longer hypotheses than its pieces: what is committed frees its
    room among the `max_labels`. Scores and frames still count from the start. If hypotheses agree
    on too little for too long, room runs out, and ``state.beam.full`` is True from there on: a
    hypothesis of more labels may have been better at some frame than all that were kept.

    Args:
      state: What `ctc_beam_extend` returned.
      scorer: The scorer that was given to `ctc_beam_extend`.
      scorer_weight: Likewise.

    Returns:
      The labels, int32 ``[*batch, L]``, padded with -1; the frame of each, likewise, in the best
      alignment of the hypothesis that `ctc_beam_finish` puts first; and the state, for
      `ctc_beam_extend` and `ctc_beam_finish`.

    Raises:
      TypeError: If `state` is not a state.
      ValueError: If `state` was started with another scorer.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> sure = 9.0 * jnp.eye(4)[jnp.array([1, 0, 3])]
      >>> state = jaxctc.ctc_beam_start(beam_width=1, max_labels=4)
      >>> state = jaxctc.ctc_beam_extend(state, sure)
      >>> labels, frames, state = jaxctc.ctc_beam_commit(state)
      >>> print(labels, frames)
      [ 1  3 -1 -1] [ 0  2 -1 -1]
      >>> print(jaxctc.ctc_beam_finish(state).lengths)
      [0]
    """
    ctc_checks.beam_state("state", state)
    weight = ctc_checks.weight(scorer, scorer_weight)
    ctc_checks.scorer_of("state", state, scorer)
    return _commit(state, scorer, weight)


@meshes.jit(trailing=(1,))
def _commit(state, scorer, weight):
    def one(state):
        beam, (width, room) = state.beam, state.labels.shape
        found = ranked(jax.tree.map(lambda x: x[None], state), scorer, weight)
        live, best = found.scores[0] > -jnp.inf, found.order[0, 0]
        place = jnp.arange(room, dtype=jnp.int32)
        agrees = (state.labels == state.labels[best][None, :]) & (
            place[None, :] < beam.length[:, None]
        )
        agrees = jnp.all(agrees | ~live[:, None], axis=0)
        count = jnp.sum(jnp.cumprod(agrees.astype(jnp.int32)), dtype=jnp.int32)
        count = jnp.where(jnp.any(live), count, 0)
        ending = jnp.where(beam.best_blank[best] > beam.best_label[best], 0, width) + best

        def committed(x):
            return jnp.where(place < count, x, -1)

        def rest(x, empty):
            moved = x[:, jnp.minimum(place + count, room - 1)]
            return jnp.where((place + count < room)[None, :], moved, empty)

        beam = beam._replace(length=jnp.where(beam.length < 0, beam.length, beam.length - count))
        kept = state.labels, state.frames, state.runs
        empty = -1, -1, no_runs((), beam.blank.dtype)
        labels, frames, runs = jax.tree.map(rest, kept, empty)
        after = state._replace(
            beam=beam,
            labels=labels,
            frames=frames,
            runs=runs,
            after_segment=state.after_segment & (count == 0),
        )
        return committed(state.labels[best]), committed(state.frames[ending]), after

    for _ in state.frame_count.shape:
        one = jax.vmap(one)
    return one(state)


def ctc_beam_rescore(state: BeamState, *, scorer: Scorer, scorer_state: Any = None) -> BeamState:
    """A beam whose labels another scorer has read, such as one with other hotwords.

    `ctc_beam_extend` with another scorer scores only the labels to come, from the states that
    the scorer before has left. This is right if the states mean the same to both: if only numbers
    differ, such as boosts. The states of other hotwords or words mean other labels. From here on
    the scores are those that the new scorer would have given from the start, or from
    `scorer_state`: then without those of the labels before, also of committed ones, which
    `ctc_beam_commit` alone leaves in. Hypotheses that it forbids leave the beam.

    Args:
      state: What `ctc_beam_extend` or `ctc_beam_commit` returned.
      scorer: The scorer that `ctc_beam_extend` will be given next, of any size.
      scorer_state: If given, its state before the labels that are in the beam, arrays
        ``[*batch, ...]``: `scorer_state` of the labels that were committed. In a segment that began
        with a state, it is that state of the new scorer; after a commit, `scorer_state` of the
        labels that were committed since, with ``state=`` that one.

    Returns:
      The state, for `ctc_beam_extend` and `ctc_beam_finish`.

    Raises:
      TypeError: If `state` is not a state, or `scorer` not a scorer.
      ValueError: If `scorer_state` does not fit, or the scorer reads fewer classes than the beam's
        labels.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> first, then = jaxctc.Hotwords({(1, 2): 1.0}, 4), jaxctc.Hotwords({(3, 1): 2.0}, 4)
      >>> state = jaxctc.ctc_beam_start(beam_width=1, max_labels=4, scorer=first.scorer())
      >>> sure = 9.0 * jnp.eye(4)[jnp.array([3, 1])]
      >>> state = jaxctc.ctc_beam_extend(state, sure, scorer=first.scorer())
      >>> state = jaxctc.ctc_beam_rescore(state, scorer=then.scorer())
      >>> print(jaxctc.ctc_beam_finish(state, scorer=then.scorer()).scorer_scores)
      [2.]
    """
    ctc_checks.beam_state("state", state)
    language_checks.scorer("scorer", scorer, None)
    language_checks.methods("scorer", scorer)
    batch = state.frame_count.shape
    begun = start_states(scorer, batch, scorer_state)
    known, classes = checks.concrete(state.labels), classes_of(scorer)
    if known is not None and classes is not None and known.size and known.max() >= classes:
        raise ValueError(
            f"scorer reads {classes} classes; it must read label {known.max()}, which the beam has."
        )
    # What a state means depends on whether labels were committed, which each sequence knows.
    segment = segment_start(scorer, batch, None if scorer_state is None else begun)
    return _rescore(state, scorer, begun, segment)


@meshes.jit(trailing=(1,))
def _rescore(state, scorer, begun, segment):
    def one(state, begun, segment):
        beam, here = state.beam, state.after_segment
        begun = jax.tree.map(lambda x, y: jnp.where(here, x, y), segment[0], begun)
        first = jnp.where(here, segment[1], 0)
        inside = jnp.arange(state.labels.shape[1], dtype=jnp.int32)[None, :] < beam.length[:, None]
        labels = jnp.where(inside, state.labels, -1)
        states, scores = jax.vmap(lambda labels: read(scorer, labels, begun))(labels)
        scores += first.astype(scores.dtype)
        allowed = scores > -jnp.inf
        if (classes := classes_of(scorer)) is not None:
            allowed &= jnp.all(labels < classes, axis=1)
        allowed |= jnp.isnan(beam.blank)

        def kept(x, nothing=-jnp.inf):
            return jnp.where(allowed, x, nothing)

        beam = beam._replace(
            blank=kept(beam.blank),
            label=kept(beam.label),
            length=kept(beam.length, NOTHING),
            scorer_state=states,
            scorer_score=kept(scores.astype(beam.blank.dtype), 0),
            lost=jnp.full_like(beam.lost, -jnp.inf),  # it was ranked with the other scorer
        )
        return state._replace(beam=beam)

    for _ in state.frame_count.shape:
        one = jax.vmap(one)
    return one(state, begun, segment)
