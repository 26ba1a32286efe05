"""Decoding of token-and-duration transducers (Xu et al. 2023)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxctc.core import checks
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import arguments
from jaxctc.transducer.decode import beam_search, greedy_search

Pair = tuple[jax.Array, jax.Array]


def tdt_greedy_decode(
    joint: Callable[[jax.Array, Any], Pair],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    blank_id: int = 0,
    max_symbols: int = 10,
    max_labels: int | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The labels on the path of best pairs of a token and a duration.

    Each step takes the pair of highest probability and goes on as many frames as its duration
    says, so that frames are skipped, also those past the end. A blank has a duration of at least 1.
    What `rnnt_greedy_decode` says about its functions holds here too.

    Args:
      joint: ``joint(frame [D], output) -> (token logits [C], duration logits [len(durations)])``,
        each unnormalised or log-probabilities.
      predictor: As for `rnnt_greedy_decode`, as are the next arguments.
      initial_state: The predictor's state before the start.
      encoder: float ``[*batch, T, D]``, the encoder's output.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      durations: The number of frames that each class of the duration logits advances.
      blank_id: The class that is the blank.
      max_symbols: The most labels at one frame, if there is a duration of 0; a blank must
        follow them.
      max_labels: The most labels of a sequence, after which only blanks follow; None means
        ``T * max_symbols``, or T if no duration is 0.
      scorer: As for `rnnt_greedy_decode`.
      scorer_weight: Likewise.
      scorer_state: Likewise.

    Returns:
      `Hypotheses` without an axis N, with L = `max_labels`. ``scores`` is the log-probability
      of that one path, blanks and durations included; ``frames`` are those at which labels were
      emitted, and ``durations`` those predicted with them; ``label_scores`` are the tokens' own.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> def predictor(state, label):
      ...     return (), state
      >>> def joint(frame, output):  # a frame has the logits of four tokens and of two durations
      ...     return frame[:4], frame[4:]
      >>> tokens = 9 * jax.nn.one_hot(jnp.array([2, 1, 0, 3]), 4)
      >>> lasting = 9 * jax.nn.one_hot(jnp.array([1, 0, 0, 0]), 2)
      >>> best = jaxctc.tdt_greedy_decode(
      ...     joint, predictor, (), jnp.concatenate([tokens, lasting], axis=1), durations=(1, 2)
      ... )
      >>> print(best.labels, best.frames, best.durations)
      [ 2  3 -1 -1] [ 0  3 -1 -1] [2 1 0 0]

    References:
      Xu et al. 2023, "Efficient sequence transduction by jointly predicting tokens and
      durations", algorithm 2, arXiv 2304.06795.
    """
    given = arguments.checked(
        (joint, predictor, initial_state),
        (encoder, logit_lengths),
        (max_symbols, max_labels),
        (scorer, scorer_weight),
        blank_id=blank_id,
        durations=durations,
    )
    return greedy_search(given, scorer_state)


def tdt_beam_search(
    joint: Callable[[jax.Array, Any], Pair],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    beam_width: int = 8,
    blank_id: int = 0,
    max_symbols: int = 4,
    max_labels: int | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The most probable label sequences of a token-and-duration transducer.

    The score of each is summed over its paths: over where its labels are emitted, and over all
    durations. There is a beam for each frame that can be reached, of the `beam_width` best
    hypotheses that have got there, so that only hypotheses at the same frame compete. Those of
    equal labels are merged. A path ends as soon as it reaches the end or goes past it, as in greedy
    decoding; `tdt_loss` counts only paths that end with the last frame by a blank.

    Args:
      joint: As for `tdt_greedy_decode`, as are the next arguments.
      predictor: As for `rnnt_greedy_decode`.
      initial_state: Likewise.
      encoder: float ``[*batch, T, D]``, the encoder's output.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      durations: The number of frames that each class of the duration logits advances.
      beam_width: How many hypotheses are kept for each frame, N.
      blank_id: The class that is the blank.
      max_symbols: The most labels at one frame, if there is a duration of 0.
      max_labels: As for `tdt_greedy_decode`.
      scorer: As for `rnnt_beam_search`.
      scorer_weight: Likewise.
      scorer_state: Likewise.

    Returns:
      `Hypotheses` with N = `beam_width` and L = `max_labels`, sorted by
      ``scores + scorer_weight * scorer_scores``. ``frames`` and ``durations`` are those of the
      best path found.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxctc
      >>> def predictor(emitted, label):  # the state: has a label been emitted?
      ...     return emitted, jnp.ones_like(emitted)
      >>> def joint(frame, emitted):  # the blank, or a label if it is the first; then the durations
      ...     tokens = jnp.where(emitted == 1, jnp.array([0.0, -jnp.inf]), frame)
      ...     return tokens, jnp.log(jnp.array([0.5, 0.5]))
      >>> encoder = jnp.log(jnp.array([[0.75, 0.25], [0.5, 0.5]]))
      >>> best = jaxctc.tdt_beam_search(
      ...     joint, predictor, 0, encoder, durations=(1, 2), beam_width=2
      ... )
      >>> print(best.labels.tolist())
      [[-1, -1], [1, -1]]
      >>> print(np.exp(best.scores).round(4))  # the label is 0.25 + 0.75 * 0.5 * 0.5
      [0.5625 0.4375]

    References:
      Xu et al. 2023, "Efficient sequence transduction by jointly predicting tokens and
      durations", arXiv 2304.06795.
    """
    given = arguments.checked(
        (joint, predictor, initial_state),
        (encoder, logit_lengths),
        (max_symbols, max_labels),
        (scorer, scorer_weight),
        blank_id=blank_id,
        durations=durations,
    )
    return beam_search(given, beam_width, scorer_state)
