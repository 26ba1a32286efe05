"""Transducers whose joint adds encoder and predictor, instead of joining them by a network.

The normaliser is a product of matrices, and no array has size T × U × C (Kuang et al. 2022).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes, recursion
from jaxctc.core.emissions import log_normaliser, log_softmax, widen
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import TransducerArcs, cells, readable_labels, unflatten
from jaxctc.transducer.loss import rnnt_loss_from_log_probs

# Below this a sum of products may have lost terms to underflow.
_SMALLEST = 1e-30


def rnnt_simple_log_probs(
    encoder_logits: checks.ArrayLike,
    predictor_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    lm_only_scale: float = 0.0,
    am_only_scale: float = 0.0,
) -> TransducerArcs:
    """Log-probabilities of a joint that adds: ``softmax(encoder_logits + predictor_logits)``.

    They may be smoothed, so that pruning does not rely on the lattice too early: they are mixed
    with the log-probabilities of the predictor alone (`lm_only_scale`), and of the encoder with
    the predictor replaced by its mean over the sequence (`am_only_scale`).

    Args:
      encoder_logits: float ``[*batch, T, C]``.
      predictor_logits: float ``[*batch, U + 1, C]``: after no label, after the first, …
      labels: integer ``[*batch, U]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or U where there is none.
      blank_id: The class that is the blank.
      lm_only_scale, am_only_scale: Weights in 0…1 with a sum of at most 1.

    Returns:
      `TransducerArcs`, for `rnnt_loss_from_log_probs` and `rnnt_posteriors`.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, `blank_id` or a scale are out of
        range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> labels = jnp.array([1, 2])
      >>> arcs = jaxctc.rnnt_simple_log_probs(jnp.zeros((4, 3)), jnp.zeros((3, 3)), labels)
      >>> loss = jaxctc.rnnt_loss_from_log_probs(*arcs)
      >>> posteriors = jaxctc.rnnt_posteriors(*arcs)

    References:
      Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training", eqs. 4–9,
      arXiv 2206.13236. There the mean is over a batch, here over the sequence, so that a
      sequence's loss does not depend on its neighbours.
    """
    encoder = checks.logits_array("encoder_logits", encoder_logits)
    *batch, frames, classes = encoder.shape
    labels = checks.labels_array("labels", labels, tuple(batch))
    spaces = labels.shape[-1] + 1
    predictor = checks.logits_array("predictor_logits", predictor_logits, ("U + 1", "C"))
    if predictor.shape != (*batch, spaces, classes):
        expected = (*batch, spaces, classes)
        raise ValueError(f"predictor_logits has shape {predictor.shape}; it must be {expected}.")
    return _simple_log_probs(
        encoder,
        predictor,
        labels,
        checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames),
        checks.lengths_of_labels("label_lengths", label_lengths, labels),
        checks.class_id("blank_id", blank_id, classes),
        *checks.shares(lm_only_scale=lm_only_scale, am_only_scale=am_only_scale),
    )


@meshes.jit(trailing=(2, 2, 1, 0, 0), static_argnums=(5, 6, 7))
def _simple_log_probs(
    encoder, predictor, labels, logit_lengths, label_lengths, blank_id, lm_scale, am_scale
):
    batch, (frames, classes), spaces = (
        logit_lengths.shape,
        encoder.shape[-2:],
        predictor.shape[-2],
    )
    size = logit_lengths.size
    lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    inside = cells(frames, spaces, *lengths)
    read_frames = jnp.arange(frames, dtype=jnp.int32)[None, :] < lengths[0][:, None]
    read_spaces = jnp.arange(spaces, dtype=jnp.int32)[None, :] <= lengths[1][:, None]
    encoder = widen(encoder.reshape(size, frames, classes))
    encoder = jnp.where(read_frames[:, :, None], encoder, 0)
    predictor = widen(predictor.reshape(size, spaces, classes))
    predictor = jnp.where(read_spaces[:, :, None], predictor, 0)
    read, valid = readable_labels(labels.reshape(size, spaces - 1), classes, blank_id)

    def arcs(of_encoder, of_predictor, normaliser):
        """The blank's and the label's log-probabilities, [B, T, U + 1] each."""
        columns = jnp.take_along_axis(of_encoder, read[:, None, :], axis=2)
        labels = jnp.take_along_axis(of_predictor, read[:, :, None], axis=2)[:, :, 0]
        blank = of_encoder[:, :, None, blank_id] + of_predictor[:, None, :, blank_id]
        return blank - normaliser, columns + labels[:, None, :] - normaliser

    mixture = [
        (1.0 - lm_scale - am_scale, arcs(encoder, predictor, _normaliser(encoder, predictor)))
    ]
    if lm_scale:
        alone = log_softmax(predictor, read_spaces)
        mixture.append((lm_scale, arcs(jnp.zeros_like(encoder), alone, 0.0)))
    if am_scale:
        mean = _log_mean(log_softmax(predictor, read_spaces), read_spaces)
        joined = log_softmax(encoder + mean[:, None, :], read_frames)
        mixture.append((am_scale, arcs(joined, jnp.zeros_like(predictor), 0.0)))
    mixed = [[share * x for x in arc] for share, arc in mixture if share]
    blank, label = (functools.reduce(jnp.add, terms) for terms in zip(*mixed, strict=True))
    label = jnp.where(inside[:, :, 1:], label[:, :, :-1], 0)
    label = jnp.where(valid[:, None, :], label, -jnp.inf)
    return unflatten(TransducerArcs(jnp.where(inside, blank, 0), label), batch)


def _log_mean(log_probs: jax.Array, inside: jax.Array) -> jax.Array:
    """Logarithm of the mean probability of each class, ``[B, C]``, over the places inside.

    Computed from logarithms: a probability may underflow, and log 0 has no derivative.
    """
    by_class = jnp.where(inside[:, :, None], log_probs, -jnp.inf).swapaxes(1, 2)
    possible = jnp.max(by_class, axis=2) != -jnp.inf  # NaN is passed on
    total = log_normaliser(by_class, possible)
    count = jnp.maximum(jnp.sum(inside, axis=1, dtype=log_probs.dtype), 1)
    return jnp.where(possible, total - jnp.log(count)[:, None], -jnp.inf)


def _normaliser(encoder: jax.Array, predictor: jax.Array) -> jax.Array:
    """``logsumexp(encoder[t] + predictor[u])`` over the classes, [B, T, U + 1]."""

    def by_product(encoder, predictor):
        tops, factors = [], []
        for x in (encoder, predictor):
            top = lax.stop_gradient(jnp.max(x, axis=2, keepdims=True))
            tops.append(jnp.where(jnp.isfinite(top), top, 0))
            factors.append(jnp.exp(x - tops[-1]))
        products = jnp.einsum("btc,buc->btu", *factors, precision=lax.Precision.HIGHEST)
        return products, tops[0] + tops[1].swapaxes(1, 2)

    def fast(encoder, predictor):
        products, top = by_product(encoder, predictor)
        return jnp.log(products) + top

    def exact(encoder, predictor):
        # Frame by frame: no array has size T × U × C here either.
        def of_frame(_, frame):
            sums = frame[:, None, :] + predictor
            # 0 if all classes are -inf; the arcs are -inf then.
            return None, log_normaliser(sums, jnp.ones(sums.shape[:2], bool))

        _, sums = meshes.scan(jax.checkpoint(of_frame), None, encoder.swapaxes(0, 1))
        return sums.swapaxes(0, 1)

    products, _ = by_product(*lax.stop_gradient((encoder, predictor)))
    usable = (products > _SMALLEST) & (products < jnp.inf)  # neither is NaN
    return lax.cond(jnp.all(usable), fast, exact, encoder, predictor)


def rnnt_loss_simple(
    encoder_logits: checks.ArrayLike,
    predictor_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    monotonic: bool = False,
    max_symbols: int | None = None,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
    lm_only_scale: float = 0.0,
    am_only_scale: float = 0.0,
) -> jax.Array:
    """The transducer loss of a joint that adds; memory is T × C + U × C + T × U.

    Arguments and errors are those of `rnnt_simple_log_probs`; `monotonic`, `max_symbols`,
    `fastemit_lambda` and `delay_penalty` are those of `rnnt_loss`.

    Returns:
      float ``[*batch]``, as `rnnt_loss` of ``encoder_logits[t] + predictor_logits[u]``.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> encoder, predictor = jnp.zeros((4, 3)), jnp.ones((3, 3))
      >>> simple = jaxctc.rnnt_loss_simple(encoder, predictor, jnp.array([1, 2]))
      >>> full = jaxctc.rnnt_loss(encoder[:, None, :] + predictor[None, :, :], jnp.array([1, 2]))
      >>> print(jnp.allclose(simple, full))
      True
    """
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    arcs = rnnt_simple_log_probs(
        encoder_logits,
        predictor_logits,
        labels,
        logit_lengths,
        label_lengths,
        blank_id=blank_id,
        lm_only_scale=lm_only_scale,
        am_only_scale=am_only_scale,
    )
    labels = checks.integer_array("labels", labels)
    label_lengths = checks.lengths_of_labels("label_lengths", label_lengths, labels)
    loss = rnnt_loss_from_log_probs(
        *arcs,
        logit_lengths,
        label_lengths,
        monotonic=monotonic,
        max_symbols=max_symbols,
        fastemit_lambda=fastemit_lambda,
        delay_penalty=delay_penalty,
    )
    # Mixed logarithms, too, are of probabilities with a sum of at most 1 (Hölder).
    return loss if penalties.delay_penalty is not None else recursion.never_negative(loss)
