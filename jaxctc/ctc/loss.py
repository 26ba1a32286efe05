"""The CTC loss and the posteriors of its lattice, both computed by `jaxctc.core.recursion`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes, recursion
from jaxctc.ctc.lattice import Lattice, flatten, lattice, unflatten


def ctc_loss(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> jax.Array:
    r"""The CTC loss, ``-log p(labels | logits)``, of every sequence.

    $$ L = -\log \sum_{\pi \in \mathcal B^{-1}(y)} \prod_{t=1}^{T} p_t(\pi_t) $$

    where the sum is over all alignments: sequences of one class per frame that become the labels
    when repeats are merged and blanks removed.

    The gradient is exact in float32 at any length, since sums use extended-range floats, not
    log-space. `jax.grad`, `jax.jvp`, `jax.hessian`, `jax.vmap` and `jax.jit` all
    work. Padding is never read: its values, even NaN, have no effect, and
    its gradient is 0.

    Batch axes are broadcast as in numpy: for logits ``[T, C]`` and the labels ``[N, S]`` of an
    N-best list the loss is ``[N]``. Logits that sequences share are normalised once and not copied.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities: they are normalised
        inside. ``-inf`` masks a class out. Half precision is computed in float32.
      labels: integer ``[*batch, S]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means up to the first
        negative label, or S where there is none.
      blank_id: The class that is the blank.

    Returns:
      float ``[*batch]``, never negative. An infeasible pair has loss ``inf`` and gradient 0. It is
      one with fewer frames than labels plus blanks between equal neighbours, with a label that is
      not a class or is the blank, or, under `jit`, with a length out of range.
      If a sequence's own logits contain NaN or ``+inf``, its loss is NaN. `explain` says why.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> logits = jnp.zeros((2, 4, 3))  # two sequences, four frames, blank and two labels
      >>> labels = jnp.array([[1, 2], [2, 2]])
      >>> loss = jaxctc.ctc_loss(logits, labels)
      >>> print(jnp.round(jnp.exp(-loss) * 81))  # 15 and 5 of 3**4 sequences are alignments
      [15.  5.]
      >>> gradient = jax.grad(lambda x: jaxctc.ctc_loss(x, labels).mean())(logits)
      >>> gradient.shape
      (2, 4, 3)
      >>> jaxctc.ctc_loss(logits[0], jnp.array([[1, 2, -1], [1, -1, -1], [1, 2, 1]])).shape
      (3,)

    References:
      Graves, Fernández, Gomez, Schmidhuber 2006, "Connectionist temporal classification", eq. 12.
    """
    return _ctc_loss(*checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id))


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=4)
def _ctc_loss(logits, labels, logit_lengths, label_lengths, blank_id):
    padded = fill_registers(labels, logit_lengths.size, blank_id)
    found = lattice(*flatten(logits, padded, logit_lengths, label_lengths), blank_id)
    return unflatten(loss_of_lattice(found), logits.shape[:-2], label_lengths.shape)


def loss_of_lattice(lattice: Lattice) -> jax.Array:
    """``-log Z`` of a flat batch."""
    log_z = recursion.log_partition(lattice.topology, lattice.scores)
    log_z = jnp.where(lattice.possible | jnp.isnan(log_z), log_z, -jnp.inf)
    return recursion.negative_log_likelihood(log_z)


def fill_registers(labels: jax.Array, sequences: int, blank_id: int) -> jax.Array:
    """Labels ``[*batch, S]`` padded so that rows of states fill whole vector registers.

    The rest of a row is computed one by one, which takes long if the row is short. Long rows are
    not padded: it would cost more that the cache is slow with rows of a power of two.
    """
    spaces = labels.shape[-1] + 1
    if recursion.states_axis(sequences, spaces) == 0 or spaces > 128:
        return labels
    padding = [(0, 0)] * (labels.ndim - 1) + [(0, -spaces % 8)]
    return jnp.pad(labels, padding, constant_values=blank_id)


class CTCPosteriors(NamedTuple):
    """Posterior probabilities of each label and of the blank at each frame.

    Attributes:
      labels: float ``[*batch, T, S]``: the probability of being in the s-th label at a frame.
      blank: float ``[*batch, T]``: that of being in any blank.
    """

    labels: jax.Array
    blank: jax.Array


def ctc_posteriors(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> CTCPosteriors:
    """Posterior probability of every label, and of the blank, at every frame.

    Arguments and errors are those of `ctc_loss`. The posteriors are the gradient of
    the log-likelihood with respect to the log-probabilities on the lattice
    (Graves et al. 2006, eq. 15).

    Returns:
      `CTCPosteriors`: float ``labels [*batch, T, S]`` and ``blank [*batch, T]``. Together
      they sum to 1 at each frame within the length. Past it, and everywhere if the pair is
      infeasible, all are 0. If a sequence's own logits contain NaN or ``+inf``, they are NaN.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> posteriors = jaxctc.ctc_posteriors(jnp.zeros((3, 2)), jnp.array([1, 1]))
      >>> print(posteriors.labels)  # the one alignment with three frames: label, blank, label
      [[1. 0.]
       [0. 0.]
       [0. 1.]]
      >>> print(posteriors.blank)
      [0. 1. 0.]
    """
    return _ctc_posteriors(
        *checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    )


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=4)
def _ctc_posteriors(logits, labels, logit_lengths, label_lengths, blank_id):
    flat = flatten(logits, labels, logit_lengths, label_lengths)
    topology, scores, possible = lattice(*flat, blank_id)
    log_z, posteriors = recursion.posteriors(topology, scores)
    frames = jnp.arange(logits.shape[-2], dtype=jnp.int32)
    inside = frames[None, :] < flat[2][:, None]
    inside &= possible[:, None]
    by_state = posteriors.transpose((2, 0, 1) if topology.axis == 0 else (1, 0, 2))
    by_state = jnp.where(jnp.isnan(log_z)[:, None, None], jnp.nan, by_state)
    by_state = jnp.where(inside[:, :, None], by_state, 0)
    by_state = unflatten(by_state, logits.shape[:-2], label_lengths.shape)
    return CTCPosteriors(by_state[..., 1:], by_state[..., 0])
