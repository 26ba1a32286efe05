"""Checks of arguments that other frameworks have and this package does not."""

import jax

from jaxctc.core import checks

TORCH_REDUCTIONS = ("none", "mean", "sum")


def not_empty(name: str, array: jax.Array) -> None:
    """Checks that an array has elements, which torch requires."""
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; it must not be empty.")


def axes(name: str, array: jax.Array, *names: str) -> None:
    """Checks that an array has exactly these axes."""
    if array.ndim != len(names):
        raise ValueError(f"{name} has shape {array.shape}; it must be ({', '.join(names)}).")


def lengths(name: str, value: checks.ArrayLike, batch: int) -> checks.ArrayLike:
    """Lengths with the shape (N,), a numpy array if they are concrete."""
    known = checks.concrete(value)
    array = checks.integer_array(name, value) if known is None else known
    checks.integer_array(name, array)
    if array.shape != (batch,) and not (batch == 1 and array.shape == ()):
        raise ValueError(f"{name} has shape {array.shape}; it must be ({batch},).")
    return array.reshape(batch)
