"""Regularisers of CTC training: small functions that are used with `ctc_loss`.

| function                | purpose                                       | use                   |
|-------------------------|-----------------------------------------------|-----------------------|
| `consistency_loss`      | equal outputs for two views of the same input | added, times a weight |
| `intermediate_ctc_loss` | lower layers that predict the labels too      | instead of `ctc_loss` |
| `self_condition`        | higher layers that read lower predictions     | between two layers    |
| `focal_loss`            | more weight for hard sequences                | around `ctc_loss`     |

For regularisers of alignments see `jaxctc.training.entropy` and `jaxctc.training.priors`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import frames_inside, log_softmax, widen
from jaxctc.ctc.loss import ctc_loss


def consistency_loss(
    logits: checks.ArrayLike,
    other_logits: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
) -> jax.Array:
    r"""How much two views of an input disagree, frame by frame (consistency-regularised CTC).

    $$ L = \tfrac12 \sum_t D_{KL}(\bar q_t \| p_t) + D_{KL}(\bar p_t \| q_t) $$

    where bars mark constants for differentiation. The two views are two augmentations (masks at
    different places) of the same input; add this times 0.2 to the mean of their CTC losses.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities.
      other_logits: of the same shape, from the other view.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.

    Returns:
      float ``[*batch]``, summed over frames as the CTC loss is, never negative. A class that only
      one view masks out by ``-inf`` makes it ``inf``.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> one, two = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.25, 0.75]]))
      >>> print(jaxctc.consistency_loss(one, two).round(4))
      0.1373

    References:
      Yao, Kang, Yang, Kuang, Guo, Zhu, Jin, Lin, Povey 2024, "CR-CTC: consistency regularization
      on CTC for improved speech recognition", eq. 3, arXiv 2410.05101.
    """
    logits, logit_lengths = checks.logits_with_lengths(logits, logit_lengths)
    other = checks.logits_array("other_logits", other_logits)
    if other.shape != logits.shape:
        raise ValueError(f"other_logits has shape {other.shape}; it must be {logits.shape}.")
    return _consistency_loss(logits, other, logit_lengths)


@meshes.jit(trailing=(2, 2, 0))
def _consistency_loss(logits, other, logit_lengths):
    inside = frames_inside(logits, logit_lengths)
    p, q = log_softmax(logits, inside), log_softmax(other, inside)

    def divergence(target, log_probs):
        target = lax.stop_gradient(target)
        used = target != -jnp.inf  # 0 · log 0 is 0
        missing = used & (log_probs == -jnp.inf)  # inf, even if exp(target) underflows
        terms = jnp.exp(target) * (target - jnp.where(used & ~missing, log_probs, 0))
        terms = jnp.where(missing, jnp.inf, jnp.where(used, terms, 0))
        return jnp.sum(terms, axis=(-2, -1))

    return 0.5 * (divergence(q, p) + divergence(p, q))


def intermediate_ctc_loss(
    logits: checks.ArrayLike,
    intermediate_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    intermediate_weight: float | jax.Array = 0.3,
    blank_id: int = 0,
) -> jax.Array:
    r"""CTC losses of the last layer and of layers before it (InterCTC).

    $$ L = (1 - w) L_{last} + w \tfrac1K \sum_k L_k $$

    Args:
      logits: float ``[*batch, T, C]``, of the last layer.
      intermediate_logits: float ``[K, *batch, T, C]``, of K layers before it, with the batch axes
        of `logits`.
      labels: integer ``[*batch, S]``, without blanks. Batch axes are broadcast, as in `ctc_loss`.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or S where there is none.
      intermediate_weight: The weight of the K layers together, w.
      blank_id: The class that is the blank.

    Returns:
      float ``[*batch]``. An infeasible pair has loss ``inf`` and gradient 0.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> logits, labels = jnp.zeros((4, 3)), jnp.array([1, 2])
      >>> loss = jaxctc.intermediate_ctc_loss(logits, jnp.zeros((2, 4, 3)), labels)
      >>> bool(jnp.isclose(loss, jaxctc.ctc_loss(logits, labels)))
      True

    References:
      Lee, Watanabe 2021, "Intermediate loss regularization for CTC-based speech recognition",
      eq. 13, arXiv 2102.03216.
    """
    pair = checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    layers = checks.logits_array("intermediate_logits", intermediate_logits)
    if layers.shape[:1] == (0,) or layers.shape[1:] != pair.logits.shape:
        expected = ", ".join(["K", *map(str, pair.logits.shape)])
        raise ValueError(f"intermediate_logits has shape {layers.shape}; it must be [{expected}].")
    weight = checks.real("intermediate_weight", intermediate_weight)
    return _intermediate_ctc_loss(*pair[:4], layers, weight, pair.blank_id)


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=6)
def _intermediate_ctc_loss(logits, labels, logit_lengths, label_lengths, layers, weight, blank_id):
    def loss(logits):
        return ctc_loss(logits, labels, logit_lengths, label_lengths, blank_id=blank_id)

    last, before = loss(logits), jnp.mean(jax.vmap(loss)(layers), axis=0)
    weight = lax.convert_element_type(weight, last.dtype)
    before = before.astype(last.dtype)
    possible = (last != jnp.inf) & (before != jnp.inf)  # 0 · inf would be NaN
    total = (1 - weight) * jnp.where(possible, last, 0) + weight * jnp.where(possible, before, 0)
    return jnp.where(possible, total, jnp.inf)


def self_condition(
    hidden: checks.ArrayLike,
    logits: checks.ArrayLike,
    projection: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
) -> jax.Array:
    """Adds a layer's predictions to the input of the layers above it (self-conditioned CTC).

    ``hidden + softmax(logits) @ projection``: between two layers of an encoder, with `logits` that
    `intermediate_ctc_loss` trains.

    Args:
      hidden: float ``[*batch, T, D]``, the output of the layer.
      logits: float ``[*batch, T, C]``, predicted from it.
      projection: float ``[C, D]``, one for all layers.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T. Past them
        `hidden` is not changed.

    Returns:
      An array of the shape and dtype of `hidden`.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> hidden, logits = jnp.ones((1, 2)), jnp.log(jnp.array([[0.75, 0.25]]))
      >>> print(jaxctc.self_condition(hidden, logits, jnp.eye(2)))
      [[1.75 1.25]]

    References:
      Nozaki, Komatsu 2021, "Relaxing the conditional independence assumption of CTC-based ASR by
      conditioning on intermediate predictions", eqs. 11 and 12, arXiv 2104.02724.
    """
    hidden = checks.logits_array("hidden", hidden, ("T", "D"))
    logits = checks.logits_array("logits", logits)
    projection = checks.logits_array("projection", projection, ("C", "D"))
    if logits.shape[:-1] != hidden.shape[:-1]:
        expected = ", ".join([*map(str, hidden.shape[:-1]), "C"])
        raise ValueError(f"logits has shape {logits.shape}; it must be [{expected}].")
    if projection.shape != (logits.shape[-1], hidden.shape[-1]):
        expected = logits.shape[-1], hidden.shape[-1]
        raise ValueError(f"projection has shape {projection.shape}; it must be {expected}.")
    *batch, frames, _ = logits.shape
    lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)
    return _self_condition(hidden, logits, projection, lengths)


@meshes.jit(trailing=(2, 2, None, 0))
def _self_condition(hidden, logits, projection, lengths):
    inside = frames_inside(logits, lengths)
    probabilities = jnp.exp(log_softmax(logits, inside))
    condition = jnp.where(inside[..., None], probabilities, 0) @ widen(projection)
    return (widen(hidden) + condition).astype(hidden.dtype)


def focal_loss(
    losses: checks.ArrayLike, *, alpha: float | jax.Array = 1.0, gamma: float | jax.Array = 2.0
) -> jax.Array:
    r"""Losses weighted by how improbable the labels are (focal CTC).

    $$ \alpha (1 - p)^\gamma L \quad\text{with}\quad p = e^{-L} $$

    Sequences that the model predicts with confidence count less, and so rare labels count more.

    Args:
      losses: float, of any shape: negative log-probabilities, such as those of `ctc_loss`.
      alpha: A factor of all losses.
      gamma: At least 0; with 0 all losses have the same weight.

    Returns:
      An array of the shape of `losses`. ``inf`` stays ``inf``, with a finite gradient.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If `gamma` is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> losses = -jnp.log(jnp.array([0.5, 0.9]))
      >>> print((jaxctc.focal_loss(losses) / losses).round(3))
      [0.25 0.01]

    References:
      Feng, Yao, Zhang 2019, "Focal CTC loss for Chinese optical character recognition on
      unbalanced datasets", eq. 9.
    """
    losses = checks.logits_array("losses", losses, ())
    alpha, gamma = checks.real("alpha", alpha), checks.real_from_zero("gamma", gamma)
    return _focal_loss(losses, alpha, gamma)


@meshes.jit(trailing=(0,))
def _focal_loss(losses, alpha, gamma):
    losses = widen(losses)
    alpha, gamma = (lax.convert_element_type(x, losses.dtype) for x in (alpha, gamma))
    # Powers and products have no derivative at the ends, where the weight is 0 or 1.
    between = (losses > 0) & (losses < jnp.inf)
    safe = jnp.where(between, losses, 1)
    weighted = alpha * (-jnp.expm1(-safe)) ** gamma * safe
    at_ends = alpha * jnp.where((losses == 0) & (gamma > 0), 0, losses)
    return jnp.where(between, weighted, at_ends)
