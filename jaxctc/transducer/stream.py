"""Decoding of a stream: greedy or beam search, of transducers with and without durations."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import wide
from jaxctc.decoding import fusion
from jaxctc.decoding.fusion import Fusion
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import arguments, beam, greedy
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import state as transducer_state
from jaxctc.transducer.rounds import Search
from jaxctc.transducer.state import TransducerState, state_of


def rnnt_decode_start(
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    *,
    max_labels: int,
    beam_width: int | None = None,
    batch: tuple[int, ...] = (),
    blank_id: int = 0,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    dtype: Any = jnp.float32,
    scorer: Scorer | None = None,
    scorer_state: Any = None,
) -> TransducerState:
    """The state of a transducer's search before the first frame.

    Call it within `jax.jit`, with the predictor's weights as arguments, as the others: one
    operation at a time, the predictor rounds otherwise than in the search of the whole.

    Args:
      predictor: As for `rnnt_greedy_decode`.
      initial_state: Likewise.
      max_labels: The most labels of a hypothesis, over all pieces.
      beam_width: How many hypotheses are kept; None means greedy search.
      batch: Leading batch dimensions of the encoder's outputs to come.
      blank_id: The class that is the blank.
      durations: Those of a token-and-duration transducer, as for `tdt_greedy_decode`; None means a
        transducer without durations.
      big_blanks: Those of a multi-blank transducer, as for `multi_blank_greedy_decode`.
      dtype: The dtype of the logits to come; half precision is computed in float32.
      scorer: The scorer that `rnnt_decode_extend` will be given, if any.
      scorer_state: As for `rnnt_greedy_decode`.

    Returns:
      `TransducerState`, for `rnnt_decode_extend`, a pytree of arrays with the batch's axes, which
      can be stored, sent, or put together with those of other streams.

    Raises:
      TypeError: If a dtype, or what a function returns, is of the wrong kind.
      ValueError: If an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> def predictor(state, label):
      ...     return label, state
      >>> state = jaxctc.rnnt_decode_start(predictor, (), batch=(2,), max_labels=100)
      >>> state.emitted.labels.shape
      (2, 100)
    """
    most = checks.positive("max_labels", max_labels)
    batch = checks.batch_shape("batch", batch)
    blank_id = checks.at_least("blank_id", blank_id, 0)
    transducer_checks.not_both(durations, big_blanks)
    ahead = [1]
    if durations is not None:
        ahead += transducer_checks.durations("durations", durations)
    if big_blanks is not None:
        big = transducer_checks.big_blanks("big_blanks", big_blanks, None, blank_id)
        ahead += [frames for _, frames in big]
    dtype = checks.floating("dtype", dtype)
    begun = transducer_checks.state("initial_state", initial_state)
    transducer_checks.state_function("predictor", predictor, begun)
    fusion.weight(scorer, 1.0)
    first = predictor(begun, jnp.int32(blank_id))
    scored = arguments.flat(fusion.start(scorer, batch, scorer_state), batch)
    room = math.prod(batch), most
    if beam_width is None:
        stream = greedy.start(first, scored, room, wide(dtype))
    else:
        beams = max(ahead), checks.positive("beam_width", beam_width)
        stream = beam.start(first, scored, room, beams, wide(dtype))
    return arguments.with_axes(state_of(stream), batch)


def rnnt_decode_extend(
    state: TransducerState,
    joint: Callable[[jax.Array, Any], Any],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    max_symbols: int | None = None,
    monotonic: bool = False,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> TransducerState:
    """Continues a transducer's search with more frames of the same sequences.

    However an utterance is cut into pieces, the result is bit for bit that of the whole, from
    `rnnt_greedy_decode`, `rnnt_beam_search`, or those of `tdt` and `multi_blank`, whose
    arguments these are, as far as the functions themselves round alike. Use pieces of few different
    lengths, since each length is compiled: `logit_lengths` says how many frames of a piece
    belong to each sequence, 0 once it is over. Call it within `jax.jit`, as the others.

    Args:
      state: What `rnnt_decode_start` or this function returned.
      joint: As for `rnnt_greedy_decode`; with `durations`, as for `tdt_greedy_decode`.
      predictor: The one that was given to `rnnt_decode_start`.
      encoder: float ``[*batch, T, D]``, the encoder's output for the next T frames.
      logit_lengths: integer ``[*batch]``, those of each sequence; None means T.
      blank_id: The class that is the blank.
      max_symbols: The most labels at one frame; None means 10 in greedy search, else 4.
      monotonic: As for `rnnt_greedy_decode`.
      durations, big_blanks: Those that were given to `rnnt_decode_start`.
      scorer: The scorer that was given to `rnnt_decode_start`.
      scorer_weight: The factor of its scores.

    Returns:
      The state after those frames.

    Raises:
      TypeError: If `state` is not a state, or a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or `state` was started with another predictor, another
        scorer, or in a beam with durations or big blanks of another length.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> def predictor(state, label):
      ...     return label, state
      >>> def joint(frame, label):
      ...     return jnp.where(jnp.arange(4) == label, 0, frame)
      >>> @jax.jit
      ... def listen(state, piece):
      ...     return jaxctc.rnnt_decode_extend(state, joint, predictor, piece)
      >>> state = jaxctc.rnnt_decode_start(predictor, (), max_labels=5)
      >>> for piece in 9 * jax.nn.one_hot(jnp.array([[0, 2], [3, 0], [1, 0]]), 4):
      ...     state = listen(state, piece)
      >>> print(jaxctc.rnnt_decode_finish(state).labels)
      [ 2  3  1 -1 -1]
    """
    transducer_state.check("state", state)
    one, most = state.search, state.emitted.labels.shape[-1]
    is_path = isinstance(one, greedy.Path)
    axes = state.frame_count.ndim + (0 if is_path else 2)
    given = arguments.checked(
        (joint, predictor, jax.tree.map(lambda x: jnp.zeros(x.shape[axes:], x.dtype), one.state)),
        (encoder, logit_lengths),
        ((10 if is_path else 4) if max_symbols is None else max_symbols, most),
        (scorer, scorer_weight),
        blank_id=blank_id,
        monotonic=monotonic,
        durations=durations,
        big_blanks=big_blanks,
    )
    if state.frame_count.shape != given.batch:
        raise ValueError(
            f"state has batch shape {state.frame_count.shape}; it must be {given.batch}."
        )
    if one.score.dtype != given.model.dtype:
        raise TypeError(
            f"state has dtype {one.score.dtype}; it must be {given.model.dtype}, "
            "the dtype in which the logits are computed."
        )
    transducer_state.check_output(state, given.output, axes)
    transducer_state.check_scorer(state, scorer)
    if not is_path and (ahead := one.score.shape[-2]) != given.model.ahead:
        raise ValueError(
            f"state was started with durations or big_blanks up to {ahead}; it must be with "
            f"those that follow, up to {given.model.ahead}."
        )

    def extended(given, state):
        stream, piece = state.stream, (given.encoder, given.lengths)
        if is_path:
            after = greedy.extend(given.model, stream, *piece, given.bounds, given.fusion)
        else:
            after = beam.extend(Search(given.model, given.bounds, given.fusion), stream, *piece)
        return state_of(after)

    return arguments.searched(extended, given, state)


def rnnt_decode_finish(
    state: TransducerState,
    *,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> Hypotheses:
    """The hypotheses if the utterances end here. The state can still be extended.

    Args:
      state: What `rnnt_decode_extend` returned.
      scorer: The scorer that was given to `rnnt_decode_extend`.
      scorer_weight: Likewise.

    Returns:
      `Hypotheses`, as from the decoder of the whole.

    Raises:
      TypeError: If `state` is not a state.
      ValueError: If `state` was started with another scorer.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> functions = (lambda frame, output: frame), (lambda state, label: ((), state))
      >>> state = jaxctc.rnnt_decode_start(functions[1], (), max_labels=8, beam_width=4)
      >>> for step in range(3):
      ...     piece = jax.random.normal(jax.random.key(step), (2, 5))
      ...     state = jaxctc.rnnt_decode_extend(state, *functions, piece)
      ...     so_far = jaxctc.rnnt_decode_finish(state)
      >>> so_far.labels.shape
      (4, 8)
    """
    transducer_state.check("state", state)
    weight = fusion.weight(scorer, scorer_weight)
    transducer_state.check_scorer(state, scorer)
    return _finish(state, scorer, weight)


@meshes.jit(trailing=(0,))
def _finish(state, scorer, weight):
    batch, dtype = state.frame_count.shape, state.emitted.scores.dtype
    stream, sum_of = arguments.flat(state, batch).stream, Fusion(scorer, weight.astype(dtype))
    if isinstance(stream, greedy.Stream):
        found = greedy.finish(stream, sum_of)
    else:
        found = beam.finish(stream, sum_of)
    return arguments.with_axes(found, batch)


def rnnt_decode_commit(
    state: TransducerState,
    *,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> tuple[jax.Array, jax.Array, TransducerState]:
    """The labels that all hypotheses begin with, and the state without them.

    A stream without end needs no longer hypotheses than its pieces: what is committed frees its
    room among the `max_labels`. Scores and frames still count from the start. Greedy search commits
    all its labels. If the hypotheses of a beam agree on too little for too long, room runs out,
    and ``state.full`` is True from there on.

    Args:
      state: What `rnnt_decode_extend` returned.
      scorer: The scorer that was given to `rnnt_decode_extend`.
      scorer_weight: Likewise.

    Returns:
      The labels, int32 ``[*batch, L]``, padded with -1; the frame of each, likewise, in the best
      alignment of the hypothesis that `rnnt_decode_finish` puts first; and the state, for
      `rnnt_decode_extend` and `rnnt_decode_finish`.

    Raises:
      TypeError: If `state` is not a state.
      ValueError: If `state` was started with another scorer.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> functions = (lambda frame, output: frame), (lambda state, label: ((), state))
      >>> sure = 9.0 * jnp.eye(4)[jnp.array([1, 0, 3])]
      >>> state = jaxctc.rnnt_decode_start(functions[1], (), max_labels=4)
      >>> state = jaxctc.rnnt_decode_extend(state, *functions, sure, monotonic=True)
      >>> labels, frames, state = jaxctc.rnnt_decode_commit(state)
      >>> print(labels, frames)
      [ 1  3 -1 -1] [ 0  2 -1 -1]
      >>> print(jaxctc.rnnt_decode_finish(state).lengths)
      0
    """
    transducer_state.check("state", state)
    weight = fusion.weight(scorer, scorer_weight)
    transducer_state.check_scorer(state, scorer)
    return _commit(state, scorer, weight)


@meshes.jit(trailing=(0,))
def _commit(state, scorer, weight):
    batch, dtype = state.frame_count.shape, state.emitted.scores.dtype
    stream, sum_of = arguments.flat(state, batch).stream, Fusion(scorer, weight.astype(dtype))
    if isinstance(stream, greedy.Stream):
        found, after = greedy.commit(stream)
    else:
        found, after = beam.commit(stream, sum_of)
    return arguments.with_axes((found.labels, found.frames, state_of(after)), batch)
