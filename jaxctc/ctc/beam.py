"""Prefix beam search over whole utterances, or over a stream of pieces."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import wide, widen
from jaxctc.ctc import beam_state
from jaxctc.ctc import checks as ctc_checks
from jaxctc.ctc.beam_state import BeamState, Settings
from jaxctc.decoding import fusion
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer


def ctc_beam_search(
    logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    beam_width: int = 16,
    blank_id: int = 0,
    max_labels: int | None = None,
    prune_classes: int | None = None,
    beam_threshold: checks.ArrayLike | None = None,
    class_threshold: checks.ArrayLike | None = None,
    blank_skip_threshold: checks.ArrayLike | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The most probable label sequences, each summed over its alignments.

    A prefix beam search: after every frame the `beam_width` best prefixes are kept, and equal
    prefixes are merged. With a wide enough beam the scores are exact; otherwise they are
    lower bounds, since alignments through a prefix that left the beam are lost.
    Time grows with the beam, and hardly with the number of classes.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      beam_width: How many prefixes are kept, N.
      blank_id: The class that is the blank.
      max_labels: The most labels of a hypothesis; None means T.
      prune_classes: If given, only this number of best labels, and the blank, are possible at
        each frame; the others get probability 0 there. With a scorer and many classes this
        saves most of the time; without one, the search itself skips labels that cannot matter.
      beam_threshold: If given, prefixes that are further below the best, in log-probability and
        weighted score, leave the beam after each frame.
      class_threshold: If given, labels that are further below the best class of a frame, in
        log-probability, get probability 0 there.
      blank_skip_threshold: If given, no label is possible at a frame where the blank has at least
        this probability, and the search skips such frames, all but one in a row. Time falls
        with the frames that are left, in the sequence that has most of them.
      scorer: What is known besides the logits, a `Scorer` such as `jaxctc.language` has.
      scorer_weight: The factor of its scores.
      scorer_state: If given, the scorer's state that each sequence begins with, arrays
        ``[*batch, ...]``, such as `scorer_state` returns for the segment before. Scores count from
        there, so that those of all segments add up to that of the whole.

    Returns:
      `Hypotheses` with N = `beam_width` and L = `max_labels`, sorted by
      ``scores + scorer_weight * scorer_scores``. ``scores`` are log-probabilities of the label
      sequences without the scorer; ``scorer_scores`` are not multiplied by the weight;
      ``frames`` are the first frame of each label in the best alignment. Label sequences
      after which the scorer may not end are not ``complete``; they come last. ``full`` says that
      `max_labels` was too small. If a sequence's own logits contain NaN or ``+inf``, it has no
      hypotheses and its ``scores`` are NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
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
    logits, lengths = checks.logits_with_lengths(logits, logit_lengths)
    frames, classes = logits.shape[-2:]
    blank_id = checks.class_id("blank_id", blank_id, classes)
    width = checks.positive("beam_width", beam_width)
    most = frames if max_labels is None else checks.positive("max_labels", max_labels)
    prune = None if prune_classes is None else checks.positive("prune_classes", prune_classes)
    weight = ctc_checks.weight(scorer, scorer_weight, classes, blank_id)
    begun = fusion.start(scorer, lengths.shape, scorer_state)
    thresholds = ctc_checks.thresholds(beam_threshold, class_threshold, blank_skip_threshold)
    settings = width, blank_id, most, prune
    return _beam_search(logits, lengths, scorer, begun, weight, thresholds, settings)


def ctc_beam_start(
    *,
    batch: tuple[int, ...] = (),
    beam_width: int = 16,
    max_labels: int,
    dtype: Any = jnp.float32,
    scorer: Scorer | None = None,
    scorer_state: Any = None,
) -> BeamState:
    """The state of a beam search before the first frame.

    Args:
      batch: Leading batch dimensions of the logits to come.
      beam_width: How many prefixes are kept.
      max_labels: The most labels of a hypothesis, over all pieces.
      dtype: The dtype of the logits to come; half precision is computed in float32.
      scorer: The scorer that `ctc_beam_extend` will be given, if any.
      scorer_state: As for `ctc_beam_search`.

    Returns:
      `BeamState`, for `ctc_beam_extend`.

    Examples:
      >>> import jaxctc
      >>> state = jaxctc.ctc_beam_start(batch=(2,), beam_width=4, max_labels=100)
      >>> state.labels.shape
      (2, 4, 100)
    """
    width = checks.positive("beam_width", beam_width)
    most = checks.positive("max_labels", max_labels)
    batch = checks.batch_shape("batch", batch)
    dtype = checks.floating("dtype", dtype)
    ctc_checks.weight(scorer, 1.0)
    begun = _flatten(fusion.start(scorer, batch, scorer_state), batch)
    after_segment = scorer is None or scorer_state is not None
    return _unflatten(beam_state.start(width, most, wide(dtype), begun, after_segment), batch)


def ctc_beam_extend(
    state: BeamState,
    logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    prune_classes: int | None = None,
    beam_threshold: checks.ArrayLike | None = None,
    class_threshold: checks.ArrayLike | None = None,
    blank_skip_threshold: checks.ArrayLike | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> BeamState:
    """Continues a beam search with more frames of the same sequences.

    However an utterance is cut into pieces, the result is bit for bit that of `ctc_beam_search`,
    whose arguments these are. Use pieces of few different lengths, since each
    length is compiled: `logit_lengths` says how many frames of a piece belong to each
    sequence, 0 once it is over.

    Examples:
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
    logits, lengths = checks.logits_with_lengths(logits, logit_lengths)
    blank_id = checks.class_id("blank_id", blank_id, logits.shape[-1])
    ctc_checks.beam_state("state", state)
    if state.frame_count.shape != lengths.shape:
        raise ValueError(
            f"state has batch shape {state.frame_count.shape}; it must be {lengths.shape}."
        )
    if state.beam.blank.dtype != wide(logits.dtype):
        raise TypeError(
            f"state has dtype {state.beam.blank.dtype}; it must be {wide(logits.dtype)}, "
            "the dtype in which the logits are computed."
        )
    prune = None if prune_classes is None else checks.positive("prune_classes", prune_classes)
    weight = ctc_checks.weight(scorer, scorer_weight, logits.shape[-1], blank_id)
    ctc_checks.scorer_of("state", state, scorer)
    thresholds = ctc_checks.thresholds(beam_threshold, class_threshold, blank_skip_threshold)
    return _beam_extend(state, logits, lengths, scorer, weight, thresholds, blank_id, prune)


