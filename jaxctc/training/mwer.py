"""Minimum word error rate training: the expected number of errors over an N-best list.

With hypotheses y_i of probability P(y_i) and W_i errors, renormalised over the list
(Prabhavalkar et al. 2018, eqs. 5–7)::

    P̂_i = P(y_i) / Σ_j P(y_j),   L = Σ_i P̂_i (W_i − W̄),   ∂L/∂log P(y_i) = P̂_i (W_i − Σ_j P̂_j W_j)

W̄, the list's mean number of errors, moves the value towards 0 and does not change the gradient.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import widen
from jaxctc.ctc.beam import ctc_beam_search
from jaxctc.ctc.loss import ctc_loss
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer
from jaxctc.metrics import edit_distance


def mwer_loss(
    hypothesis_scores: checks.ArrayLike, hypothesis_errors: checks.ArrayLike
) -> jax.Array:
    """The expected number of errors over an N-best list, minus the list's mean (MWER).

    Scores may come from any model: CTC, a transducer, an attention decoder. They are
    differentiated. Errors, of words, characters or anything else, are constants.

    Args:
      hypothesis_scores: float ``[*batch, N]``, log-probabilities, which are renormalised over the
        list; ``-inf`` where there is no hypothesis. Half precision is computed in float32.
      hypothesis_errors: integer or float ``[*batch, N]``, the number of errors of each hypothesis;
        not read where there is none.

    Returns:
      float ``[*batch]``, negative if better hypotheses are more probable than worse ones. With
      fewer than two hypotheses it is 0, with gradient 0. If the scores of a list contain NaN, its
      loss is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxctc
      >>> scores = jnp.log(jnp.array([0.2, 0.2, 0.1, 0.0]))  # the list has three
      >>> errors = jnp.array([0, 1, 2, 9])
      >>> loss, gradient = jax.value_and_grad(jaxctc.mwer_loss)(scores, errors)
      >>> print(loss.round(3))  # 0.4 · 0 + 0.4 · 1 + 0.2 · 2, and the mean is 1
      -0.2
      >>> print(np.asarray(gradient).round(3))
      [-0.32  0.08  0.24  0.  ]

    References:
      Prabhavalkar, Sainath, Wu, Nguyen, Chen, Chiu, Kannan 2018, "Minimum word error rate training
      for attention-based sequence-to-sequence models", eq. 7, arXiv 1712.01818.
    """
    scores = checks.logits_array("hypothesis_scores", hypothesis_scores, ("N",))
    errors = checks.numbers_array("hypothesis_errors", hypothesis_errors, scores.shape)
    return _mwer_loss(scores, errors)


@meshes.jit(trailing=(1, 1))
def _mwer_loss(scores, errors):
    scores = widen(scores)
    exists = scores != -jnp.inf  # NaN is passed on
    errors = jnp.where(exists, lax.stop_gradient(errors).astype(scores.dtype), 0)
    top = jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf)
    top = lax.stop_gradient(jnp.where(top != -jnp.inf, top, 0))
    weights = jnp.where(exists, jnp.exp(jnp.where(exists, scores - top, 0)), 0)
    total = jnp.sum(weights, axis=-1)
    count = jnp.sum(exists, axis=-1, dtype=scores.dtype)
    mean = jnp.sum(errors, axis=-1) / jnp.maximum(count, 1)
    above = jnp.where(exists, errors - jnp.expand_dims(mean, -1), 0)
    return jnp.sum(weights * above, axis=-1) / jnp.where(count == 0, 1, total)


def ctc_mwer_loss(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    beam_width: int = 4,
    ctc_weight: float | jax.Array = 0.01,
    max_labels: int | None = None,
    blank_id: int = 0,
    scorer: Scorer | None = None,
    scorer_weight: checks.ArrayLike = 1.0,
) -> jax.Array:
    """MWER training of a CTC model: searches, scores and counts errors in one function.

    The hypotheses are those of `ctc_beam_search`. No gradient goes through the search; each
    hypothesis is then scored by `ctc_loss`, exactly and over all its alignments. Start
    from a model that was trained with `ctc_loss`: only hypotheses that are found are learnt.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities.
      labels: integer ``[*batch, S]``, without blanks. Batch axes are broadcast, as in `ctc_loss`;
        the search alone copies logits that are shared.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or S where there is none.
      beam_width: The number of hypotheses, N.
      ctc_weight: The factor of the CTC loss, which is added and keeps training stable.
      max_labels: The most labels of a hypothesis; None means 2 S, but no more than T. Time grows
        with it.
      blank_id: The class that is the blank.
      scorer: A `Scorer` for the search, if one will be there when the model is used. Its scores
        of the hypotheses, as constants, are added to their log-probabilities. Hypotheses that
        are not complete are left out.
      scorer_weight: The factor of its scores.

    Returns:
      float ``[*batch]``, `mwer_loss` plus `ctc_weight` times `ctc_loss`. An infeasible pair has
      loss ``inf`` and gradient 0, whatever `ctc_weight` is.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxctc
      >>> logits = jnp.log(jnp.array([[0.6, 0.4], [0.6, 0.4]]))  # blank and one label
      >>> loss = lambda x: jaxctc.ctc_mwer_loss(x, jnp.array([1]), ctc_weight=0)
      >>> value, gradient = jax.value_and_grad(loss)(logits)
      >>> print(value.round(3))  # "1" with 0.64 has no error, "" with 0.36 one: 0.36 - 0.5
      -0.14
      >>> print(np.asarray(gradient).round(3))  # descent makes the label more probable
      [[ 0.144 -0.144]
       [ 0.144 -0.144]]

    References:
      Prabhavalkar et al. 2018, "Minimum word error rate training for attention-based
      sequence-to-sequence models", eqs. 7 and 8, arXiv 1712.01818.
    """
    pair = checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    frames, width = pair.logits.shape[-2], pair.labels.shape[-1]
    beam_width = checks.positive("beam_width", beam_width)
    if max_labels is None:
        max_labels = max(1, min(frames, 2 * width))
    max_labels = checks.positive("max_labels", max_labels)
    weight = checks.real("ctc_weight", ctc_weight)
    if scorer is not None:
        language_checks.scorer("scorer", scorer, pair.logits.shape[-1])
    scoring = scorer, jnp.asarray(checks.finite("scorer_weight", scorer_weight))
    return _ctc_mwer_loss(*pair[:4], weight, scoring, pair.blank_id, beam_width, max_labels)


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=(6, 7, 8))
def _ctc_mwer_loss(
    logits,
    labels,
    logit_lengths,
    label_lengths,
    ctc_weight,
    scoring,
    blank_id,
    beam_width,
    max_labels,
):
    scorer, scorer_weight = scoring
    # Only the search has a copy of logits that are broadcast: lengths may differ.
    found = ctc_beam_search(
        checks.broadcast(lax.stop_gradient(logits), logit_lengths.shape, 2),
        logit_lengths,
        beam_width=beam_width,
        max_labels=max_labels,
        blank_id=blank_id,
        scorer=scorer,
        scorer_weight=scorer_weight,
    )

    # All hypotheses share one sequence of logits, which is normalised once.
    scores = -ctc_loss(
        jnp.expand_dims(logits, -3),
        found.labels,
        logit_lengths[..., None],
        found.lengths,
        blank_id=blank_id,
    )
    known = found.complete | jnp.isnan(found.scores)
    scores += lax.stop_gradient(scorer_weight * found.scorer_scores).astype(scores.dtype)
    scores = jnp.where(known, scores, -jnp.inf)
    errors = edit_distance(
        found.labels, jnp.expand_dims(labels, -2), found.lengths, label_lengths[..., None]
    )
    expected = mwer_loss(scores, errors)
    reference = ctc_loss(logits, labels, logit_lengths, label_lengths, blank_id=blank_id)
    possible = reference != jnp.inf
    ctc_weight = lax.convert_element_type(ctc_weight, reference.dtype)
    total = expected + ctc_weight * jnp.where(possible, reference, 0)
    return jnp.where(possible, total, jnp.inf)
