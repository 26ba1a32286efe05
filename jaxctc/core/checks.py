"""Checks of arguments, with one error message per mistake.

Shapes and dtypes are always checked, since they are known while tracing; values only
when the array is concrete. Values are checked with numpy: inside a caller's `jit`, even a
jax operation on a concrete array is traced.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import meshes

ArrayLike = Any  # what jnp.asarray takes


def logits_array(name: str, value: ArrayLike, trailing: tuple[str, ...] = ("T", "C")) -> jax.Array:
    """`value` as a floating-point array with at least ``len(trailing)`` axes."""
    array = value if isinstance(value, jax.Array) else _made_array(name, value)
    if not isinstance(array, jax.Array) or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {array.dtype}; it must be floating-point.")
    if array.ndim < len(trailing):
        shape = ", ".join(("*batch", *trailing))
        raise ValueError(f"{name} has shape {array.shape}; it must be [{shape}].")
    if "C" in trailing and array.shape[trailing.index("C") - len(trailing)] == 0:
        raise ValueError(f"{name} has shape {array.shape}; there must be at least one class.")
    return array


def integer_array(name: str, value: ArrayLike) -> jax.Array:
    """`value` as an int32 array; integers out of its range are clipped."""
    value = _stacked(value)
    if not isinstance(value, jax.Array):
        value = _host_array(name, value)
        if value.size == 0 and value.dtype == np.float64:
            value = value.astype(np.int32)  # np.asarray([]): an empty list has no dtype
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{name} has dtype {value.dtype}; it must be an integer type.")
    if value.dtype == np.int32:
        return value if isinstance(value, jax.Array) else jnp.asarray(value)
    if value.dtype.itemsize > 4 or value.dtype == np.uint32:
        limits, numbers = np.iinfo(np.int32), np if isinstance(value, np.ndarray) else jnp
        value = numbers.clip(value, max(limits.min, jnp.iinfo(value.dtype).min), limits.max)
    return jnp.asarray(value.astype(np.int32))


def _made_array(name: str, value: ArrayLike) -> jax.Array | np.ndarray:
    """`value` as a jax array, or as a numpy array if jax does not support its dtype."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        return _host_array(name, value)


def _host_array(name: str, value: ArrayLike) -> np.ndarray:
    """`value` as a numpy array; the rows of nested lists must have one length."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} has rows of different lengths; they must have one length."
        ) from None


def labels_array(name: str, value: ArrayLike, batch: tuple[int, ...] | None = None) -> jax.Array:
    """`value` as an int32 array of shape ``[*batch, S]``; None means any batch axes."""
    array = integer_array(name, value)
    if array.ndim == 0 or (batch is not None and array.shape[:-1] != batch):
        expected = ", ".join(["*batch", "S"] if batch is None else [*map(str, batch), "S"])
        raise ValueError(f"{name} has shape {array.shape}; it must be [{expected}].")
    return array


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
    value = _stacked(value)
    return value.shape if isinstance(value, jax.Array) else _host_array(name, value).shape


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


def _static_int(name: str, value: Any) -> int:
    """`value` as an int."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} has type {type(value).__name__}; it must be an int known while tracing."
        ) from None


def class_id(name: str, value: Any, classes: int) -> int:
    """`value` as a class, an int in ``0…classes - 1``."""
    index = _static_int(name, value)
    if not 0 <= index < classes:
        raise ValueError(f"{name} is {index}; it must be a class, in 0…{classes - 1}.")
    return index


def class_from_either_end(name: str, value: Any, classes: int) -> int:
    """`value` as a class in ``0…classes - 1``; negative values count from the end."""
    index = _static_int(name, value)
    if not -classes <= index < classes:
        raise ValueError(f"{name} is {index}; it must be in {-classes}…{classes - 1}.")
    return index % classes


