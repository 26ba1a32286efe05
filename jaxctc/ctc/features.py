"""The CTC loss with the last layer inside it, so that logits are never all there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import NORMALISER, log_probabilities
from jaxctc.core.products import accumulated
from jaxctc.ctc.lattice import Lattice, flatten, reading
from jaxctc.ctc.loss import fill_registers, loss_of_lattice

Head = Callable[[jax.Array], jax.Array]

# By default so many logits are held at once, 64 MiB of float32. Chunks of half the size take as
# much time; from a quarter on, adding up the head's gradient once a chunk is felt.
LOGITS_PER_CHUNK = 2**24


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

    Frames are taken some at a time: their logits are computed, what the lattice needs of them
    is kept (the log-probabilities of the blank and of the labels), and they are forgotten;
    differentiation computes them again. Temporary memory is that of a chunk's logits and their
    gradient, instead of ``T * C`` of each a sequence. Loss and gradients, with respect to
    features and to what the head closes over, are those of ``ctc_loss(head(features), …)``.

    Call it under `jax.jit`, as a training step is: eagerly it is compiled anew each time.

    Args:
      head: ``head(features [B, t, D]) -> logits [B, t, C]``, of any number t of frames and
        one axis of batch, each frame by itself. It may close over parameters, which get their
        gradients, added up in float32.
      features: float ``[*batch, T, D]``.
      labels, logit_lengths, label_lengths, blank_id: As in `ctc_loss`.
      frames_per_chunk: How many frames' logits are held at once. None means as many as make
        16 million logits (2**24), of all sequences together, and at least one.

    Returns:
      float ``[*batch]``, as `ctc_loss`.

    Raises:
      TypeError: If a dtype is of the wrong kind, or what the head returns.
      ValueError: If shapes do not fit, or concrete lengths or `blank_id` are out of range.

    Example:
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
    *batch, frames, _ = features.shape
    labels = checks.labels_array("labels", labels, tuple(batch))
    given = logit_lengths, label_lengths
    logit_lengths = checks.lengths_array("logit_lengths", given[0], tuple(batch), frames)
    label_lengths = checks.lengths_array("label_lengths", given[1], tuple(batch), labels.shape[-1])
    if frames_per_chunk is not None:
        frames_per_chunk = checks.positive("frames_per_chunk", frames_per_chunk)

    features, labels, *lengths = flatten(features, labels, logit_lengths, label_lengths)
    # What the head sees of padding is 0: a NaN there would come back through its gradient.
    inside = jnp.arange(frames)[None, :] < lengths[0][:, None]
    features = jnp.where(inside[:, :, None], features, 0)

    classes = _logits(jax.eval_shape(head, features[:, :1]), (len(features), 1)).shape[-1]
    blank_id = checks.class_id("blank_id", blank_id, classes)
    labels = fill_registers(labels, len(labels), blank_id)
    topology, read, inside, possible = reading(labels, *lengths, frames, classes, blank_id)

    wanted = frames_per_chunk or max(1, LOGITS_PER_CHUNK // max(1, len(features) * classes))
    chunks = max(1, -(-frames // wanted))
    size = max(1, -(-frames // chunks))

    def chunked(x):
        """``[B, T, …]`` as ``[chunks, B, t, …]``."""
        padding = [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, [(0, 0), (0, chunks * size - frames), *padding])
        return x.reshape(len(x), chunks, size, *x.shape[2:]).swapaxes(0, 1)

    features, inside = chunked(features), chunked(inside)
    start, of_features = accumulated(head, features[0])

    def of_chunk(totals, chunk):
        features, inside = chunk
        totals, logits = of_features(totals, features)
        logits = _logits(logits, features.shape[:2])
        return totals, log_probabilities(logits, read, inside, topology.neutral, topology.axis)

    policy = jax.checkpoint_policies.save_only_these_names(NORMALISER)
    _, scores = meshes.scan(
        jax.checkpoint(of_chunk, prevent_cse=False, policy=policy), start, (features, inside)
    )
    scores = scores.reshape(chunks * size, *scores.shape[2:])[:frames]
    return loss_of_lattice(Lattice(topology, scores, possible)).reshape(batch)


def _logits(value: Any, leading: tuple[int, ...]) -> Any:
    """What a head returned for so many sequences and frames."""
    shape = ", ".join(map(str, leading))
    if not hasattr(value, "dtype"):
        kind = type(value).__name__
        raise TypeError(f"head returned type {kind}; it must be an array [{shape}, C].")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"head returned dtype {value.dtype}; it must be floating-point.")
    if value.shape[:-1] != leading or value.shape[-1] == 0:
        wanted = f"[{shape}, C], C at least 1"
        raise ValueError(f"head returned shape {value.shape}; it must be {wanted}.")
    return value
