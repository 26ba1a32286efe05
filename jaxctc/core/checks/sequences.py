"""Checks of labels, of lengths, and of the batch axes that they have in common."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import meshes
from jaxctc.core.checks.arrays import (
    ArrayLike,
    concrete,
    host_array,
    integer_array,
    labels_array,
    logits_array,
    stacked,
)
from jaxctc.core.checks.numbers import class_id


class SequencePair(NamedTuple):
    """Checked arguments of functions of logits and labels, with leading batch axes.

    All but the logits have all batch axes. Those of the logits may have to be broadcast, which is
    left to the functions, so that no logits are copied.
    """

    logits: jax.Array
    labels: jax.Array
    logit_lengths: jax.Array
    label_lengths: jax.Array
    blank_id: int


def sequence_pair(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
    blank_id: Any,
) -> SequencePair:
    """Checks the arguments of `ctc_loss` and of functions with the same arguments."""
    logits = logits_array("logits", logits)
    *own, frames, classes = logits.shape
    given = labels, logit_lengths, label_lengths
    return SequencePair(
        logits,
        *labels_and_lengths(tuple(own), frames, *given),
        class_id("blank_id", blank_id, classes),
    )


def labels_and_lengths(
    own: tuple[int, ...],
    frames: int,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
    *others: tuple[str, ArrayLike, int],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`labels` and both lengths, with all batch axes.

    These are the axes `own`, broadcast with those of the labels, of the lengths, and of `others`
    (see `common_batch`).
    """
    labels = labels_array("labels", labels)
    lengths = ("logit_lengths", logit_lengths, 0), ("label_lengths", label_lengths, 0)
    batch = common_batch(own, *others, ("labels", labels, 1), *lengths)
    labels = broadcast(labels, batch, 1)
    return (
        labels,
        lengths_array("logit_lengths", logit_lengths, batch, frames),
        lengths_of_labels("label_lengths", label_lengths, labels),
    )


def logits_with_lengths(
    logits: ArrayLike, logit_lengths: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Checks the arguments of functions that take logits but no labels."""
    logits = logits_array("logits", logits)
    *batch, frames, _ = logits.shape
    return logits, lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)


def common_batch(
    batch: tuple[int, ...], *others: tuple[str, ArrayLike | None, int]
) -> tuple[int, ...]:
    """`batch` broadcast, as in numpy, with the batch axes of others.

    Of each of these the name, the value, and the number of axes after the batch axes are given.
    """
    for name, value, trailing in others:
        if value is None:
            continue
        shape = np.shape(value) if hasattr(value, "shape") else _list_shape(name, value)
        own = shape[: len(shape) - trailing]
        if own == batch:
            continue
        try:
            batch = np.broadcast_shapes(batch, own)
        except ValueError:
            raise ValueError(
                f"{name} has the batch axes {own}; they must broadcast with {batch}."
            ) from None
    return batch


def _list_shape(name: str, value: Any) -> tuple[int, ...]:
    value = stacked(value)
    return value.shape if isinstance(value, jax.Array) else host_array(name, value).shape


def broadcast(array: jax.Array, batch: tuple[int, ...], trailing: int) -> jax.Array:
    """An array with these batch axes, before so many others."""
    shape = (*batch, *array.shape[array.ndim - trailing :])
    return array if array.shape == shape else jnp.broadcast_to(array, shape)


def lengths_array(
    name: str, value: ArrayLike | None, batch: tuple[int, ...], maximum: int
) -> jax.Array:
    """`value`, broadcast to an int32 array of shape `batch`, in ``0…maximum``.

    None means `maximum`.
    """
    if value is None:
        return jnp.full(batch, maximum, jnp.int32)
    array = integer_array(name, value)
    try:
        array = broadcast(array, batch, 0)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}; it must be {batch}.") from None
    known = concrete(value)
    if known is not None and known.size and (known.min() < 0 or known.max() > maximum):
        worst = known.max() if known.max() > maximum else known.min()
        raise ValueError(f"{name} has the value {worst}; it must be in 0…{maximum}.")
    return array


def lengths_of_labels(name: str, value: ArrayLike | None, labels: jax.Array) -> jax.Array:
    """`value` as the lengths of `labels`; None means up to the first negative label of each."""
    if value is None:
        return _first_negative(labels)
    return lengths_array(name, value, labels.shape[:-1], labels.shape[-1])


@meshes.jit(trailing=(1,))
def _first_negative(labels: jax.Array) -> jax.Array:
    """The place of each row's first negative label, or S where there is none."""
    size = labels.shape[-1]
    place = lax.broadcasted_iota(jnp.int32, labels.shape, labels.ndim - 1)
    return jnp.min(jnp.where(labels < 0, place, size), axis=-1, initial=size)


def lengths_of_paddings(name: str, value: ArrayLike, shape: tuple[int, ...]) -> ArrayLike:
    """Lengths from paddings as in optax: an array of `shape`, 0 within a length and 1 past it.

    Traced paddings that do not come last give a length that is too long, and so an infinite loss.
    """
    known = concrete(value)
    paddings = value if known is None else known
    if paddings.shape != shape:
        raise ValueError(f"{name} has shape {paddings.shape}; it must be {shape}.")
    used = paddings == 0
    early = (used[..., 1:] & ~used[..., :-1]).any(axis=-1)
    if known is not None and early.any():
        raise ValueError(f"{name} has padding before the end; it must come last.")
    lengths = used.sum(axis=-1, dtype=np.int32)
    return lengths if known is not None else jnp.where(early, shape[-1] + 1, lengths)
