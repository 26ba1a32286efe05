"""The transducer loss, in one step or in two: log-probabilities of the arcs, and their total."""

import jax

from jaxctc.core import checks, meshes
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import (
    TransducerArcs,
    arcs_of_logits,
    flat_pair,
    total,
    total_of_batches,
    unflatten,
)


def rnnt_loss(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    monotonic: bool = False,
    max_symbols: int | None = None,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    r"""The transducer (RNN-T) loss, ``-log p(labels | logits)``, of every sequence.

    $$ L = -\log \sum_{a \in \mathcal B^{-1}(y)} \prod_{i=1}^{T+U} p(a_i | t_i, u_i) $$

    where the sum is over all sequences of the U labels and T blanks that end with a blank.
    The gradient is exact in float32 at any length, and all of `jax.grad`, `jax.jvp`,
    `jax.hessian`, `jax.vmap` and `jax.jit` apply. Padding is never read, and its gradient is 0.

    Batch axes are broadcast as in numpy. Logits that are broadcast are copied: those of a
    transducer mostly depend on the labels. For an N-best list and one encoder output, use
    `rnnt_loss_from_joint`.

    Args:
      logits: float ``[*batch, T, U + 1, C]``, the joint network's output after t frames and u
        labels; unnormalised or log-probabilities: they are normalised inside. Half
        precision is computed in float32.
      labels: integer ``[*batch, U]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or U where there is none.
      blank_id: The class that is the blank.
      monotonic: Whether a label takes its frame, so that every frame has exactly one symbol:
        Tripathi et al.'s monotonic RNN-T, k2's "modified" transducer.
      max_symbols: The most labels at one frame; a blank follows them. None means any number, 1 is
        k2's "constrained" transducer. Time grows with it. Without effect if `monotonic`.
      fastemit_lambda: FastEmit's factor, from 0 up; 0.001…0.01 is usual. The gradient of the
        labels' log-probabilities is multiplied by ``1 + fastemit_lambda``, that of blanks is not.
        The loss is multiplied by ``1 + fastemit_lambda``, as NeMo's is.
      delay_penalty: Added to the log-probability of a label at frame t, times ``(T - 1) / 2 - t``,
        with the T of its sequence, as in k2: labels before the middle gain, later ones lose. Then
        the loss may be negative, as it is no log-probability.

    Returns:
      float ``[*batch]``, never negative without `delay_penalty`. An infeasible pair has loss
      ``inf`` and gradient 0. It is one without frames, with a label that is not a class or is the
      blank, with more labels than frames if `monotonic` or than `max_symbols` allows, or, under
      `jit`, with a length out of range. If a sequence's own logits contain NaN, its loss is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> logits = jnp.zeros((2, 3, 5))  # two frames, two labels, five classes
      >>> loss = jaxctc.rnnt_loss(logits, jnp.array([1, 2]))
      >>> print(jnp.round(jnp.exp(-loss) * 5**4))  # three paths of four arcs
      3.0
      >>> gradient = jax.grad(jaxctc.rnnt_loss)(logits, jnp.array([1, 2]))
      >>> gradient.shape
      (2, 3, 5)

    References:
      Graves 2012, "Sequence transduction with recurrent neural networks", arXiv 1211.3711.
      Tripathi, Lu, Sak, Soltau 2019, "Monotonic recurrent neural network transducer".
      Yu et al. 2021, "FastEmit: low-latency streaming ASR with sequence-level emission
      regularization", arXiv 2010.11148.
      Kang et al. 2023, "Delay-penalized transducer for low-latency streaming ASR",
      arXiv 2211.00490.
    """
    pair = transducer_checks.pair(logits, labels, logit_lengths, label_lengths, blank_id)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    return _rnnt_loss(*pair, transducer_checks.emission(monotonic, max_symbols), penalties)


@meshes.jit(trailing=(3, 1, 0, 0), static_argnums=(4, 5))
def _rnnt_loss(logits, labels, logit_lengths, label_lengths, blank_id, emission, penalties):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    log_z = total(arcs_of_logits(*flat, blank_id), *flat[2:], emission, penalties)
    return penalty.loss_of(log_z, penalties).reshape(logits.shape[:-3])


def rnnt_log_probs(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> TransducerArcs:
    """Log-probabilities of the blank and of the next label after t frames and u labels.

    Arguments and errors are those of `rnnt_loss`, of which this is the first half; the second is
    `rnnt_loss_from_log_probs`.

    Returns:
      `TransducerArcs`, float ``blank [*batch, T, U + 1]`` and ``label [*batch, T, U]``; 0 past
      a length, ``-inf`` for a label that is not a class or is the blank.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> labels = jnp.array([1, 2])
      >>> arcs = jaxctc.rnnt_log_probs(jnp.zeros((2, 3, 5)), labels)
      >>> print(arcs.blank.shape, arcs.label.shape)
      (2, 3) (2, 2)
      >>> alignment = jaxctc.rnnt_align(*arcs)
    """
    return _rnnt_log_probs(
        *transducer_checks.pair(logits, labels, logit_lengths, label_lengths, blank_id)
    )


@meshes.jit(trailing=(3, 1, 0, 0), static_argnums=4)
def _rnnt_log_probs(logits, labels, logit_lengths, label_lengths, blank_id):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    return unflatten(arcs_of_logits(*flat, blank_id), logits.shape[:-3])


def rnnt_loss_from_log_probs(
    blank_log_probs: checks.ArrayLike,
    label_log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    monotonic: bool = False,
    max_symbols: int | None = None,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    """The transducer loss from log-probabilities of the lattice's arcs, which are not normalised.

    Args:
      blank_log_probs: float ``[*batch, T, U + 1]``, of the blank after t frames and u labels.
      label_log_probs: float ``[*batch, T, U]``, of label u after t frames and u labels.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U, since the
        labels are not known here: if they are padded, give their lengths.
      monotonic: Whether a label takes its frame, as in `rnnt_loss`.
      max_symbols, fastemit_lambda, delay_penalty: As in `rnnt_loss`.

    Returns:
      float ``[*batch]``, ``inf`` where there is no path. If a sequence's own arcs contain NaN or
      ``+inf``, its loss is NaN. The gradient is minus the posterior of each arc, with FastEmit
      multiplied by ``1 + fastemit_lambda`` for labels.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> blank, label = jnp.log(jnp.full((2, 3), 0.5)), jnp.log(jnp.full((2, 2), 0.5))
      >>> loss = jaxctc.rnnt_loss_from_log_probs(blank, label)
      >>> print(jnp.round(jnp.exp(-loss) * 2**4))  # three paths of four arcs
      3.0
    """
    arcs = transducer_checks.arcs(blank_log_probs, label_log_probs, logit_lengths, label_lengths)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    log_z = total_of_batches(*arcs, transducer_checks.emission(monotonic, max_symbols), penalties)
    return penalty.loss_of(log_z, penalties, never_negative=False)
