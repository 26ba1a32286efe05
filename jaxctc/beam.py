"""Prefix beam search over whole utterances or over pieces of them as they come."""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc import checks, prefix_search
from jaxctc.automaton import Automaton
from jaxctc.decode import Hypotheses
from jaxctc.prefix_search import Beam


class BeamState(NamedTuple):
    """A beam search between two pieces of an utterance. Every array has the leading batch axes."""

    beam: Beam  # the prefixes and their probabilities, [*batch, W]
    labels: jax.Array  # int32 [*batch, W, L]
    frames: jax.Array  # int32 [*batch, 2 W, L]: of the best alignments, blank-ending first
    frame_count: jax.Array  # int32 [*batch]


def ctc_beam_search(
    logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    beam_width: int = 16,
    blank_id: int = 0,
    max_labels: int | None = None,
    prune_classes: int | None = None,
    automaton: Automaton | None = None,
    automaton_weight: checks.ArrayLike = 1.0,
) -> Hypotheses:
    """The most probable label sequences, each summed over its alignments.

    A prefix beam search: after every frame the `beam_width` best prefixes stay, and prefixes that
    are equal are merged, so with a beam that is wide enough the scores are exact. They are
    lower bounds otherwise, since alignments through a prefix which left the beam are lost.
    What it costs grows with the beam and hardly with the number of classes.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      beam_width: How many prefixes are kept, N.
      blank_id: The class that is the blank.
      max_labels: The most labels of a hypothesis; None means T.
      prune_classes: If given, only so many labels are possible at a frame, the best ones, and
        the blank; the others get probability 0 there. With an automaton and many classes this
        saves most of the time; without one, the search leaves out what cannot matter by itself.
      automaton: A language model or constraint, as `jaxctc.lm` and `jaxctc.constraints` build them.
      automaton_weight: What its scores are multiplied by.

    Returns:
      `Hypotheses` with N = `beam_width` and L = `max_labels`, sorted by ``scores +
      automaton_weight * automaton_scores``. ``scores`` are log-probabilities of the label
      sequences without the automaton; ``automaton_scores`` are not multiplied by the weight;
      ``frames`` are the first frame of each label in the best alignment. Sequences in
      which the automaton may not end are left out.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Example:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> probabilities = jnp.array([[0.6, 0.4], [0.6, 0.4]])  # blank and one label
      >>> print(jaxctc.ctc_greedy_decode(jnp.log(probabilities)).labels)
      [-1 -1]
      >>> best = jaxctc.ctc_beam_search(jnp.log(probabilities), beam_width=2)
      >>> print(best.labels)
      [[ 1 -1]
       [-1 -1]]
      >>> print(np.exp(best.scores).round(3))  # 0.4 * 0.4 + 2 * 0.4 * 0.6, and 0.6 * 0.6
      [0.64 0.36]

    References:
      Graves 2008, "Supervised sequence labelling with recurrent neural networks", section 7.5.
      Hannun, Maas, Jurafsky, Ng 2014, "First-pass large vocabulary continuous speech recognition
      using bi-directional recurrent DNNs".
    """
    logits, lengths, blank_id = _checked(logits, logit_lengths, blank_id)
    frames, classes = logits.shape[-2:]
    width = checks.positive("beam_width", beam_width)
    most = frames if max_labels is None else checks.positive("max_labels", max_labels)
    prune = None if prune_classes is None else checks.positive("prune_classes", prune_classes)
    weight = _weight(automaton, automaton_weight, classes)
    return _beam_search(logits, lengths, automaton, weight, width, blank_id, most, prune)


def ctc_beam_start(
    batch: tuple[int, ...] = (), *, beam_width: int = 16, max_labels: int, dtype: Any = jnp.float32
) -> BeamState:
    """The state of a beam search before the first frame.

    Args:
      batch: Leading batch dimensions of the logits to come.
      beam_width: How many prefixes are kept.
      max_labels: The most labels of a hypothesis, over all pieces.
      dtype: float32, or float64 if the logits will be of it.

    Returns:
      `BeamState`, for `ctc_beam_extend`.
    """
    width = checks.positive("beam_width", beam_width)
    most = checks.positive("max_labels", max_labels)
    return _unflatten(_start(_size(batch), width, most, jnp.dtype(dtype)), tuple(batch))


