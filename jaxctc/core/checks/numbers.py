"""Checks of single values: numbers, flags, functions."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxctc.core.checks.arrays import concrete


def static_int(name: str, value: Any) -> int:
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
    index = static_int(name, value)
    if not 0 <= index < classes:
        raise ValueError(f"{name} is {index}; it must be a class, in 0…{classes - 1}.")
    return index


def class_from_either_end(name: str, value: Any, classes: int) -> int:
    """`value` as a class in ``0…classes - 1``; negative values count from the end."""
    index = static_int(name, value)
    if not -classes <= index < classes:
        raise ValueError(f"{name} is {index}; it must be in {-classes}…{classes - 1}.")
    return index % classes


def positive(name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    return at_least(name, value, 1)


def at_least(name: str, value: Any, minimum: int) -> int:
    """`value` as an int of at least `minimum`."""
    number = static_int(name, value)
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


def floating(name: str, value: Any) -> jnp.dtype:
    """`value` as a dtype of floating-point numbers."""
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be a dtype.") from None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} is {dtype}; it must be floating-point.")
    return dtype


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
    index = static_int(name, value)
    if index < 0 or index == blank_id or index > np.iinfo(np.int32).max:
        raise ValueError(f"{name} is {index}; it must be from 0 up, and not the blank.")
    return index


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


def probability(name: str, value: Any) -> float | jax.Array:
    """`value` as a number above 0, of at most 1; it may be traced."""
    value = real(name, value)
    known = concrete(value)
    if known is not None and not 0 < known <= 1:
        raise ValueError(f"{name} is {known}; it must be above 0 and at most 1.")
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
