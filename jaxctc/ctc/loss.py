"""Connectionist temporal classification (Graves et al. 2006) on the package's one recursion.

States are ``blank[s]``, where s labels have been emitted and the last frame was a blank, and
``label[s]``, where the last frame was label s. One frame does (Graves et al. 2006, eqs. 6–8)::

    blank'[s] = (blank[s] + label[s]) · p(blank)
    label'[s] = (label[s] + blank[s-1] + [y_s ≠ y_{s-1}] · label[s-1]) · p(y_s)

``label[0]`` does not exist; it is kept with weight zero so that both arrays are
alike and the blanks need no shift.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, recursion
from jaxctc.core.emissions import log_probabilities
from jaxctc.core.semirings import Semiring, State, Weight, first_one, select, shift, where


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["skip", "label_lengths"],
    meta_fields=["axis"],
)
@dataclasses.dataclass(frozen=True)
class CTCTopology:
    """The lattice of a batch of label sequences.

    Scores are one array, ``[T, B, 1 + S]`` with axis 1 or ``[T, 1 + S, B]`` with axis 0: in the
    place of the label that isn't, the blank's.
    """

    skip: jax.Array  # bool, of the shape of a weight: may label s be followed by label s + 1?
    label_lengths: jax.Array  # [B]
    axis: int

    @property
    def neutral(self) -> jax.Array:
        first = lax.broadcasted_iota(jnp.int32, self.skip.shape, self.axis) == 0
        return jnp.where(first, 0.0, -jnp.inf)

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        blank, scale = first_one(semiring, self.skip.shape, self.axis, dtype)
        return (blank, semiring.zeros(self.skip.shape, dtype)), scale

    def step(self, semiring: Semiring, state: State, weights: Weight) -> State:
        blank, label = state
        blank_weight = jax.tree.map(lambda x: lax.slice_in_dim(x, 0, 1, axis=self.axis), weights)
        # Terms stand in order of preference: staying, advancing by one, skipping the blank.
        either = semiring.plus(blank, label)
        entering = shift(semiring, where(self.skip, either, blank), self.axis)
        return (
            semiring.times(either, blank_weight),
            # Nothing ever enters the label that isn't, so what its place holds does no harm.
            semiring.times(semiring.plus(label, entering), weights),
        )

    def finish(self, semiring: Semiring, state: State) -> Weight:
        blank, label = state
        return select(semiring.plus(label, blank), self.label_lengths, self.axis)


class Lattice(NamedTuple):
    """What a batch of logits and labels, ``[B, T, C]`` and ``[B, S]``, is to the recursion."""

    topology: CTCTopology
    scores: jax.Array
    possible: jax.Array  # bool [B]: are the lengths in range, and the labels?


def lattice(
    logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    blank_id: int,
) -> Lattice:
    """The lattice of flat batches. Nothing past a length is ever read.

    NaN, or ``+inf``, in any class makes the frame's normaliser NaN, with it all of its scores, and
    with them ``log Z``.
    """
    batch, frames, classes = logits.shape
    spaces = labels.shape[1] + 1
    # The longer of the two runs along the vector registers.
    axis = 0 if batch > spaces else 1

    used = jnp.arange(1, spaces)[None, :] <= label_lengths[:, None]
    valid = (labels >= 0) & (labels < classes) & (labels != blank_id)
    # The blank is read in the place of the first label, the one that isn't. What labels past
    # the length read does no harm: no way leads back from them.
    read = jnp.where(used & valid, labels, blank_id)
    read = jnp.pad(read, ((0, 0), (1, 0)), constant_values=blank_id)
    skip = jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (1, 1)))[:, :spaces]
    inside = jnp.arange(frames)[None, :] < logit_lengths[:, None]

    topology = CTCTopology(skip.T if axis == 0 else skip, label_lengths, axis)
    scores = log_probabilities(logits, read, inside, topology.neutral, axis)
    possible = jnp.all(valid | ~used, axis=1)
    possible &= (logit_lengths >= 0) & (logit_lengths <= frames)
    possible &= (label_lengths >= 0) & (label_lengths < spaces)
    return Lattice(topology, scores, possible)


def ctc_loss(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> jax.Array:
    r"""The CTC loss, ``-log p(labels | logits)``, of every sequence.

    .. math:: L = -\log \sum_{\pi \in \mathcal B^{-1}(y)} \prod_{t=1}^{T} p_t(\pi_t)

    where the sum is over all alignments: frame-by-frame label sequences which, with runs
    of equal labels merged and blanks removed, are the labels.

    The gradient is exact in float32 at any length: it is that of extended-range arithmetic, not
    of log-space. All of `jax.grad`, `jax.jvp`, `jax.hessian`, `jax.vmap` and `jax.jit`
    apply. Padding is never read: whatever it holds, NaN included, changes nothing, and
    its gradient is 0.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised or log-probabilities: they are normalised
        inside. ``-inf`` masks a class out. Half precision is computed in float32.
      labels: integer ``[*batch, S]``, without blanks.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means S.
      blank_id: The class that is the blank.

    Returns:
      float ``[*batch]``, never negative. A pair that no alignment joins, since there are
      fewer frames than labels and the blanks between equal neighbours, or a label is not
      a class or is the blank, has loss ``inf`` and gradient 0; under `jit` so has one whose
      lengths are out of range. A NaN or ``+inf`` among a sequence's own logits makes its loss
      NaN, to be seen.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Example:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> logits = jnp.zeros((2, 4, 3))  # two sequences, four frames, blank and two labels
      >>> labels = jnp.array([[1, 2], [2, 2]])
      >>> loss = jaxctc.ctc_loss(logits, labels)
      >>> print(jnp.round(jnp.exp(-loss) * 81))  # of 81 alignments, 15 and 5 read as the labels
      [15.  5.]
      >>> gradient = jax.grad(lambda x: jaxctc.ctc_loss(x, labels).mean())(logits)
      >>> gradient.shape
      (2, 4, 3)

    References:
      Graves, Fernández, Gomez, Schmidhuber 2006, "Connectionist temporal classification", eq. 12.
    """
    return _ctc_loss(*checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id))


@functools.partial(jax.jit, static_argnums=4)
def _ctc_loss(logits, labels, logit_lengths, label_lengths, blank_id):
    padded = _fill_registers(labels, logit_lengths.size, blank_id)
    topology, scores, possible = lattice(
        *flatten(logits, padded, logit_lengths, label_lengths), blank_id
    )
    log_z = recursion.log_partition(topology, scores)
    log_z = jnp.where(possible | jnp.isnan(log_z), log_z, -jnp.inf)
    return recursion.negative_log_likelihood(log_z).reshape(logits.shape[:-2])


def _fill_registers(labels: jax.Array, sequences: int, blank_id: int) -> jax.Array:
    """Labels ``[*batch, S]`` with padding, so that rows of states are whole vector registers.

    What is left over in a row is computed one by one, which takes long if the row is short. In
    long rows it matters less than that rows of a power of two lie badly in the cache.
    """
    spaces = labels.shape[-1] + 1
    if sequences > spaces or spaces > 128:
        return labels
    padding = [(0, 0)] * (labels.ndim - 1) + [(0, -spaces % 8)]
    return jnp.pad(labels, padding, constant_values=blank_id)


class CTCPosteriors(NamedTuple):
    """Posterior probabilities of what stands at each frame, given the labels."""

    labels: jax.Array  # [*batch, T, S]: of being in the s-th label
    blank: jax.Array  # [*batch, T]: of being in any blank


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
      they sum to 1 at each frame within the length. Past it, and everywhere if no alignment
      exists, all are 0. A NaN or ``+inf`` among a sequence's own logits makes them NaN, to be seen.

    Example:
      >>> import jax.numpy as jnp, jaxctc
      >>> posteriors = jaxctc.ctc_posteriors(jnp.zeros((3, 2)), jnp.array([1, 1]))
      >>> print(posteriors.labels)  # three frames leave one way: label, blank, label
      [[1. 0.]
       [0. 0.]
       [0. 1.]]
      >>> print(posteriors.blank)
      [0. 1. 0.]
    """
    return _ctc_posteriors(
        *checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
    )


