"""The entropy of a sequence's alignments, which keeps CTC from choosing one of them too early."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes, recursion
from jaxctc.ctc.lattice import flatten, lattice, unflatten


def ctc_entropy(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> jax.Array:
    r"""The entropy of the alignments of the labels (maximum entropy CTC).

    $$ H = -\sum_\pi p(\pi | y, x) \log p(\pi | y, x) = \log Z - E[\log p(\pi | x)] $$

    CTC tends to give all probability to one alignment early in training. Subtract this
    entropy times 0.1 or 0.2 from the loss, so that other alignments stay possible.

    Arguments and errors are those of `ctc_loss`.

    Returns:
      float ``[*batch]``, in nats, never negative. For an infeasible pair it is 0, and so is its
      gradient. If a sequence's own logits contain NaN or ``+inf``, it is NaN.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> entropy = jaxctc.ctc_entropy(jnp.zeros((4, 3)), jnp.array([1, 2]))
      >>> print(np.exp(entropy).round(3))  # the number of alignments, all equally probable
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
    # The derivative of log Z in the direction of the scores is the expected sum of the scores along
    # a path; scores of -inf are on no path. Subtracting a constant from all scores of a frame
    # changes log Z and this sum alike: the mean is subtracted, so both are small and round less.
    _, posteriors = recursion.posteriors(topology, lax.stop_gradient(scores))
    finite = lax.stop_gradient(jnp.where(scores == -jnp.inf, 0, scores))
    scores -= jnp.sum(posteriors * finite, topology.axis + 1, keepdims=True)
    direction = jnp.where(scores == -jnp.inf, 0, scores)
    log_z, expected = jax.jvp(
        lambda scores: recursion.log_partition(topology, scores), (scores,), (direction,)
    )
    possible &= log_z != -jnp.inf
    entropy = jnp.where(possible | jnp.isnan(log_z), log_z - expected, 0)
    entropy = recursion.never_negative(entropy)
    return unflatten(entropy, logits.shape[:-2], label_lengths.shape)
