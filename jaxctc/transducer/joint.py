"""Transducers with a factorised blank (HAT), or with the joint network computed in chunks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes, recursion
from jaxctc.core.emissions import arc_log_probabilities, frames_inside, widen
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import TransducerArcs, cells, flat_pair, readable_labels, unflatten
from jaxctc.transducer.loss import rnnt_log_probs, rnnt_loss_from_log_probs

Joint = Callable[[jax.Array, jax.Array], jax.Array]


def hat_log_probs(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> TransducerArcs:
    r"""Log-probabilities of the hybrid autoregressive transducer (HAT), with a factorised blank.

    The blank is a Bernoulli variable, and labels share the remaining probability:

    $$ b = \sigma(x_{blank}), \quad p(y) = (1 - b) \, \mathrm{softmax}(x_{\neq blank})_y $$

    Arguments and errors are those of `rnnt_loss`.

    Returns:
      `TransducerArcs`, for `rnnt_loss_from_log_probs`, `rnnt_posteriors` and `rnnt_align`.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> labels = jnp.array([1])
      >>> arcs = jaxctc.hat_log_probs(jnp.zeros((1, 2, 3)), labels)
      >>> print(jnp.exp(arcs.blank), jnp.exp(arcs.label))  # a half, and a quarter for each label
      [[0.5 0.5]] [[0.25]]
      >>> loss = jaxctc.rnnt_loss_from_log_probs(*arcs)

    References:
      Variani, Rybach, Allauzen, Riley 2020, "Hybrid autoregressive transducer (HAT)", eqs. 3 and 5,
      arXiv 2003.07705.
    """
    pair = transducer_checks.pair(logits, labels, logit_lengths, label_lengths, blank_id)
    return _hat_log_probs(*pair)


@meshes.jit(trailing=(3, 1, 0, 0), static_argnums=4)
def _hat_log_probs(logits, labels, logit_lengths, label_lengths, blank_id):
    batch = logits.shape[:-3]
    logits, labels, *lengths = flat_pair(logits, labels, logit_lengths, label_lengths)
    inside = cells(*logits.shape[1:3], *lengths)
    read, valid = readable_labels(labels, logits.shape[-1], blank_id)
    blank = jnp.where(inside, widen(logits[..., blank_id]), 0)
    classes = lax.broadcasted_iota(jnp.int32, (1, 1, 1, logits.shape[-1]), 3)
    others = jnp.where(classes == blank_id, -jnp.inf, logits)
    masked, label = arc_log_probabilities(others, read[:, None, :], inside, blank_id)
    # NaN or +inf in any label makes the labels' normaliser NaN, and so `masked`. The blank's arc
    # becomes NaN too, since after the last label it is the only one.
    broken = jnp.isnan(masked) | (blank == jnp.inf)
    label = (jax.nn.log_sigmoid(-blank) + label)[:, :, :-1]
    label = jnp.where(inside[:, :, 1:], label, 0)
    arcs = TransducerArcs(
        jnp.where(broken, jnp.nan, jnp.where(inside, jax.nn.log_sigmoid(blank), 0)),
        jnp.where(valid[:, None, :], label, -jnp.inf),
    )
    return unflatten(arcs, batch)


def rnnt_loss_from_joint(
    joint: Joint,
    encoder: checks.ArrayLike,
    predictor: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    monotonic: bool = False,
    max_symbols: int | None = None,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
    frames_per_chunk: int = 8,
    log_probs: Callable[..., TransducerArcs] = rnnt_log_probs,
) -> jax.Array:
    """The transducer loss with the joint network inside it, so that it never holds all logits.

    Logits are computed for a few frames at a time; only the log-probabilities of the arcs
    are kept, and differentiation computes the logits again. Memory
    is that of ``frames_per_chunk * (U + 1) * C`` logits per sequence, instead of
    ``T * (U + 1) * C``. Loss and gradients are those of `rnnt_loss`.

    Batch axes are broadcast as in numpy: an encoder output ``[T, D]`` goes with the predictor's
    ``[N, U + 1, E]`` and labels ``[N, U]`` of an N-best list, and is copied a chunk at a time.

    Call it inside `jax.jit`, as in a training step: outside, each call compiles again.

    Args:
      joint: A function of an encoder ``[B, t, 1, D]`` and a predictor ``[B, 1, U + 1, E]`` that
        returns logits ``[B, t, U + 1, C]``, for any number t of frames, with one batch axis. It
        may close over parameters, which get gradients.
      encoder: float ``[*batch, T, D]``.
      predictor: float ``[*batch, U + 1, E]``: after no label, after the first, …
      labels, logit_lengths, label_lengths, blank_id, monotonic: As in `rnnt_loss`.
      max_symbols, fastemit_lambda, delay_penalty: As in `rnnt_loss`.
      frames_per_chunk: How many frames' logits are held at once.
      log_probs: The function from logits to the arcs' log-probabilities: `rnnt_log_probs`,
        `hat_log_probs`, or another one with the same arguments.

    Returns:
      float ``[*batch]``, as `rnnt_loss`.

    Raises:
      TypeError: If a dtype, or what a function returns, is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> key = jax.random.key(0)
      >>> weights = jax.random.normal(key, (4, 10))
      >>> encoder, predictor = jnp.ones((30, 4)), jnp.ones((6, 4))
      >>> @jax.jit
      ... def loss(weights, labels):
      ...     joint = lambda e, p: jnp.tanh(e + p) @ weights
      ...     return jaxctc.rnnt_loss_from_joint(joint, encoder, predictor, labels)
      >>> jax.grad(loss)(weights, jnp.array([1, 2, 3, 4, 5])).shape
      (4, 10)
    """
    joint, log_probs = checks.function("joint", joint), checks.function("log_probs", log_probs)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    encoder = checks.logits_array("encoder", encoder, ("T", "D"))
    predictor = checks.logits_array("predictor", predictor, ("U + 1", "E"))
    *own, frames, width = encoder.shape
    others = ("predictor", predictor, 2)
    labels, logit_lengths, label_lengths = checks.labels_and_lengths(
        tuple(own), frames, labels, logit_lengths, label_lengths, others
    )
    batch, spaces = logit_lengths.shape, labels.shape[-1] + 1
    if predictor.shape[-2] != spaces:
        raise ValueError(
            f"predictor has shape {predictor.shape}; it must be [*batch, {spaces}, E]."
        )
    frames_per_chunk = checks.positive("frames_per_chunk", frames_per_chunk)
    predictor = checks.broadcast(predictor, batch, 2)

    # Padding is set to 0 for the joint: NaN there would make its gradient NaN.
    encoder = jnp.where(frames_inside(encoder, logit_lengths)[..., None], encoder, 0)
    predictor = jnp.where(frames_inside(predictor, label_lengths + 1)[..., None], predictor, 0)
    flat_lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    sequences = logit_lengths.size
    predictor = predictor.reshape(sequences, spaces, predictor.shape[-1])
    flat_labels = labels.reshape(sequences, spaces - 1)

    size = min(frames_per_chunk, max(frames, 1))
    chunks = -(-frames // size)
    padding = [(0, 0)] * len(own) + [(0, chunks * size - frames), (0, 0)]
    padded = jnp.pad(encoder, padding).reshape(*own, chunks, size, width)

    def of_chunk(_, chunk):
        frames, start = chunk
        # Of an encoder that is broadcast, only the frames of a chunk are copied.
        frames = checks.broadcast(frames, batch, 2).reshape(sequences, size, width)
        logits = joint(frames[:, :, None, :], predictor[:, None, :, :])
        logits = checks.returned_logits("joint", logits, (*frames.shape[:2], spaces))
        lengths = jnp.clip(flat_lengths[0] - start, 0, size)
        arcs = log_probs(logits, flat_labels, lengths, flat_lengths[1], blank_id=blank_id)
        return None, transducer_checks.returned("log_probs", arcs, TransducerArcs)

    starts = size * jnp.arange(chunks, dtype=jnp.int32)
    _, arcs = meshes.scan(
        jax.checkpoint(of_chunk, prevent_cse=False),
        None,
        (jnp.moveaxis(padded, len(own), 0), starts),
    )

    def unchunked(x):
        """Chunks ``[chunks, B, t, …]`` as ``[*batch, T, …]``."""
        x = x.swapaxes(0, 1).reshape(sequences, chunks * size, x.shape[-1])[:, :frames]
        return x.reshape(*batch, *x.shape[1:])

    loss = rnnt_loss_from_log_probs(
        unchunked(arcs.blank),
        unchunked(arcs.label),
        logit_lengths,
        label_lengths,
        monotonic=monotonic,
        max_symbols=max_symbols,
        fastemit_lambda=fastemit_lambda,
        delay_penalty=delay_penalty,
    )
    return loss if penalties.delay_penalty is not None else recursion.never_negative(loss)
