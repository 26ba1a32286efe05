"""Decoding of transducers, from functions for the predictor and the joint network."""

from collections.abc import Callable
from typing import Any

import jax

from jaxctc.core import checks
from jaxctc.decoding import fusion
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import arguments, beam, greedy
from jaxctc.transducer.arguments import Arguments
from jaxctc.transducer.rounds import Search


def rnnt_greedy_decode(
    joint: Callable[[jax.Array, Any], jax.Array],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    max_symbols: int = 10,
    max_labels: int | None = None,
    monotonic: bool = False,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The labels on the path of best classes: each frame emits labels until the blank is best.

    Both functions are for one hypothesis, without batch axes; `jax.vmap` batches them. They are
    called inside loops, so they must have no side effects: a module may read its parameters,
    and must not use dropout. Call this inside `jax.jit` with the parameters as an argument,
    as a training step: outside, each call compiles again, since JAX can not know that two
    functions are the same.

    Args:
      joint: ``joint(frame [D], output) -> logits [C]``, unnormalised or log-probabilities.
        If classes tie, the first is taken.
      predictor: ``predictor(state, label) -> (output, state)``. The label is an int32 scalar; the
        state has the structure, shapes and dtypes of `initial_state`. The first label it gets
        is the blank, as start symbol; it gets no blank after that.
      initial_state: A pytree of arrays: the predictor's state before the start, for one hypothesis.
      encoder: float ``[*batch, T, D]``, the encoder's output.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      blank_id: The class that is the blank.
      max_symbols: The most labels at one frame; a blank must follow them, and its
        log-probability counts.
      max_labels: The most labels of a sequence, after which only blanks follow; None means
        ``T * max_symbols``, or T if `monotonic`.
      monotonic: Whether a label ends its frame as a blank does, so that every frame has one class
        and `max_symbols` has no effect: for models trained with that topology, or for speed.
      scorer: What is known besides the logits, a `Scorer`: each label's score is added to
        its log-probability before the best class is chosen, and nothing to the blank's.
        Sums are not normalised (shallow fusion).
      scorer_weight: The factor of its scores.
      scorer_state: If given, the scorer's state that each sequence begins with, arrays
        ``[*batch, ...]``, such as `scorer_state` returns for the segment before. Scores count from
        there, as those of `ctc_beam_search`. The predictor begins with `initial_state`.

    Returns:
      `Hypotheses` without an axis N, with L = `max_labels`. ``scores`` is the log-probability
      of that one path, blanks included and the scorer not; ``frames`` are those at which labels
      were emitted; ``scorer_scores`` are not multiplied by the weight.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> def predictor(state, label):  # its output is the label, and it needs no state
      ...     return label, state
      >>> def joint(frame, label):  # the class of the frame, but not the previous label again
      ...     return jnp.where(jnp.arange(4) == label, 0, frame)
      >>> @jax.jit
      ... def decode(encoder):
      ...     return jaxctc.rnnt_greedy_decode(joint, predictor, (), encoder, max_labels=6)
      >>> best = decode(9 * jax.nn.one_hot(jnp.array([0, 2, 3, 0, 1]), 4))
      >>> print(best.labels, best.lengths)
      [ 2  3  1 -1 -1 -1] 3
      >>> print(best.frames)
      [ 1  2  4 -1 -1 -1]

    References:
      Graves 2012, "Sequence transduction with recurrent neural networks", arXiv 1211.3711.
      Tripathi, Lu, Sak, Soltau 2019, "Monotonic recurrent neural network transducer and decoding
      strategies", for `monotonic`.
    """
    given = arguments.checked(
        (joint, predictor, initial_state),
        (encoder, logit_lengths),
        (max_symbols, max_labels),
        (scorer, scorer_weight),
        blank_id=blank_id,
        monotonic=monotonic,
    )
    return greedy_search(given, scorer_state)


def rnnt_beam_search(
    joint: Callable[[jax.Array, Any], jax.Array],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    beam_width: int = 8,
    blank_id: int = 0,
    max_symbols: int = 4,
    max_labels: int | None = None,
    monotonic: bool = False,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The most probable label sequences of a transducer, each summed over its alignments.

    At each frame, up to `max_symbols` rounds append a label to hypotheses, of which the
    `beam_width` best are kept. Hypotheses that leave the frame by a blank, in any round, are merged
    if their labels are equal. A frame ends early once `beam_width` of these are at least as
    probable as each one still in the frame, with the scorer's scores so far. With a wide enough
    beam the scores are exact, for at most `max_symbols` labels per frame; otherwise they are
    lower bounds. Memory grows with the beam times labels, classes and the predictor's state,
    not with frames.

    Args:
      joint: As for `rnnt_greedy_decode`; call this inside `jax.jit` too.
      predictor: Likewise.
      initial_state: Likewise.
      encoder: float ``[*batch, T, D]``, the encoder's output.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      beam_width: How many hypotheses are kept, N.
      blank_id: The class that is the blank.
      max_symbols: The most labels at one frame.
      max_labels: The most labels of a hypothesis; None means ``T * max_symbols``, or T if
        `monotonic`.
      monotonic: Whether a label ends its frame as a blank does: one joint and one predictor
        call per frame.
      scorer: What is known besides the logits, a `Scorer`, such as a language model, or
        `combine` of one and of the transducer's own (`rnnt_internal_lm`) with a negative weight.
      scorer_weight: The factor of its scores.
      scorer_state: As for `rnnt_greedy_decode`.

    Returns:
      `Hypotheses` with N = `beam_width` and L = `max_labels`, sorted by
      ``scores + scorer_weight * scorer_scores``. ``scores`` are log-probabilities of the label
      sequences without the scorer; ``scorer_scores`` are not multiplied by the weight; ``frames``
      are those at which the best alignment found emits the labels. Label sequences after which the
      scorer may not end are not ``complete``; they come last.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxctc
      >>> def predictor(emitted, label):  # the state: has a label been emitted?
      ...     return emitted, jnp.ones_like(emitted)
      >>> def joint(frame, emitted):  # the blank, or a label if it is the first
      ...     return jnp.where(emitted == 1, jnp.array([0.0, -jnp.inf]), frame)
      >>> encoder = jnp.log(jnp.array([[0.75, 0.25], [0.5, 0.5]]))
      >>> @jax.jit
      ... def decode(encoder):
      ...     return jaxctc.rnnt_beam_search(joint, predictor, 0, encoder, beam_width=2)
      >>> best = decode(encoder)
      >>> print(best.labels[:, :1].tolist(), best.frames[:, :1].tolist())
      [[1], [-1]] [[1], [-1]]
      >>> print(np.exp(best.scores).round(3))  # 0.25 + 0.75 * 0.5, and 0.75 * 0.5
      [0.625 0.375]

    References:
      Graves 2012, "Sequence transduction with recurrent neural networks", arXiv 1211.3711,
      algorithm 1.
      Kang, Guo, Kuang, Lin, Luo, Yao, Yang, Żelasko, Povey 2023, "Fast and parallel decoding for
      transducer", arXiv 2211.00484: one symbol per frame, and merging.
    """
    given = arguments.checked(
        (joint, predictor, initial_state),
        (encoder, logit_lengths),
        (max_symbols, max_labels),
        (scorer, scorer_weight),
        blank_id=blank_id,
        monotonic=monotonic,
    )
    return beam_search(given, beam_width, scorer_state)


def greedy_search(given: Arguments, scorer_state: Any) -> Hypotheses:
    """The path of the best arcs."""

    def run(given, score, state):
        begun, room = given.model.begun(given.initial_state), (score.size, given.bounds.labels)
        stream = greedy.start(begun, (state, score), room, given.model.dtype)
        sequences = given.encoder, given.lengths
        stream = greedy.extend(given.model, stream, *sequences, given.bounds, given.fusion)
        return greedy.finish(stream, given.fusion)

    state, score = fusion.start(given.fusion.scorer, given.batch, scorer_state)
    return arguments.searched(run, given, score, state)


def beam_search(given: Arguments, beam_width: Any, scorer_state: Any) -> Hypotheses:
    """The best label sequences, each summed over its paths."""
    beams = given.model.ahead, checks.positive("beam_width", beam_width)

    def run(given, score, state):
        begun, room = given.model.begun(given.initial_state), (score.size, given.bounds.labels)
        stream = beam.start(begun, (state, score), room, beams, given.model.dtype)
        search = Search(given.model, given.bounds, given.fusion)
        stream = beam.search_whole(search, stream, given.encoder, given.lengths)
        return beam.finish(stream, given.fusion)

    state, score = fusion.start(given.fusion.scorer, given.batch, scorer_state)
    return arguments.searched(run, given, score, state)
