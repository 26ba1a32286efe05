"""`optax.ctc_loss` with optax's arguments, computed by this package.

Losses are those of `optax.ctc_loss` on every feasible pair. An infeasible pair has
loss ``inf`` and gradient 0, where optax gives a large finite loss with a gradient; `jaxctc.explain`
says why a pair is infeasible.
"""

import jax
import jax.numpy as jnp

from jaxctc import ctc
from jaxctc.core import checks, meshes, recursion
from jaxctc.ctc.lattice import lattice


def ctc_loss(
    logits: checks.ArrayLike,
    logit_paddings: checks.ArrayLike,
    labels: checks.ArrayLike,
    label_paddings: checks.ArrayLike,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> jax.Array:
    """`optax.ctc_loss`: the CTC loss of every sequence, from arrays and their paddings.

    Args:
      logits: float ``(B, T, K)``.
      logit_paddings: ``(B, T)``, 1 at padded frames and 0 elsewhere; padding comes last.
      labels: integer ``(B, N)``.
      label_paddings: ``(B, N)``, 1 at padded labels and 0 elsewhere; padding comes last.
      blank_id: The class that is the blank.
      log_epsilon: Accepted for compatibility, but not used.

    Returns:
      float ``(B,)``. Under `jax.jit` the loss of a sequence with padding at another place is
      ``inf``.

    Raises:
      TypeError, ValueError: If an argument is not as described.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import optax
      >>> logits, labels = jnp.zeros((1, 5, 3)), jnp.array([[1, 2, 0]])
      >>> loss = optax.ctc_loss(logits, jnp.array([[0, 0, 0, 0, 1]]), labels, labels == 0)
      >>> print(f"{loss[0]:.4f}")
      1.6864
    """
    del log_epsilon
    return ctc.ctc_loss(
        *_lengths(logits, logit_paddings, labels, label_paddings), blank_id=blank_id
    )


def ctc_loss_with_forward_probs(
    logits: checks.ArrayLike,
    logit_paddings: checks.ArrayLike,
    labels: checks.ArrayLike,
    label_paddings: checks.ArrayLike,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`optax.ctc_loss_with_forward_probs`: the loss and the forward variables.

    Args:
      logits, logit_paddings, labels, label_paddings, blank_id: As for `ctc_loss`.
      log_epsilon: The value of forward variables of states that can not be reached.

    Returns:
      A tuple ``(loss, logalpha_phi, logalpha_emit)`` of float ``(B,)``; ``(T, B, N + 1)``, the
      log-probability of the first t frames ending in the blank after n labels; ``(T, B, N)``,
      of their ending in the n-th label. Past a sequence's length they keep their last values.
      The last row of `logalpha_phi` also includes paths that end in the n-th label, as in optax.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import optax
      >>> padding = jnp.zeros((1, 2))
      >>> loss, blank, label = optax.ctc_loss_with_forward_probs(
      ...     jnp.zeros((1, 2, 2)), padding, jnp.array([[1, 1]]), padding
      ... )
      >>> print(jnp.exp(blank[1, 0]))  # two blanks; three ways to one label; none to two
      [0.25 0.75 0.  ]
    """
    arguments = _lengths(logits, logit_paddings, labels, label_paddings)
    pair = checks.sequence_pair(*arguments, blank_id)
    blank, label = (x.swapaxes(0, 1) for x in _forward(*pair, float(log_epsilon)))
    return ctc.ctc_loss(*arguments, blank_id=blank_id), blank, label


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=(4, 5))
def _forward(logits, labels, logit_lengths, label_lengths, blank_id, log_epsilon):
    topology, scores, *_ = lattice(logits, labels, logit_lengths, label_lengths, blank_id)
    frames = logits.shape[1]
    last = jnp.minimum(
        jnp.arange(frames, dtype=jnp.int32)[:, None], jnp.maximum(logit_lengths - 1, 0)[None, :]
    )

    def as_in_optax(alphas):
        by_state = alphas.transpose(0, 2, 1) if topology.axis == 0 else alphas
        kept = jnp.take_along_axis(by_state, last[:, :, None], 0)
        return jnp.maximum(kept, log_epsilon)

    blank, label = map(as_in_optax, recursion.forward_log_weights(topology, scores))
    if frames:
        blank = blank.at[-1].set(jnp.logaddexp(blank[-1], label[-1]))
    return blank.swapaxes(0, 1), label[:, :, 1:].swapaxes(0, 1)


def _lengths(logits, logit_paddings, labels, label_paddings):
    """The same sequences with lengths in place of paddings."""
    logits = checks.logits_array("logits", logits, ("B", "T", "K"))
    labels = checks.labels_array("labels", labels, logits.shape[:1])
    return (
        logits,
        labels,
        checks.lengths_of_paddings("logit_paddings", logit_paddings, logits.shape[:2]),
        checks.lengths_of_paddings("label_paddings", label_paddings, labels.shape),
    )