def ctc_beam_extend(
    state: BeamState,
    logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    prune_classes: int | None = None,
    automaton: Automaton | None = None,
    automaton_weight: checks.ArrayLike = 1.0,
) -> BeamState:
    """A beam search after more frames of the same sequences.

    However an utterance is cut into pieces, the end is the same, bit for bit, and the same as
    that of `ctc_beam_search`, whose arguments these are. Pieces of few different lengths
    are best, since each length is compiled once: `logit_lengths` says how many frames of a piece
    belong to each sequence, 0 where it is over.

    Example:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> logits = jax.random.normal(jax.random.key(0), (12, 5))
      >>> state = jaxctc.ctc_beam_start(beam_width=4, max_labels=12)
      >>> for piece in jnp.split(logits, 3):
      ...     state = jaxctc.ctc_beam_extend(state, piece)
      >>> streamed = jaxctc.ctc_beam_finish(state)
      >>> whole = jaxctc.ctc_beam_search(logits, beam_width=4)
      >>> bool((streamed.scores == whole.scores).all())
      True
    """
    logits, lengths, blank_id = _checked(logits, logit_lengths, blank_id)
    if state.frame_count.shape != lengths.shape:
        raise ValueError(
            f"state has batch shape {state.frame_count.shape}; it must be {lengths.shape}."
        )
    prune = None if prune_classes is None else checks.positive("prune_classes", prune_classes)
    weight = _weight(automaton, automaton_weight, logits.shape[-1])
    return _beam_extend(state, logits, lengths, automaton, weight, blank_id, prune)


def ctc_beam_finish(
    state: BeamState,
    *,
    automaton: Automaton | None = None,
    automaton_weight: checks.ArrayLike = 1.0,
) -> Hypotheses:
    """The hypotheses of a beam search as if the utterance ended here. The state stays usable."""
    return _beam_finish(state, automaton, _weight(automaton, automaton_weight, None))


def _checked(logits, logit_lengths, blank_id):
    logits = checks.logits_array("logits", logits)
    *batch, frames, classes = logits.shape
    lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)
    return logits, lengths, checks.class_id("blank_id", blank_id, classes)


def _weight(automaton: Automaton | None, weight: checks.ArrayLike, classes: int | None):
    weight = jnp.asarray(weight)
    if weight.ndim:
        raise ValueError(f"automaton_weight has shape {weight.shape}; it must be one number.")
    if automaton is not None and classes is not None and automaton.score.shape[1] != classes:
        raise ValueError(
            f"automaton reads {automaton.score.shape[1]} classes; it must be {classes}."
        )
    return weight


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _beam_search(logits, lengths, automaton, weight, width, blank_id, max_labels, prune):
    batch, frames = logits.shape[:-2], logits.shape[-2]
    logits = _flat_logits(logits, lengths)
    state = _start(logits.shape[0], width, max_labels, logits.dtype)
    state = _extend(
        state, logits, lengths.reshape(-1), automaton, weight, blank_id, prune, max_labels < frames
    )
    return _unflatten(_finish(state, automaton, weight), batch)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _beam_extend(state, logits, lengths, automaton, weight, blank_id, prune):
    batch = state.frame_count.shape
    logits = _flat_logits(logits, lengths)
    state = _flatten(state, batch)
    lengths = lengths.reshape(-1)
    state = _extend(state, logits, lengths, automaton, weight, blank_id, prune, True)
    return _unflatten(state, batch)


@jax.jit
def _beam_finish(state, automaton, weight):
    batch = state.frame_count.shape
    return _unflatten(_finish(_flatten(state, batch), automaton, weight), batch)


def _size(batch) -> int:
    return functools.reduce(operator.mul, batch, 1)


def _flat_logits(logits, lengths):
    logits = logits.reshape(lengths.size, *logits.shape[-2:])
    return logits if logits.dtype == jnp.float64 else logits.astype(jnp.float32)


def _flatten(state: BeamState, batch) -> BeamState:
    return jax.tree.map(lambda x: x.reshape(_size(batch), *x.shape[len(batch) :]), state)


def _unflatten(tree, batch):
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), tree)


def _start(batch: int, width: int, max_labels: int, dtype) -> BeamState:
    return BeamState(
        prefix_search.start(batch, width, dtype),
        jnp.full((batch, width, max_labels), -1, jnp.int32),
        jnp.full((batch, 2 * width, max_labels), -1, jnp.int32),
        jnp.zeros(batch, jnp.int32),
    )


