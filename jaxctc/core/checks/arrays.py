"""Checks of arrays: their dtypes and shapes."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

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
    value = stacked(value)
    if not isinstance(value, jax.Array):
        value = host_array(name, value)
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


def labels_array(name: str, value: ArrayLike, batch: tuple[int, ...] | None = None) -> jax.Array:
    """`value` as an int32 array of shape ``[*batch, S]``; None means any batch axes."""
    array = integer_array(name, value)
    if array.ndim == 0 or (batch is not None and array.shape[:-1] != batch):
        expected = ", ".join(["*batch", "S"] if batch is None else [*map(str, batch), "S"])
        raise ValueError(f"{name} has shape {array.shape}; it must be [{expected}].")
    return array


def numbers_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """`value` as an array of real numbers of the given shape."""
    array = _made_array(name, value)
    kinds = [jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)]
    if not isinstance(array, jax.Array) or not any(kinds):
        raise TypeError(f"{name} has dtype {array.dtype}; it must be a real type.")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}.")
    return array


def field(name: str, array: ArrayLike, real: bool, expected: tuple[int | str, ...]) -> None:
    """Checks the dtype and the shape of one array of a structure."""
    if not jnp.issubdtype(array.dtype, jnp.floating if real else jnp.integer):
        kind = "floating-point" if real else "an integer type"
        raise TypeError(f"{name} has dtype {array.dtype}; it must be {kind}.")
    if array.shape != expected:
        text = ", ".join(map(str, expected))
        raise ValueError(f"{name} has shape {array.shape}; it must be [{text}].")


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


def concrete(value: Any) -> np.ndarray | None:
    """`value` as a numpy array; None if it is traced, or if other processes hold parts of it."""
    value = stacked(value)
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None  # sharded over processes; this one holds only a part
    return np.asarray(value)


def stacked(value: Any) -> Any:
    """`value` as an array if it is a tuple or list of traced numbers, such as lengths in `jit`."""
    if isinstance(value, (tuple, list)) and any(isinstance(x, jax.core.Tracer) for x in value):
        return jnp.stack([jnp.asarray(x) for x in value])
    return value


def _made_array(name: str, value: ArrayLike) -> jax.Array | np.ndarray:
    """`value` as a jax array, or as a numpy array if jax does not support its dtype."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        return host_array(name, value)


def host_array(name: str, value: ArrayLike) -> np.ndarray:
    """`value` as a numpy array; the rows of nested lists must have one length."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} has rows of different lengths; they must have one length."
        ) from None
