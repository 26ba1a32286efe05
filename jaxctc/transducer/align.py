"""Alignment of transducers: the posterior of each arc, and the best path.

Both are the gradient of log Z, in the semirings `Probability` and `MaxTropical`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import widen
from jaxctc.core.semirings import MAX_TROPICAL, PROBABILITY
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import TransducerArcs, cells, total_of_batches


def rnnt_posteriors(
    blank_log_probs: checks.ArrayLike,
    label_log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    monotonic: bool = False,
    max_symbols: int | None = None,
    delay_penalty: float = 0.0,
) -> TransducerArcs:
    """Posterior probability of every arc of the lattice, given the labels.

    Arguments and errors are those of `rnnt_loss_from_log_probs`, whose gradient this is but for
    FastEmit.

    Returns:
      `TransducerArcs`, float ``blank [*batch, T, U + 1]`` and ``label [*batch, T, U]``. Blanks
      sum to 1 at each frame (if `monotonic`, together with labels), each label sums to 1 over
      frames. Past a length, and where there is no path, all are 0.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> arcs = jaxctc.rnnt_log_probs(jnp.zeros((2, 2, 3)), jnp.array([1]))
      >>> print(jaxctc.rnnt_posteriors(*arcs).label)  # as likely at the first frame as at the last
      [[0.5]
       [0.5]]
    """
    arcs = transducer_checks.arcs(blank_log_probs, label_log_probs, logit_lengths, label_lengths)
    penalties = penalty.checked(delay_penalty=delay_penalty)
    return _posteriors(
        *arcs, transducer_checks.emission(monotonic, max_symbols), PROBABILITY, penalties
    )[1]


@meshes.jit(trailing=(2, 2, 0, 0), static_argnums=(4, 5))
def _posteriors(blank, label, logit_lengths, label_lengths, emission, semiring, penalties):
    """``log Z`` and its gradient in any semiring."""

    def log_z(blank, label):
        arcs = blank, label, logit_lengths, label_lengths
        return total_of_batches(*arcs, emission, penalties, semiring)

    value, pullback = jax.vjp(log_z, widen(blank), widen(label))
    posteriors = TransducerArcs(*pullback(jnp.ones_like(value)))
    # If log Z is NaN, so are all posteriors within the lengths.
    frames, spaces = blank.shape[-2:]
    inside = cells(frames, spaces, logit_lengths.reshape(-1), label_lengths.reshape(-1))
    inside = inside.reshape(blank.shape)
    broken = jnp.isnan(value)[..., None, None] & inside
    return value, TransducerArcs(
        jnp.where(broken, jnp.nan, posteriors.blank),
        jnp.where(broken[..., 1:], jnp.nan, posteriors.label),
    )


class TransducerAlignment(NamedTuple):
    """The frame of each label. If there is no path, scores are ``-inf`` and frames are -1.

    Attributes:
      frames: int32 ``[*batch, U]``: the frame each label is emitted at, -1 past the length.
      scores: float ``[*batch, U]``: its log-probability there, 0 past the length.
      score: float ``[*batch]``: log-probability of the whole path, blanks included.
    """

    frames: jax.Array
    scores: jax.Array
    score: jax.Array


def rnnt_align(
    blank_log_probs: checks.ArrayLike,
    label_log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    monotonic: bool = False,
    max_symbols: int | None = None,
) -> TransducerAlignment:
    """The most probable path of the labels through the lattice (Viterbi).

    Arguments and errors are those of `rnnt_loss_from_log_probs`. If paths tie, the one that emits
    its labels earlier is taken.

    Returns:
      `TransducerAlignment`: ``frames`` and ``scores [*batch, U]``, ``score [*batch]``. If a
      sequence's own arcs contain NaN or ``+inf``, scores are NaN and frames are -1.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> symbols = jnp.array([[0, 0, 0], [1, 2, 0], [0, 0, 0]])  # both labels at frame 1
      >>> logits = 5 * jax.nn.one_hot(symbols, 3)
      >>> found = jaxctc.rnnt_align(*jaxctc.rnnt_log_probs(logits, jnp.array([1, 2])))
      >>> print(found.frames)
      [1 1]
    """
    arcs = transducer_checks.arcs(blank_log_probs, label_log_probs, logit_lengths, label_lengths)
    return _rnnt_align(*arcs, transducer_checks.emission(monotonic, max_symbols))


@meshes.jit(trailing=(2, 2, 0, 0), static_argnums=4)
def _rnnt_align(blank, label, logit_lengths, label_lengths, emission):
    arcs = blank, label, logit_lengths, label_lengths
    score, path = _posteriors(*arcs, emission, MAX_TROPICAL, penalty.NONE)
    label = widen(label)
    taken = path.label > 0
    used = jnp.any(taken, axis=-2)
    frame = lax.broadcasted_iota(jnp.int32, label.shape, label.ndim - 2)
    frames = jnp.sum(jnp.where(taken, frame, 0), axis=-2, dtype=jnp.int32)
    scores = jnp.sum(jnp.where(taken, label, 0), axis=-2)
    wanted = lax.broadcasted_iota(jnp.int32, used.shape, used.ndim - 1) < label_lengths[..., None]
    nothing = jnp.where(jnp.isnan(score), jnp.nan, -jnp.inf).astype(scores.dtype)
    scores = jnp.where(wanted & ~used, nothing[..., None], scores)
    return TransducerAlignment(jnp.where(used, frames, -1), scores, score)
