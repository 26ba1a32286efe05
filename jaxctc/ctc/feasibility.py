"""Whether labels fit into frames."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes


def is_feasible(
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    num_classes: int | None = None,
) -> jax.Array:
    """Whether the labels have an alignment with that many frames.

    Every label takes a frame, and equal neighbours need one more for the blank between. For a
    feasible pair `ctc_loss` is finite, unless ``-inf`` masks a class out. Batch axes are broadcast.

    Args:
      labels: integer ``[*batch, S]``.
      logit_lengths: integer ``[*batch]``.
      label_lengths: integer ``[*batch]``; None means up to the first negative label, or S.
      blank_id: The class that is the blank; as a label it is infeasible.
      num_classes: If given, labels from this number up are infeasible.

    Returns:
      bool ``[*batch]``.

    Examples:
      >>> import jaxctc
      >>> print(jaxctc.is_feasible([[1, 2], [2, 2]], logit_lengths=[2, 2]))
      [ True False]
    """
    if num_classes is not None:
        num_classes = checks.positive("num_classes", num_classes)
    blank_id = checks.class_id("blank_id", blank_id, num_classes or 2**31 - 1)
    if logit_lengths is None:
        raise TypeError("logit_lengths is None; it must be an integer array.")
    given = labels, logit_lengths, label_lengths
    pair = checks.labels_and_lengths((), 2**31 - 1, *given)
    return _is_feasible(*pair, blank_id, num_classes)


@meshes.jit(trailing=(1, 0, 0), static_argnums=(3, 4))
def _is_feasible(labels, logit_lengths, label_lengths, blank_id, num_classes):
    position = lax.broadcasted_iota(jnp.int32, labels.shape, labels.ndim - 1)
    used = position < label_lengths[..., None]
    valid = (labels >= 0) & (labels != blank_id)
    if num_classes is not None:
        valid &= labels < num_classes
    repeats = jnp.sum(
        (labels[..., 1:] == labels[..., :-1]) & used[..., 1:], axis=-1, dtype=jnp.int32
    )
    in_range = (label_lengths >= 0) & (label_lengths <= labels.shape[-1]) & (logit_lengths >= 0)
    return jnp.all(valid | ~used, axis=-1) & (logit_lengths >= label_lengths + repeats) & in_range
