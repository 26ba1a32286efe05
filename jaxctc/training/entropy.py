"""The entropy of a sequence's alignments, which keeps CTC from settling on one of them early."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes, recursion
from jaxctc.ctc.lattice import flatten, lattice


def ctc_entropy(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> jax.Array:
    r"""The entropy of the alignments of the labels (maximum entropy CTC).

    .. math:: H = -\sum_\pi p(\pi | y, x) \log p(\pi | y, x) = \log Z - E[\log p(\pi | x)]

    CTC tends to put all on one alignment early in training, and to stay there. Subtract a part
    of this from the loss, 0.1 or 0.2 of it, and others stay possible.

    Arguments and errors are those of `ctc_loss`.

    Returns:
      float ``[*batch]``, in nats, never negative. Where there is no alignment: 0, and so is the
      gradient. A NaN or ``+inf`` among a sequence's own logits makes it NaN.

    Example:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> entropy = jaxctc.ctc_entropy(jnp.zeros((4, 3)), jnp.array([1, 2]))
      >>> print(np.exp(entropy).round(3))  # that many alignments, all equally probable
      15.0

    References:
      Liu, Jin, Zhang 2018, "Connectionist temporal classification with maximum entropy
      regularization", eq. 6.
    """
    return _ctc_entropy(
        *checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    )


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=4)
def _ctc_entropy(logits, labels, logit_lengths, label_lengths, blank_id):
    topology, scores, possible = lattice(
        *flatten(logits, labels, logit_lengths, label_lengths), blank_id
    )
    # The derivative of log Z in the direction of the scores is their sum along a path, expected.
    # What is impossible is on no path. A constant may be taken from all scores of a frame, for both
    # lose it alike: with their mean, what remains is small and its rounding too.
    _, posteriors = recursion.posteriors(topology, lax.stop_gradient(scores))
    finite = lax.stop_gradient(jnp.where(scores == -jnp.inf, 0, scores))
    scores -= jnp.sum(posteriors * finite, topology.axis + 1, keepdims=True)
    direction = jnp.where(scores == -jnp.inf, 0, scores)
    log_z, expected = jax.jvp(
        lambda scores: recursion.log_partition(topology, scores), (scores,), (direction,)
    )
    possible &= log_z != -jnp.inf
    entropy = jnp.where(possible | jnp.isnan(log_z), log_z - expected, 0)
    return recursion.never_negative(entropy).reshape(logits.shape[:-2])
