"""Decoding of multi-blank transducers (Xu et al. 2022)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxctc.core import checks
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import arguments
from jaxctc.transducer.decode import beam_search, greedy_search


def multi_blank_greedy_decode(
    joint: Callable[[jax.Array, Any], jax.Array],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    big_blanks: Mapping[int, int],
    blank_id: int = 0,
    max_symbols: int = 10,
    max_labels: int | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The labels on the path of best classes, where big blanks skip frames, also past the end.

    Args:
      joint: As for `rnnt_greedy_decode`, as are all arguments but `big_blanks`.
      predictor: Likewise.
      initial_state: The predictor's state before the start.
      encoder: float ``[*batch, T, D]``, the encoder's output.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      big_blanks: For each class that is a big blank the number of frames it advances, as in
        `multi_blank_loss`.
      blank_id: The class that is the blank of one frame.
      max_symbols: The most labels at one frame; a blank of any size must follow them.
      max_labels: The most labels of a sequence; None means ``T * max_symbols``.
      scorer: What is known besides the logits; blanks of any size get no score.
      scorer_weight: The factor of its scores.
      scorer_state: As for `rnnt_greedy_decode`.

    Returns:
      `Hypotheses` as `rnnt_greedy_decode` returns them.

    Raises:
      TypeError: If a dtype is of the wrong kind, or `big_blanks` is no mapping.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> def predictor(state, label):  # its output is the label, and it needs no state
      ...     return label, state
      >>> def joint(frame, label):  # the class of the frame, but not the previous label again
      ...     return jnp.where(jnp.arange(4) == label, 0, frame)
      >>> encoder = 9 * jax.nn.one_hot(jnp.array([1, 3, 2, 0, 2, 0]), 4)  # 3 skips a frame
      >>> best = jaxctc.multi_blank_greedy_decode(
      ...     joint, predictor, (), encoder, big_blanks={3: 2}, max_labels=4
      ... )
      >>> print(best.labels, best.frames)
      [ 1  2 -1 -1] [ 0  4 -1 -1]

    References:
      Xu, Jia, Majumdar, Watanabe, Ginsburg 2022, "Multi-blank transducers for speech recognition",
      arXiv 2211.03541.
    """
    given = arguments.checked(
        (joint, predictor, initial_state),
        (encoder, logit_lengths),
        (max_symbols, max_labels),
        (scorer, scorer_weight),
        blank_id=blank_id,
        big_blanks=big_blanks,
    )
    return greedy_search(given, scorer_state)


def multi_blank_beam_search(
    joint: Callable[[jax.Array, Any], jax.Array],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    big_blanks: Mapping[int, int],
    beam_width: int = 8,
    blank_id: int = 0,
    max_symbols: int = 4,
    max_labels: int | None = None,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
    scorer_state: Any = None,
) -> Hypotheses:
    """The most probable label sequences of a multi-blank transducer.

    The score of each is summed over its paths, with blanks of all sizes. As in `tdt_beam_search`
    there is a beam for each frame that can be reached, and a path ends as soon as it reaches the
    end or goes past it; `multi_blank_loss` counts only paths that end with the last frame.

    Args:
      joint: As for `rnnt_greedy_decode`.
      predictor: Likewise.
      initial_state: The predictor's state before the start.
      encoder: float ``[*batch, T, D]``, the encoder's output.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      big_blanks: As for `multi_blank_greedy_decode`.
      beam_width: How many hypotheses are kept for each frame, N.
      blank_id: The class that is the blank of one frame.
      max_symbols: The most labels at one frame.
      max_labels: The most labels of a hypothesis; None means ``T * max_symbols``.
      scorer: As for `rnnt_beam_search`; blanks of any size get no score.
      scorer_weight: The factor of its scores.
      scorer_state: As for `rnnt_greedy_decode`.

    Returns:
      `Hypotheses` as `rnnt_beam_search` returns them.

    Raises:
      TypeError: If a dtype is of the wrong kind, or `big_blanks` is no mapping.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxctc
      >>> def predictor(emitted, label):  # the state: has a label been emitted?
      ...     return emitted, jnp.ones_like(emitted)
      >>> def joint(frame, emitted):  # the blank, a label if it is the first, and a big blank
      ...     return jnp.where(emitted == 1, jnp.log(jnp.array([0.5, 0, 0.5])), frame)
      >>> encoder = jnp.log(jnp.array([[0.25, 0.25, 0.5], [0.5, 0.5, 0]]))
      >>> best = jaxctc.multi_blank_beam_search(
      ...     joint, predictor, 0, encoder, big_blanks={2: 2}, beam_width=2
      ... )
      >>> print(best.labels[:, 0])
      [-1  1]
      >>> print(np.exp(best.scores).round(4))  # no label: 0.5 + 0.25 * 0.5
      [0.625 0.375]

    References:
      Xu, Jia, Majumdar, Watanabe, Ginsburg 2022, "Multi-blank transducers for speech recognition",
      arXiv 2211.03541.
    """
    given = arguments.checked(
        (joint, predictor, initial_state),
        (encoder, logit_lengths),
        (max_symbols, max_labels),
        (scorer, scorer_weight),
        blank_id=blank_id,
        big_blanks=big_blanks,
    )
    return beam_search(given, beam_width, scorer_state)
