"""Keras' CTC loss for JAX arrays, as functions and as a class. It does not need keras.

Differences from Keras:

* An infeasible pair has loss ``inf`` and gradient 0, where Keras gives a large finite loss.
  `jaxctc.explain` says why a pair is infeasible.
* A label that is the mask, or is not a class, makes its pair infeasible.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc import ctc as jaxctc_ctc
from jaxctc.compat import checks as compat_checks
from jaxctc.core import checks

_REDUCTIONS = ("sum", "sum_over_batch_size", "mean", "mean_with_sample_weight", "none", None)


def ctc_loss(
    target: checks.ArrayLike,
    output: checks.ArrayLike,
    target_length: checks.ArrayLike,
    output_length: checks.ArrayLike,
    mask_index: int = 0,
) -> jax.Array:
    """`keras.ops.ctc_loss`: the loss of every sequence.

    Args:
      target: integer or whole float ``(batch_size, max_target_length)``, padded.
      output: float ``(batch_size, max_output_length, num_classes)``, logits.
      target_length: integer ``(batch_size,)``.
      output_length: integer ``(batch_size,)``.
      mask_index: The class that is the blank.

    Returns:
      float ``(batch_size,)``.

    Raises:
      TypeError, ValueError: If an argument is not as described.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import keras
      >>> loss = keras.ctc_loss(jnp.array([[1, 2, 0]]), jnp.zeros((1, 4, 3)), [2], [4])
      >>> print(f"{loss[0]:.4f}")
      1.6864
    """
    output = checks.logits_array("output", output)
    compat_checks.axes("output", output, "batch_size", "max_output_length", "num_classes")
    target = checks.labels_array("target", _whole("target", target), output.shape[:1])
    batch, frames, classes = output.shape

    def lengths(name, value, maximum):
        return checks.lengths_array(
            name, compat_checks.lengths(name, value, batch), (batch,), maximum
        )

    return jaxctc_ctc.ctc_loss(
        output,
        target,
        lengths("output_length", output_length, frames),
        lengths("target_length", target_length, target.shape[1]),
        blank_id=checks.class_id("mask_index", mask_index, classes),
    )


def ctc(y_true: checks.ArrayLike, y_pred: checks.ArrayLike) -> jax.Array:
    """`keras.losses.ctc`: the loss of every sequence, with 0 as blank and as padding.

    Args:
      y_true: integer ``(batch_size, max_length)``, or whole float as Keras passes it. The labels of
        a sequence are as many as it has numbers other than 0, and come first.
      y_pred: float ``(batch_size, max_length, num_classes)``, logits; all frames count.

    Returns:
      float ``(batch_size,)``.

    Raises:
      TypeError, ValueError: If an argument is not as described.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import keras
      >>> print(f"{keras.ctc(jnp.array([[1, 2, 0]]), jnp.zeros((1, 4, 3)))[0]:.4f}")
      1.6864
    """
    y_pred = checks.logits_array("y_pred", y_pred)
    compat_checks.axes("y_pred", y_pred, "batch_size", "max_length", "num_classes")
    y_true = checks.labels_array("y_true", _whole("y_true", y_true), y_pred.shape[:1])
    lengths = jnp.sum(y_true != 0, axis=-1, dtype=jnp.int32)
    return jaxctc_ctc.ctc_loss(y_pred, y_true, label_lengths=lengths)


def _whole(name: str, value: checks.ArrayLike) -> checks.ArrayLike:
    """Integers as they are; whole floats, into which Keras turns the labels of losses, as int32.

    Under `jit`, what is not whole becomes -1, which is no class.
    """
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return value
    known = checks.concrete(array)
    if known is not None and not (known == np.round(known)).all():
        wrong = known[known != np.round(known)].flat[0]
        raise ValueError(f"{name} has the value {wrong}; it must be whole numbers.")
    array = jnp.asarray(array)
    return jnp.where(array == jnp.round(array), array, -1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class CTC:
    """`keras.losses.CTC`: call it with ``(y_true, y_pred, sample_weight=None)``, as `ctc`.

    Reductions are those of Keras: ``"sum_over_batch_size"`` and ``"mean"`` divide the sum by the
    number of sequences, ``"mean_with_sample_weight"`` by the sum of their weights, ``"sum"`` by
    nothing; ``"none"`` and None give the loss of each. A sequence of weight 0 is left out, also if
    its loss is ``inf``. The losses of an empty batch are not reduced. `dtype` is accepted, and not
    used: losses have the dtype they are computed in.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import keras
      >>> loss = keras.CTC()
      >>> print(f"{loss(jnp.array([[1, 2, 0], [2, 2, 0]]), jnp.zeros((2, 4, 3))):.4f}")
      2.2357
    """

    reduction: str | None = "sum_over_batch_size"
    name: str = "ctc"
    dtype: Any = None

    def __post_init__(self):
        checks.one_of("reduction", self.reduction, _REDUCTIONS)

    def __call__(
        self,
        y_true: checks.ArrayLike,
        y_pred: checks.ArrayLike,
        sample_weight: checks.ArrayLike | None = None,
    ) -> jax.Array:
        losses = ctc(y_true, y_pred)
        weights = jnp.ones_like(losses)
        if sample_weight is not None:
            weights = checks.numbers_array("sample_weight", sample_weight, losses.shape)
            weights = weights.astype(losses.dtype)
            losses = jnp.where(weights == 0, 0, losses * weights)
        if self.reduction in ("none", None) or losses.size == 0:
            return losses
        if self.reduction == "sum":
            return jnp.sum(losses)
        if self.reduction == "mean_with_sample_weight":
            total = jnp.sum(weights)
            return jnp.where(total == 0, 0, jnp.sum(losses) / jnp.where(total == 0, 1, total))
        return jnp.mean(losses)
