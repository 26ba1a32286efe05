"""Label priors against peaky alignments.

Trained by its loss alone, CTC gives nearly every frame to the blank, and each label only the
one frame where it is most certain. The labels are right, but their first and last frames are lost.
Dividing probabilities by the classes' priors makes the blank less probable the more frequent it is.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import frames_inside, log_normaliser, log_softmax, widen
from jaxctc.ctc.loss import ctc_loss


def ctc_label_priors(
    logits: checks.ArrayLike, logit_lengths: checks.ArrayLike | None = None
) -> jax.Array:
    """Log of the mean probability of each class over all frames, for `ctc_prior_loss`.

    Average the probabilities, not their logarithms, over an epoch, or use a moving average.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.

    Returns:
      float ``[C]``, log-probabilities. Without any frame all classes are equally probable.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths are out of range.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.7, 0.3]]))
      >>> print(np.exp(jaxctc.ctc_label_priors(logits)).round(3))
      [0.8 0.2]

    References:
      Huang, Zhang, Moritz, Hannun et al. 2024, "Less peaky and more accurate CTC forced alignment
      by label priors", section 2.2, arXiv 2406.02560.
    """
    return _ctc_label_priors(*checks.logits_with_lengths(logits, logit_lengths))


@meshes.jit(trailing=())
def _ctc_label_priors(logits, logit_lengths):
    inside = frames_inside(logits, logit_lengths)
    log_probs = log_softmax(logits, inside)
    axes = tuple(range(logits.ndim - 1))
    total = jnp.sum(jnp.where(inside[..., None], jnp.exp(log_probs), 0), axis=axes)
    count = jnp.sum(total)
    mean = jnp.where(count > 0, total, 1) / jnp.where(count > 0, count, total.size)
    return jnp.log(mean)


def ctc_prior_loss(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    log_priors: checks.ArrayLike,
    prior_weight: float | jax.Array = 0.3,
    blank_id: int = 0,
) -> jax.Array:
    r"""The CTC loss of probabilities divided by the classes' priors (less peaky CTC).

    $$ L = -\log \sum_{\pi \in \mathcal B^{-1}(y)} \prod_t p_t(\pi_t) / p(\pi_t)^\alpha $$

    A peaky model gives nearly all frames to the blank, whose prior is then large. Dividing by it
    favours alignments with longer labels, whose first and last frames are right. Align with
    ``forced_align(logits - prior_weight * log_priors, ...)``.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities.
      labels: integer ``[*batch, S]``, without blanks. Batch axes are broadcast, as in `ctc_loss`.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or S where there is none.
      log_priors: float ``[C]``, from `ctc_label_priors`; a constant for differentiation. A
        class whose prior is 0 is not divided.
      prior_weight: The exponent α; 0 gives `ctc_loss`.
      blank_id: The class that is the blank.

    Returns:
      float ``[*batch]``. It may be negative, since it is not a sum of probabilities. An infeasible
      pair has loss ``inf`` and gradient 0.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> logits = jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2]]))
      >>> priors = jaxctc.ctc_label_priors(logits)
      >>> loss = jaxctc.ctc_prior_loss(logits, jnp.array([1]), log_priors=priors, prior_weight=1.0)
      >>> print(np.exp(-loss).round(3))  # three alignments, each with a product of quotients of 1
      3.0

    References:
      Huang et al. 2024, "Less peaky and more accurate CTC forced alignment by label priors",
      eq. 5, arXiv 2406.02560.
    """
    pair = checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    log_priors = checks.logits_array("log_priors", log_priors, ("C",))
    classes = pair.logits.shape[-1]
    if log_priors.shape != (classes,):
        raise ValueError(f"log_priors has shape {log_priors.shape}; it must be ({classes},).")
    weight = checks.real("prior_weight", prior_weight)
    return _ctc_prior_loss(*pair[:4], log_priors, weight, pair.blank_id)


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=6)
def _ctc_prior_loss(logits, labels, logit_lengths, label_lengths, log_priors, weight, blank_id):
    log_priors = widen(lax.stop_gradient(log_priors))
    log_priors = jnp.where(log_priors == -jnp.inf, 0, log_priors)
    inside = frames_inside(logits, logit_lengths)
    # Normalised first: logits may be so large that a difference of normalisers is noise.
    log_probs = log_softmax(logits, inside)
    weight = lax.convert_element_type(weight, log_probs.dtype)
    priors = weight * log_priors.astype(log_probs.dtype)
    divided = log_probs - priors.reshape((1,) * (logits.ndim - 1) + (-1,))
    loss = ctc_loss(divided, labels, logit_lengths, label_lengths, blank_id=blank_id)
    # `ctc_loss` normalises again, which is undone here, for the frames of each sequence.
    put_back = log_normaliser(divided, inside)
    put_back = put_back.reshape((1,) * (loss.ndim + 1 - put_back.ndim) + put_back.shape)
    frame = lax.broadcasted_iota(jnp.int32, (*loss.shape, logits.shape[-2]), loss.ndim)
    put_back = jnp.where(frame < logit_lengths[..., None], put_back, 0)
    possible = loss != jnp.inf
    total = loss - jnp.where(possible, jnp.sum(put_back, axis=-1), 0)
    return jnp.where(possible, total, jnp.inf)