def positive(name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    return at_least(name, value, 1)


def at_least(name: str, value: Any, minimum: int) -> int:
    """`value` as an int of at least `minimum`."""
    number = _static_int(name, value)
    if number < minimum:
        raise ValueError(f"{name} is {number}; it must be at least {minimum}.")
    return number


def batch_shape(name: str, value: Any) -> tuple[int, ...]:
    """`value` as a tuple of non-negative ints."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a tuple of ints.")
    return tuple(at_least(name, size, 0) for size in value)


def flag(name: str, value: Any) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        what = (
            f"has type {type(value).__name__}"
            if isinstance(value, (jax.Array, np.ndarray))
            else f"is {value!r}"
        )
        raise TypeError(f"{name} {what}; it must be True or False, known while tracing.")
    return bool(value)


def one_of(name: str, value: Any, options: tuple[Any, ...]) -> Any:
    """`value` if it is one of `options`."""
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it must be one of {options}.")
    return value


def function(name: str, value: Any) -> Callable:
    """`value` if it is callable."""
    if not callable(value):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a function.")
    return value


def wildcard_label(name: str, value: Any, blank_id: int) -> int:
    """`value` as an int that can be a label."""
    index = _static_int(name, value)
    if index < 0 or index == blank_id or index > np.iinfo(np.int32).max:
        raise ValueError(f"{name} is {index}; it must be from 0 up, and not the blank.")
    return index


def automatic(name: str, array: jax.Array) -> None:
    """Checks that an array is not sharded over explicit axes of a mesh."""
    axes = tuple(axis for axis in jax.typeof(array).sharding.spec if axis is not None)
    if axes:
        raise ValueError(
            f"{name} is sharded over the explicit axes {axes}; it must be sharded over automatic "
            "axes: call this within jax.sharding.auto_axes, with the parameters as an argument."
        )


def semiring(value: Any) -> Any:
    """`value` if it is a semiring."""
    if not hasattr(value, "scatter_sum"):
        raise TypeError(
            f"semiring has type {type(value).__name__}; it must be one of jaxctc.semirings."
        )
    return value


def static_real(name: str, value: Any) -> float:
    """`value` as a float."""
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"{name} has type {type(value).__name__}; it must be a number known while tracing."
        )
    return float(value)


def non_negative(name: str, value: Any) -> float:
    """`value` as a finite, non-negative float."""
    return float(real_from_zero(name, static_real(name, value)))


def concrete(value: Any) -> np.ndarray | None:
    """`value` as a numpy array; None if it is traced, or if other processes hold parts of it."""
    value = _stacked(value)
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None  # sharded over processes; this one holds only a part
    return np.asarray(value)


def _stacked(value: Any) -> Any:
    """`value` as an array if it is a tuple or list of traced numbers, such as lengths in `jit`."""
    if isinstance(value, (tuple, list)) and any(isinstance(x, jax.core.Tracer) for x in value):
        return jnp.stack([jnp.asarray(x) for x in value])
    return value


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
    labels = labels_array("labels", labels)
    lengths = ("logit_lengths", logit_lengths, 0), ("label_lengths", label_lengths, 0)
    batch = common_batch(tuple(own), ("labels", labels, 1), *lengths)
    labels = broadcast(labels, batch, 1)
    return SequencePair(
        logits,
        labels,
        lengths_array("logit_lengths", logit_lengths, batch, frames),
        lengths_of_labels("label_lengths", label_lengths, labels),
        class_id("blank_id", blank_id, classes),
    )


def logits_with_lengths(
    logits: ArrayLike, logit_lengths: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Checks the arguments of functions that take logits but no labels."""
    logits = logits_array("logits", logits)
    *batch, frames, _ = logits.shape
    return logits, lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)


def returned_logits(name: str, value: Any, leading: tuple[int, ...]) -> Any:
    """What a function of that name returned, if it is logits ``[*leading, C]``."""
    shape = ", ".join(map(str, leading))
    if not hasattr(value, "dtype"):
        kind = type(value).__name__
        raise TypeError(f"{name} returned type {kind}; it must be an array [{shape}, C].")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name} returned dtype {value.dtype}; it must be floating-point.")
    if value.shape[:-1] != leading or value.shape[-1] == 0:
        wanted = f"[{shape}, C], C at least 1"
        raise ValueError(f"{name} returned shape {value.shape}; it must be {wanted}.")
    return value


def numbers_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """`value` as an array of real numbers of the given shape."""
    array = _made_array(name, value)
    kinds = [jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)]
    if not isinstance(array, jax.Array) or not any(kinds):
        raise TypeError(f"{name} has dtype {array.dtype}; it must be a real type.")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}.")
    return array


def real(name: str, value: Any) -> float | jax.Array:
    """`value` as a number; it may be traced."""
    # Not jnp.result_type, which takes a string as the name of a dtype.
    kind = value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype
    if np.ndim(value) != 0 or not any(jnp.issubdtype(kind, k) for k in (jnp.floating, jnp.integer)):
        raise TypeError(f"{name} is {value!r}; it must be a number.")
    return value


def finite(name: str, value: Any) -> float | jax.Array:
    """`value` as a finite number; it may be traced."""
    value = real(name, value)
    known = concrete(value)
    if known is not None and not np.isfinite(known):
        raise ValueError(f"{name} is {known}; it must be finite.")
    return value


def real_from_zero(name: str, value: Any) -> float | jax.Array:
    """`value` as a finite, non-negative number; it may be traced."""
    value = real(name, value)
    known = concrete(value)
    if known is not None and not 0 <= known < np.inf:
        raise ValueError(f"{name} is {known}; it must be finite and at least 0.")
    return value


def shares(**values: Any) -> tuple[float, ...]:
    """`values` as floats in 0…1 with a sum of at most 1."""
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"{name} is traced; it must be a float known while tracing.")
        values[name] = float(np.asarray(real(name, value)))
        if not 0 <= values[name] <= 1:
            raise ValueError(f"{name} is {value}; it must be in 0…1.")
    if sum(values.values()) > 1:
        raise ValueError(f"{' + '.join(values)} is {sum(values.values())}; it must be at most 1.")
    return tuple(values.values())


def lengths_of_paddings(name: str, value: ArrayLike, shape: tuple[int, ...]) -> ArrayLike:
    """Lengths from paddings as in optax: an array of `shape`, 0 within a length and 1 past it."""
    known = concrete(value)
    paddings = value if known is None else known
    if paddings.shape != shape:
        raise ValueError(f"{name} has shape {paddings.shape}; it must be {shape}.")
    used = paddings == 0
    if known is not None and np.any(used[..., 1:] & ~used[..., :-1]):
        raise ValueError(f"{name} has padding before the end; it must come last.")
    return used.sum(axis=-1, dtype=np.int32)


def field(name: str, array: ArrayLike, real: bool, expected: tuple[int | str, ...]) -> None:
    """Checks the dtype and the shape of one array of a structure."""
    if not jnp.issubdtype(array.dtype, jnp.floating if real else jnp.integer):
        kind = "floating-point" if real else "an integer type"
        raise TypeError(f"{name} has dtype {array.dtype}; it must be {kind}.")
    if array.shape != expected:
        text = ", ".join(map(str, expected))
        raise ValueError(f"{name} has shape {array.shape}; it must be [{text}].")
