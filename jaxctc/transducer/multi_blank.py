"""Multi-blank transducers (Xu et al. 2022): big blanks advance several frames."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import several_log_probabilities
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import durations as duration_lattice
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import cells, flat_pair, readable_labels


def multi_blank_loss(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    big_blanks: Mapping[int, int],
    blank_id: int = 0,
    max_symbols: int | None = None,
    sigma: float = 0.0,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    """The multi-blank transducer loss, ``-log p(labels)``, of every sequence.

    Some classes are big blanks: each advances its own number of frames, where the blank advances
    one. Paths end with a blank of any size that ends exactly with the last frame.

    Args:
      logits: float ``[*batch, T, U + 1, C]``, as in `rnnt_loss`.
      labels: integer ``[*batch, U]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or U where there is none.
      big_blanks: For each class that is a big blank the number of frames it advances, at least 2
        and different for each, such as ``{1: 2, 2: 4, 3: 8}``.
      blank_id: The class that is the blank of one frame.
      max_symbols: The most labels at one frame; a blank of any size follows them. None means any
        number. Time grows with it.
      sigma: Subtracted from every log-probability, which favours big blanks (the paper's logit
        under-normalisation, 0.05 there).
      fastemit_lambda, delay_penalty: As in `rnnt_loss`.

    Returns:
      float ``[*batch]``, never negative without `delay_penalty`, unless `sigma` is; ``inf`` with
      gradient 0 for an infeasible pair, as in `rnnt_loss`. If a sequence's own logits contain NaN,
      its loss is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind, or `big_blanks` is no mapping.
      ValueError: If shapes do not fit, or concrete lengths, `big_blanks` or `blank_id` are out
        of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> logits = jnp.zeros((2, 1, 4))  # two frames, no labels, four classes
      >>> loss = jaxctc.multi_blank_loss(logits, jnp.zeros(0, int), big_blanks={3: 2})
      >>> print(jnp.exp(-loss))  # two blanks, or one big one: 1/16 + 1/4
      0.3125

    References:
      Xu, Jia, Majumdar, Watanabe, Ginsburg 2022, "Multi-blank transducers for speech recognition",
      arXiv 2211.03541.
    """
    pair = transducer_checks.pair(logits, labels, logit_lengths, label_lengths, blank_id)
    classes = pair.logits.shape[-1]
    blanks = transducer_checks.big_blanks("big_blanks", big_blanks, classes, pair.blank_id)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    of_all = checks.finite("sigma", sigma)
    most = transducer_checks.most_symbols(max_symbols)
    return _multi_blank_loss(*pair, blanks, most, of_all, penalties)


@meshes.jit(trailing=(3, 1, 0, 0), static_argnums=(4, 5, 6))
def _multi_blank_loss(
    logits, labels, logit_lengths, label_lengths, blank_id, big_blanks, most, sigma, penalties
):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    found, broken = lattice(*flat, blank_id, big_blanks, most, sigma, penalties)
    log_z = duration_lattice.total(found, broken).reshape(logits.shape[:-3])
    return penalty.loss_with_sigma(log_z, penalties, sigma)


def lattice(
    logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
    big_blanks: tuple[tuple[int, int], ...],
    max_symbols: int | None,
    sigma: float | jax.Array,
    penalties: penalty.Penalties = penalty.NONE,
) -> tuple[duration_lattice.Lattice, jax.Array]:
    """The lattice of flat batches, and whether a sequence's own logits contain NaN, ``[B]``."""
    frames, spaces, classes = logits.shape[1:]
    read, valid = readable_labels(labels, classes, blank_id)
    durations = {blank_id: 1, **dict(big_blanks)}
    for big, _ in big_blanks:
        valid &= labels != big
    inside = cells(frames, spaces, logit_lengths, label_lengths)
    blanks, label = several_log_probabilities(logits, read[:, None, :], inside, tuple(durations))
    label = jnp.where(valid[:, None, :], label[:, :, :-1], -jnp.inf)
    label = penalty.penalised(label, logit_lengths, penalties)
    less = jnp.asarray(sigma, label.dtype)
    found = duration_lattice.lattice(
        {d: blank - less for d, blank in zip(durations.values(), blanks, strict=True)},
        {0: label - less},
        logit_lengths,
        label_lengths,
        max_symbols,
    )
    return found, jnp.any(jnp.isnan(blanks[0]), axis=(1, 2))
