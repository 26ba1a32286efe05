"""Greedy decoding of multi-blank transducers (Xu et al. 2022)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxctc.core import checks
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import arguments
from jaxctc.transducer.decode import greedy_search


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
        encoder,
        logit_lengths,
        blank_id=blank_id,
        bounds=(max_symbols, max_labels),
        big_blanks=big_blanks,
        scorer=scorer,
        scorer_weight=scorer_weight,
    )
    return arguments.searched(greedy_search, given)