def _extend(state, logits, lengths, automaton, weight, blank_id, prune, capped) -> BeamState:
    width, max_labels = state.labels.shape[1:]
    inside = jnp.arange(logits.shape[1])[None, :] < lengths[:, None]
    prune = prune is not None and min(prune, logits.shape[2] - 1)
    # Without an automaton a prefix needs no more labels than `candidates` looks at. With one
    # any label may be the best.
    labels = prune or (width + 1 if automaton is None else None)
    frames = prefix_search.frames(logits, inside, labels, blank_id, bool(prune))
    # A prefix that is as long as it may be has no longer ones to beat others with.
    every = automaton is not None or capped
    chosen = prefix_search.candidates(width, frames.top_labels.shape[2], every)
    weight = weight.astype(logits.dtype)

    def step(beam, frame):
        return prefix_search.step(beam, frame, chosen, max_labels, automaton, weight)

    beam, traces = lax.scan(step, state.beam, frames)
    begun, origin = prefix_search.trace_back(traces)
    return _append(state, beam, begun, origin)._replace(frame_count=state.frame_count + lengths)


def _append(state: BeamState, beam: Beam, begun: jax.Array, origin: jax.Array) -> BeamState:
    """The state with labels that began, [T, B, 2 W], after those of the places of origin."""
    width, max_labels = state.labels.shape[1:]
    before = jnp.concatenate([state.beam.length] * 2, axis=1)
    before = jnp.take_along_axis(before, origin, axis=1)
    count = jnp.cumsum(begun >= 0, axis=0, dtype=jnp.int32)
    place = jnp.where(begun >= 0, before[None] + count - 1, max_labels)
    place = place.transpose(1, 2, 0)  # [B, 2 W, T]
    row = jnp.arange(place.shape[0])[:, None, None]
    column = jnp.arange(2 * width)[None, :, None]

    def written(old, new):
        old = jnp.take_along_axis(old, origin[:, :, None], axis=1)
        return old.at[row, column, place].set(new, mode="drop")

    labels = written(jnp.concatenate([state.labels] * 2, axis=1), begun.transpose(1, 2, 0))
    frame = jnp.arange(begun.shape[0], dtype=jnp.int32)[None, None, :]
    frames = written(state.frames, state.frame_count[:, None, None] + frame)
    # Both endings of a prefix have its labels, but one may be impossible.
    blank_ending = (beam.best_blank > beam.best_label)[:, :, None]
    labels = jnp.where(blank_ending, labels[:, :width], labels[:, width:])
    return BeamState(beam, labels, frames, state.frame_count)


def _finish(state: BeamState, automaton: Automaton | None, weight: jax.Array) -> Hypotheses:
    width, max_labels = state.labels.shape[1:]
    beam = state.beam
    scores, share = jnp.logaddexp(beam.blank, beam.label), beam.automaton_score
    rank = scores
    if automaton is not None:
        final = automaton.final[beam.automaton_state]
        share = jnp.where(final > -jnp.inf, share + final.astype(share.dtype), -jnp.inf)
        usable = (share > -jnp.inf) & (scores > -jnp.inf)
        rank = scores + weight.astype(share.dtype) * jnp.where(usable, share, 0)
        rank = jnp.where(usable, rank, -jnp.inf)
    rank, order = lax.top_k(rank, width)
    exists = rank > -jnp.inf

    def take(x):
        return jnp.take_along_axis(x, order, axis=1)

    place = jnp.arange(width, dtype=jnp.int32)[None, :]
    ending = jnp.where(beam.best_blank > beam.best_label, 0, width) + place
    frames = jnp.take_along_axis(state.frames, take(ending)[:, :, None], axis=1)
    labels = jnp.take_along_axis(state.labels, order[:, :, None], axis=1)
    lengths = jnp.where(exists, take(beam.length), 0)
    inside = jnp.arange(max_labels)[None, None, :] < lengths[:, :, None]
    return Hypotheses(
        jnp.where(inside, labels, -1),
        lengths,
        jnp.where(exists, take(scores), -jnp.inf),
        jnp.where(inside, frames, -1),
        jnp.where(exists, take(share), 0),
    )