def ctc_beam_finish(
    state: BeamState,
    *,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> Hypotheses:
    """The hypotheses of a beam search if the utterance ends here. The state can still be extended.

    Args:
      state: What `ctc_beam_extend` returned.
      scorer: The scorer that was given to `ctc_beam_extend`.
      scorer_weight: Likewise.

    Returns:
      `Hypotheses`, as from `ctc_beam_search`.

    Examples:
      >>> import jax, jaxctc
      >>> state = jaxctc.ctc_beam_start(beam_width=4, max_labels=12)
      >>> for step in range(3):
      ...     piece = jax.random.normal(jax.random.key(step), (4, 5))
      ...     state = jaxctc.ctc_beam_extend(state, piece)
      ...     so_far = jaxctc.ctc_beam_finish(state)
      >>> so_far.labels.shape
      (4, 12)
    """
    ctc_checks.beam_state("state", state)
    weight = ctc_checks.weight(scorer, scorer_weight)
    ctc_checks.scorer_of("state", state, scorer)
    return _beam_finish(state, scorer, weight)


@meshes.jit(trailing=(2, 0), static_argnums=6)
def _beam_search(logits, lengths, scorer, begun, weight, thresholds, settings):
    batch, frames = logits.shape[:-2], logits.shape[-2]
    width, blank_id, max_labels, prune = settings
    logits, begun = _flat_logits(logits, lengths), _flatten(begun, batch)
    state = beam_state.start(width, max_labels, logits.dtype, begun)
    settings = Settings(blank_id, prune, *thresholds)
    state = beam_state.extend(
        state, logits, lengths.reshape(-1), scorer, weight, settings, max_labels < frames
    )
    return _unflatten(beam_state.finish(state, scorer, weight), batch)


@meshes.jit(trailing=(1, 2, 0), static_argnums=(6, 7))
def _beam_extend(state, logits, lengths, scorer, weight, thresholds, blank_id, prune):
    batch = state.frame_count.shape
    logits = _flat_logits(logits, lengths)
    state = _flatten(state, batch)
    settings = Settings(blank_id, prune, *thresholds)
    state = beam_state.extend(state, logits, lengths.reshape(-1), scorer, weight, settings, True)
    return _unflatten(state, batch)


@meshes.jit(trailing=(1,))
def _beam_finish(state, scorer, weight):
    batch = state.frame_count.shape
    return _unflatten(beam_state.finish(_flatten(state, batch), scorer, weight), batch)


def _flat_logits(logits, lengths):
    return widen(logits).reshape(lengths.size, *logits.shape[-2:])


def _flatten(tree, batch):
    return jax.tree.map(lambda x: x.reshape(math.prod(batch), *x.shape[len(batch) :]), tree)


def _unflatten(tree, batch):
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), tree)