@functools.partial(jax.jit, static_argnums=4)
def _ctc_posteriors(logits, labels, logit_lengths, label_lengths, blank_id):
    batch, frames = logits.shape[:-2], logits.shape[-2]
    topology, scores, possible = lattice(
        *flatten(logits, labels, logit_lengths, label_lengths), blank_id
    )
    log_z, posteriors = recursion.posteriors(topology, scores)
    inside = jnp.arange(frames)[None, :] < logit_lengths.reshape(-1, 1)
    inside &= possible[:, None]
    by_state = posteriors.transpose((2, 0, 1) if topology.axis == 0 else (1, 0, 2))
    by_state = jnp.where(jnp.isnan(log_z)[:, None, None], jnp.nan, by_state)
    by_state = jnp.where(inside[:, :, None], by_state, 0).reshape(*batch, *by_state.shape[1:])
    return CTCPosteriors(by_state[..., 1:], by_state[..., 0])


def flatten(logits, labels, logit_lengths, label_lengths):
    """The same with all leading batch axes made one."""
    return (
        logits.reshape(logit_lengths.size, *logits.shape[-2:]),
        labels.reshape(logit_lengths.size, labels.shape[-1]),
        logit_lengths.reshape(-1),
        label_lengths.reshape(-1),
    )


def is_feasible(
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    num_classes: int | None = None,
) -> jax.Array:
    """Whether any alignment joins labels to that many frames.

    Every label takes a frame, and equal neighbours need one more for the blank between. Where it
    is so, and no class is masked out by ``-inf``, `ctc_loss` is finite.

    Args:
      labels: integer ``[*batch, S]``.
      logit_lengths: integer ``[*batch]``.
      label_lengths: integer ``[*batch]``; None means S.
      blank_id: The class that is the blank; as a label it is not feasible.
      num_classes: If given, labels from this number up are not feasible.

    Returns:
      bool ``[*batch]``.

    Example:
      >>> import jaxctc
      >>> print(jaxctc.is_feasible([[1, 2], [2, 2]], logit_lengths=[2, 2]))
      [ True False]
    """
    labels = checks.integer_array("labels", labels)
    batch = labels.shape[:-1]
    labels = checks.labels_array("labels", labels, batch)
    if num_classes is not None:
        num_classes = checks.positive("num_classes", num_classes)
    blank_id = checks.class_id("blank_id", blank_id, num_classes or 2**31 - 1)
    if logit_lengths is None:
        raise TypeError("logit_lengths is None; it must be an integer array.")
    logit_lengths = checks.lengths_array("logit_lengths", logit_lengths, batch, 2**31 - 1)
    label_lengths = checks.lengths_array("label_lengths", label_lengths, batch, labels.shape[-1])
    return _is_feasible(labels, logit_lengths, label_lengths, blank_id, num_classes)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _is_feasible(labels, logit_lengths, label_lengths, blank_id, num_classes):
    position = lax.broadcasted_iota(jnp.int32, labels.shape, labels.ndim - 1)
    used = position < label_lengths[..., None]
    valid = (labels >= 0) & (labels != blank_id)
    if num_classes is not None:
        valid &= labels < num_classes
    repeats = jnp.sum((labels[..., 1:] == labels[..., :-1]) & used[..., 1:], axis=-1)
    in_range = (label_lengths >= 0) & (label_lengths <= labels.shape[-1]) & (logit_lengths >= 0)
    return jnp.all(valid | ~used, axis=-1) & (logit_lengths >= label_lengths + repeats) & in_range
