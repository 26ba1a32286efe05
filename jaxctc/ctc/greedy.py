"""Greedy decoding of CTC: the best class of every frame."""

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import widen
from jaxctc.decoding.hypotheses import Hypotheses


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
    top = jnp.max(x, axis=-1, keepdims=True)
    # A frame without any possible class has log-probability -inf, not NaN.
    top = jnp.where(top > -jnp.inf, top, 0)
    total = jnp.sum(jnp.exp(x - top), axis=-1)
    log_probability = -jnp.log(jnp.where(total == 0, 1, total))
    log_probability = jnp.where(total == 0, -jnp.inf, log_probability)
    score = jnp.sum(jnp.where(inside, log_probability, 0), axis=-1)

    before = jnp.pad(path[:, :-1], ((0, 0), (1, 0)), constant_values=blank_id)[:, :frames]
    emitted = inside & (path != blank_id) & (path != before)
    emitted &= score[:, None] > -jnp.inf  # if the score is -inf or NaN, there are no labels
    labels, emitted_at = _compact(emitted, path)
    lengths = jnp.sum(emitted, axis=-1, dtype=jnp.int32)
    return Hypotheses(
        labels.reshape(*batch, frames),
        lengths.reshape(batch),
        score.reshape(batch),
        emitted_at.reshape(*batch, frames),
        jnp.zeros_like(score).reshape(batch),
        (score > -jnp.inf).reshape(batch),
    )


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
