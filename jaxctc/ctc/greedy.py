"""Greedy decoding of CTC: the best class of every frame."""

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import widen
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.decoding.normalise import normalised


def ctc_greedy_decode(
    logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> Hypotheses:
    """The labels on the best path: each frame's best class, repeats merged, blanks removed.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities. If classes tie,
        the first is taken.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      blank_id: The class that is the blank.

    Returns:
      `Hypotheses` without an axis N, with L = T. ``scores`` is the log-probability of that
      one path, a lower bound on that of its labels; ``frames`` are the first
      frame of each label's run. If all classes of a frame are ``-inf``, the sequence has no labels
      and the score ``-inf``; if its own logits contain NaN or ``+inf``, no labels and NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> path = jnp.array([0, 2, 2, 0, 2, 1])
      >>> best = jaxctc.ctc_greedy_decode(10 * jax.nn.one_hot(path, 3))
      >>> print(best.labels, best.lengths)
      [ 2  2  1 -1 -1 -1] 3
      >>> print(best.frames)
      [ 1  4  5 -1 -1 -1]

    References:
      Graves, Fernández, Gomez, Schmidhuber 2006, "Connectionist temporal classification", eq. 4.
    """
    logits = checks.logits_array("logits", logits)
    *batch, frames, classes = logits.shape
    lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)
    return _greedy_decode(logits, lengths, checks.class_id("blank_id", blank_id, classes))


@meshes.jit(trailing=(2, 0), static_argnums=2)
def _greedy_decode(logits, logit_lengths, blank_id) -> Hypotheses:
    batch, (frames, classes) = logits.shape[:-2], logits.shape[-2:]
    logits = logits.reshape(logit_lengths.size, frames, classes)
    inside = jnp.arange(frames, dtype=jnp.int32)[None, :] < logit_lengths.reshape(-1, 1)

    x = widen(logits)
    path = jnp.argmax(x, axis=-1).astype(jnp.int32)
    # A frame without any possible class has log-probability -inf, not NaN.
    log_probs, confidence = normalised(x)
    log_probability = jnp.max(log_probs, axis=-1)
    score = jnp.sum(jnp.where(inside, log_probability, 0), axis=-1)

    before = jnp.pad(path[:, :-1], ((0, 0), (1, 0)), constant_values=blank_id)[:, :frames]
    label = inside & (path != blank_id)
    label &= score[:, None] > -jnp.inf  # if the score is -inf or NaN, there are no labels
    emitted = label & (path != before)
    labels, emitted_at = _compact(emitted, path)
    lengths = jnp.sum(emitted, axis=-1, dtype=jnp.int32)
    # What all frames of a label say, at the label's place.
    row = jnp.arange(path.shape[0], dtype=jnp.int32)[:, None]
    place = jnp.where(label, jnp.cumsum(emitted, axis=-1) - 1, frames)
    zero = jnp.zeros(label.shape, x.dtype)
    duration = jnp.zeros(label.shape, jnp.int32).at[row, place].add(1, mode="drop")
    surest = (zero - jnp.inf).at[row, place].max(log_probability, mode="drop")
    confidence = zero.at[row, place].max(confidence, mode="drop")
    surest = jnp.where(duration > 0, surest, 0)
    found = Hypotheses(
        labels,
        lengths,
        score,
        emitted_at,
        jnp.zeros_like(score),
        score > -jnp.inf,
        duration,
        surest,
        confidence,
        jnp.zeros(score.shape, bool),
    )
    return jax.tree.map(lambda y: y.reshape(*batch, *y.shape[1:]), found)


def _compact(keep: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The kept values of each row [B, T] moved to its front, and their columns; -1 after them."""
    rows, columns = keep.shape
    # Values that are not kept go to a place outside the row, where they are dropped.
    place = jnp.where(keep, jnp.cumsum(keep, axis=-1) - 1, columns)
    row = jnp.arange(rows, dtype=jnp.int32)[:, None]
    nothing = jnp.full(keep.shape, -1, jnp.int32)
    column = jnp.broadcast_to(jnp.arange(columns, dtype=jnp.int32), keep.shape)
    return (
        nothing.at[row, place].set(values, mode="drop"),
        nothing.at[row, place].set(column, mode="drop"),
    )
