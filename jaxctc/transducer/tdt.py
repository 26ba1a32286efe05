"""The token-and-duration transducer (Xu et al. 2023)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import log_softmax
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import durations as duration_lattice
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import TransducerArcs, arcs_of_logits, cells, flat_pair
from jaxctc.transducer.penalties import Penalties


def tdt_loss(
    token_logits: checks.ArrayLike,
    duration_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    blank_id: int = 0,
    max_symbols: int | None = None,
    sigma: float = 0.0,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    """The token-and-duration transducer loss, ``-log p(labels)``, of every sequence.

    Every arc has a symbol and a duration, predicted independently after t frames and u labels;
    paths end with a blank that ends exactly with the last frame.

    Args:
      token_logits: float ``[*batch, T, U + 1, C]``, normalised inside.
      duration_logits: float ``[*batch, T, U + 1, len(durations)]``, normalised inside.
      labels: integer ``[*batch, U]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or U where there is none.
      durations: The number of frames that each class of `duration_logits` advances. Blanks of
        duration 0 do not exist.
      blank_id: The class that is the blank.
      max_symbols: The most labels at one frame, if there is a duration of 0, as in
        `tdt_greedy_decode`; None means any number. Time grows with it.
      sigma: Subtracted from every token's log-probability, which favours long durations
        (Xu et al.'s logit under-normalisation).
      fastemit_lambda, delay_penalty: As in `rnnt_loss`, on tokens that are labels, of every
        duration. FastEmit leaves the gradient of durations as it is, as NeMo does.

    Returns:
      float ``[*batch]``, never negative without `delay_penalty`, unless `sigma` is; ``inf`` with
      gradient 0 where there is no path. If a sequence's own logits contain NaN, its loss is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, `durations` or `blank_id` are out
        of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> tokens, durations = jnp.zeros((3, 2, 4)), jnp.zeros((3, 2, 3))
      >>> loss = jaxctc.tdt_loss(tokens, durations, jnp.array([1]), durations=(0, 1, 2))
      >>> print(f"{loss:.4f}")
      4.0452

    References:
      Xu et al. 2023, "Efficient sequence transduction by jointly predicting tokens and
      durations", eqs. 5–8, arXiv 2304.06795.
    """
    given = token_logits, duration_logits, labels, logit_lengths, label_lengths
    of_durations, pair, known = transducer_checks.timed_pair(*given, durations, blank_id)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    of_tokens = checks.finite("sigma", sigma)
    most = transducer_checks.most_symbols(max_symbols)
    return _tdt_loss(of_durations, *pair, known, most, of_tokens, penalties)


@meshes.jit(trailing=(3, 3, 1, 0, 0), static_argnums=(5, 6, 7))
def _tdt_loss(
    duration_logits,
    logits,
    labels,
    logit_lengths,
    label_lengths,
    blank_id,
    durations,
    max_symbols,
    sigma,
    penalties,
):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    duration_logits = duration_logits.reshape(*flat[0].shape[:-1], len(durations))
    found, broken = lattice(
        flat[0], duration_logits, *flat[1:], blank_id, durations, max_symbols, sigma, penalties
    )
    log_z = duration_lattice.total(found, broken).reshape(logits.shape[:-3])
    return penalty.loss_with_sigma(log_z, penalties, sigma)


def lattice(
    token_logits: jax.Array,
    duration_logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
    durations: tuple[int, ...],
    max_symbols: int | None,
    sigma: float | jax.Array,
    penalties: Penalties = penalty.NONE,
) -> tuple[duration_lattice.Lattice, jax.Array]:
    """The lattice of flat batches, and whether a sequence's own logits contain NaN, ``[B]``."""
    pair = labels, logit_lengths, label_lengths
    (blank, label), log_probs, broken = log_probs_of(
        token_logits, duration_logits, *pair, blank_id, sigma
    )
    label = penalty.penalised(label, logit_lengths, penalties)
    by_duration = {d: log_probs[..., i] for i, d in enumerate(durations)}
    found = duration_lattice.lattice(
        {d: blank + score for d, score in by_duration.items() if d > 0},
        {d: label + score[:, :, :-1] for d, score in by_duration.items()},
        logit_lengths,
        label_lengths,
        max_symbols,
    )
    return found, broken


def log_probs_of(
    token_logits: jax.Array,
    duration_logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
    sigma: float | jax.Array = 0.0,
) -> tuple[TransducerArcs, jax.Array, jax.Array]:
    """Log-probabilities of flat batches: of tokens, and of durations ``[B, T, U + 1, D]``.

    Also whether a sequence's own logits contain NaN, ``[B]``.
    """
    frames, spaces = token_logits.shape[1:3]
    inside = cells(frames, spaces, logit_lengths, label_lengths)
    arcs = arcs_of_logits(token_logits, labels, logit_lengths, label_lengths, blank_id)
    log_probs = log_softmax(duration_logits, inside)
    log_probs -= jnp.asarray(sigma, log_probs.dtype)
    broken = jnp.isnan(arcs.blank) | jnp.any(jnp.isnan(log_probs), axis=3)
    return arcs, log_probs, jnp.any(broken, axis=(1, 2))
