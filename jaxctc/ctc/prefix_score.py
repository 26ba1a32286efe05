"""How probable is a prefix, whatever follows: CTC beside an attention decoder in one search."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import frames_inside, widen
from jaxctc.core.recursion import never_positive


class PrefixState(NamedTuple):
    """The alignments of prefixes up to each frame, as log-probabilities.

    Attributes:
      label: float ``[*batch, N, T]``: of the alignments that end in the last label.
      blank: float ``[*batch, N, T]``: of those that end in a blank.
      last: int32 ``[*batch, N]``: the last label; -1 of the empty prefix, -2 of none.
    """

    label: jax.Array
    blank: jax.Array
    last: jax.Array

    def end(self) -> jax.Array:
        """The log-probability that nothing follows, ``[*batch, N]``."""
        return never_positive(jnp.logaddexp(self.label[..., -1], self.blank[..., -1]))


def ctc_prefix_start(
    logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    hypotheses: int = 1,
    blank_id: int = 0,
    normalised: bool = False,
) -> PrefixState:
    """The state of the empty prefix, for `ctc_prefix_score`.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities; at least one frame.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      hypotheses: How many equal states are made, N.
      blank_id: The class that is the blank.
      normalised: As for `ctc_prefix_score`.

    Returns:
      `PrefixState` of hypotheses ``[*batch, N]``.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> state = jaxctc.ctc_prefix_start(jnp.log(jnp.array([[0.6, 0.4], [0.5, 0.5]])))
      >>> print(np.exp(state.end()).round(3))  # two blanks
      [0.3]
    """
    logits, lengths = checks.logits_with_lengths(logits, logit_lengths)
    blank_id = checks.class_id("blank_id", blank_id, logits.shape[-1])
    if logits.shape[-2] == 0:
        raise ValueError(f"logits has shape {logits.shape}; there must be at least one frame.")
    hypotheses = checks.positive("hypotheses", hypotheses)
    return _start(logits, lengths, hypotheses, blank_id, checks.flag("normalised", normalised))


@meshes.jit(trailing=(2, 0), static_argnums=(2, 3, 4))
def _start(logits, lengths, count, blank_id, normalised):
    log_probs = _log_probs(logits, normalised)[..., blank_id]
    inside = frames_inside(logits, lengths)
    blank = jnp.cumsum(jnp.where(inside, log_probs, 0), axis=-1)
    blank = jnp.broadcast_to(blank[..., None, :], (*lengths.shape, count, blank.shape[-1]))
    return PrefixState(
        jnp.full_like(blank, -jnp.inf), blank, jnp.full_like(blank[..., 0], -1, jnp.int32)
    )


def ctc_prefix_score(
    state: PrefixState,
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    normalised: bool = False,
) -> tuple[jax.Array, PrefixState]:
    """How probable prefixes are that go on with each of some labels, and anything after these.

    For one-pass joint decoding: an attention decoder proposes labels for each of its hypotheses,
    and the sum of both scores ranks them. What follows is summed over, so that a score is
    one of a prefix; `PrefixState.end` has those of complete sequences.

    Args:
      state: Of hypotheses ``[*batch, N]``, from `ctc_prefix_start` or from the result.
      logits: float ``[*batch, T, C]``, those of the start.
      labels: integer ``[*batch, N, K]``, the labels that may come next; the blank and negative
        ones have the score ``-inf``.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      blank_id: The class that is the blank.
      normalised: Whether `logits` are log-probabilities, as `jax.nn.log_softmax` gives once for all
        steps. Otherwise each step normalises all classes of all frames.

    Returns:
      The log-probabilities of the prefixes, float ``[*batch, N, K]``, and their states, in
      which the axes N and K come in the place of N.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> log_probs = jnp.log(jnp.array([[0.6, 0.3, 0.1], [0.5, 0.25, 0.25]]))  # blank, 1, 2
      >>> state = jaxctc.ctc_prefix_start(log_probs, normalised=True)
      >>> scores, states = jaxctc.ctc_prefix_score(state, log_probs, [[1, 2]], normalised=True)
      >>> print(np.exp(scores).round(3))  # 0.3 + 0.6 * 0.25, and 0.1 + 0.6 * 0.25
      [[0.45 0.25]]
      >>> print(np.exp(states.end()).round(3))  # "1" and "2" alone
      [[0.375 0.225]]

    References:
      Watanabe, Hori, Kim, Hershey, Hayashi 2017, "Hybrid CTC/attention architecture for end-to-end
      speech recognition", algorithm 2.
    """
    if not isinstance(state, PrefixState):
        raise TypeError(f"state has type {type(state).__name__}; it must be a PrefixState.")
    logits, lengths = checks.logits_with_lengths(logits, logit_lengths)
    *batch, frames, classes = logits.shape
    labels = checks.integer_array("labels", labels)
    expected = (*batch, state.last.shape[-1] if state.last.ndim else "N", frames)
    if state.label.shape != expected:
        raise ValueError(f"state has shape {state.label.shape}; it must be {expected}.")
    if labels.ndim != len(batch) + 2 or labels.shape[:-1] != state.last.shape:
        shape = ", ".join(map(str, (*state.last.shape, "K")))
        raise ValueError(f"labels has shape {labels.shape}; it must be [{shape}].")
    blank_id = checks.class_id("blank_id", blank_id, classes)
    return _score(state, logits, labels, lengths, blank_id, checks.flag("normalised", normalised))


def _log_probs(logits: jax.Array, normalised: bool) -> jax.Array:
    return widen(logits) if normalised else jax.nn.log_softmax(widen(logits))


@meshes.jit(trailing=(2, 2, 2, 0), static_argnums=(4, 5))
def _score(state, logits, labels, lengths, blank_id, normalised):
    log_probs = _log_probs(logits, normalised)
    possible = (labels != blank_id) & (labels >= 0) & (labels < log_probs.shape[-1])
    chosen = jnp.where(possible, labels, 0)
    inside = frames_inside(logits, lengths)
    nothing = jnp.full_like(chosen, -jnp.inf, log_probs.dtype)  # [*batch, N, K]
    same = labels == state.last[..., None]

    def before(x):  # up to the frame before each, T first
        return jnp.moveaxis(x, -1, 0)[:-1]

    # Alignments of the prefix that the label may follow at each frame; before the first frame
    # only the empty prefix has one.
    empty = jnp.where(state.last == -1, jnp.zeros((), nothing.dtype), -jnp.inf)
    both = jnp.logaddexp(state.label, state.blank)
    both = jnp.concatenate([empty[None], before(both)])
    blank = jnp.concatenate([empty[None], before(state.blank)])
    of_labels = jnp.take_along_axis(
        log_probs[..., None, :, :], chosen[..., None, :], axis=-1
    )  # [*batch, N, T, K]

    def step(carry, frame):
        label, ending, total = carry
        both, blank, log_label, log_blank, inside = frame
        entering = jnp.where(same, blank[..., None], both[..., None])
        log_label = jnp.where(possible, log_label, -jnp.inf)
        log_blank, inside = (x[..., None, None] for x in (log_blank, inside))
        new_label = jnp.logaddexp(label, entering) + log_label
        new_ending = jnp.logaddexp(label, ending) + log_blank
        total = jnp.where(inside, jnp.logaddexp(total, entering + log_label), total)
        label = jnp.where(inside, new_label, label)
        ending = jnp.where(inside, new_ending, ending)
        return (label, ending, total), (label, ending)

    frames = (
        both,
        blank,
        jnp.moveaxis(of_labels, -2, 0),
        jnp.moveaxis(log_probs[..., blank_id], -1, 0),
        jnp.moveaxis(inside, -1, 0),
    )
    (_, _, total), (label, ending) = meshes.scan(step, (nothing, nothing, nothing), frames)
    last = jnp.where(labels < 0, -2, labels)  # -1 is that of the empty prefix
    state = PrefixState(jnp.moveaxis(label, 0, -1), jnp.moveaxis(ending, 0, -1), last)
    return never_positive(total), state
