"""The CTC loss with the last layer inside it, so that it never holds all logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import NORMALISER, frames_inside
from jaxctc.core.products import accumulated
from jaxctc.ctc.lattice import Lattice, flatten, lattice, reading, unflatten
from jaxctc.ctc.loss import fill_registers, loss_of_lattice

Head = Callable[[jax.Array], jax.Array]

# A chunk by default: products of fewer frames with the head are slower, and each chunk adds once to
# the head's gradient; more take memory. With few classes it is the steps of the loop that count.
FRAMES_PER_CHUNK = 256  # of all sequences together
LOGITS_PER_CHUNK = 2**22


def ctc_loss_from_features(
    head: Head,
    features: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    frames_per_chunk: int | None = None,
) -> jax.Array:
    """The CTC loss of ``head(features)``, without the memory of its logits.

    Logits are computed for a few frames at a time; only the log-probabilities of the blank and
    of the labels are kept, and differentiation computes the logits again. Temporary memory is
    that of one chunk's logits and their gradient, instead of ``T * C`` logits per sequence and
    their gradient. Loss and gradients, with respect to features and to what the head closes
    over, are those of ``ctc_loss(head(features), …)``.

    Call it inside `jax.jit`, as in a training step: outside, each call compiles again.

    Args:
      head: ``head(features [B, t, D]) -> logits [B, t, C]``, for any number t of frames, with
        one batch axis; the logits of a frame may depend on that frame only. It may close over
        parameters, which get gradients, added up in float32.
      features: float ``[*batch, T, D]``.
      labels, logit_lengths, label_lengths, blank_id: As in `ctc_loss`.
      frames_per_chunk: How many frames' logits are held at once. None means 256 frames of
        all sequences together, or as many as have 4 million logits if these are more.

    Returns:
      float ``[*batch]``, as `ctc_loss`.

    Raises:
      TypeError: If a dtype, or what the head returns, is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> weights = jax.random.normal(jax.random.key(0), (4, 1000))
      >>> features, labels = jnp.ones((2, 30, 4)), jnp.array([[1, 2, 3], [4, 5, 6]])
      >>> @jax.jit
      ... def loss(weights, features):
      ...     head = lambda x: x @ weights
      ...     return jaxctc.ctc_loss_from_features(head, features, labels).mean()
      >>> [x.shape for x in jax.grad(loss, argnums=(0, 1))(weights, features)]
      [(4, 1000), (2, 30, 4)]

    References:
      Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost",
      arXiv 1604.06174.
    """
    head = checks.function("head", head)
    features = checks.logits_array("features", features, ("T", "D"))
    *own, frames, _ = features.shape
    labels, logit_lengths, label_lengths = checks.labels_and_lengths(
        tuple(own), frames, labels, logit_lengths, label_lengths
    )
    if frames_per_chunk is not None:
        frames_per_chunk = checks.positive("frames_per_chunk", frames_per_chunk)

    features = meshes.unsharded(features, -2)  # frames are taken in chunks
    # Padding is set to 0 for the head: NaN there would make its gradient NaN.
    features = jnp.where(frames_inside(features, logit_lengths)[..., None], features, 0)
    features, labels, ends, spoken = flatten(features, labels, logit_lengths, label_lengths)
    features = jnp.pad(features, ((0, 0), (0, max(0, 1 - frames)), (0, 0)))  # one at least

    sequences = len(features)
    logits = jax.eval_shape(head, features[:, :1])
    classes = checks.returned_logits("head", logits, (sequences, 1)).shape[-1]
    blank_id = checks.class_id("blank_id", blank_id, classes)
    wanted = frames_per_chunk or _frames_per_chunk(sequences, classes)
    chunks = max(1, -(-frames // wanted))
    size = -(-features.shape[1] // chunks)
    padded = jnp.pad(features, ((0, 0), (0, chunks * size - features.shape[1]), (0, 0)))
    padded = padded.reshape(sequences, chunks, size, padded.shape[-1]).swapaxes(0, 1)
    start, apply_head = accumulated(head, padded[0])

    def of_chunk(totals, chunk):
        features, first = chunk
        totals, logits = apply_head(totals, features)
        logits = checks.returned_logits("head", logits, (sequences, size))
        inside = jnp.clip(ends - first, 0, size)
        return totals, _scores(logits, labels, inside, spoken, blank_id)

    # The normaliser is kept: computing it again would take an array of the size of the logits.
    policy = jax.checkpoint_policies.save_only_these_names(NORMALISER)
    firsts = size * jnp.arange(chunks, dtype=jnp.int32)
    _, scores = meshes.scan(
        jax.checkpoint(of_chunk, prevent_cse=False, policy=policy), start, (padded, firsts)
    )
    scores = scores.swapaxes(0, 1).reshape(len(labels), chunks * size, scores.shape[-1])
    loss = _loss(scores[:, :frames], labels, ends, spoken, classes, blank_id)
    return unflatten(loss, tuple(own), logit_lengths.shape)


def _frames_per_chunk(sequences: int, classes: int) -> int:
    """How many frames of each sequence are a chunk if nothing is said."""
    frames = max(FRAMES_PER_CHUNK, LOGITS_PER_CHUNK // classes)
    return -(-frames // max(1, sequences))


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=4)
def _scores(logits, labels, logit_lengths, label_lengths, blank_id):
    """The scores of some frames on the lattice, ``[B, t, 1 + S]``."""
    labels = fill_registers(labels, len(labels), blank_id)
    topology, scores, _ = lattice(logits, labels, logit_lengths, label_lengths, blank_id)
    return scores.transpose((2, 0, 1) if topology.axis == 0 else (1, 0, 2))


@meshes.jit(trailing=(2, 1, 0, 0), static_argnums=(4, 5))
def _loss(scores, labels, logit_lengths, label_lengths, classes, blank_id):
    labels = fill_registers(labels, len(labels), blank_id)
    topology, _, _, possible = reading(
        labels, logit_lengths, label_lengths, scores.shape[1], classes, blank_id
    )
    scores = scores.transpose((1, 2, 0) if topology.axis == 0 else (1, 0, 2))
    return loss_of_lattice(Lattice(topology, scores, possible))
