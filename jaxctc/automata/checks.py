"""Checks of automata, topologies and lists of labels."""

from typing import Any

import jax
import numpy as np

from jaxctc.core import checks


def automaton(name: str, value: Any, batch: tuple[int, ...], classes: int) -> None:
    """Checks that `value` is one Fsa, or a batch of them, and that its labels are classes."""
    _of_type_fsa(name, value)
    shared = value.label.ndim == 1
    for field, array in value._asdict().items():
        like, letter = (value.final, "S") if field in ("start", "final") else (value.label, "A")
        size = like.shape[-1] if like.ndim else letter
        real = field in ("weight", "start", "final")
        checks.field(f"{name}.{field}", array, real, (size,) if shared else (*batch, size))
    label = checks.concrete(value.label)
    for field in ("source", "destination", "label"):
        known = checks.concrete(getattr(value, field))
        if known is not None and label is not None:
            limit = classes if field == "label" else value.final.shape[-1]
            wrong = (label >= 0) & ((known < 0) | (known >= limit))
            if wrong.any():
                raise ValueError(
                    f"{name}.{field} has the value {known[wrong][0]}; it must be in 0…{limit - 1}."
                )


def _of_type_fsa(name: str, value: Any) -> None:
    if not hasattr(value, "destination"):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be an Fsa.")


def few_gaps(states: np.ndarray) -> None:
    """Checks that state numbers have no large gaps, since arrays have a place for each number."""
    different = np.unique(states).size
    limit = 1000 + 10 * different
    highest = states.max(initial=0)
    if highest >= limit:
        raise ValueError(
            f"state is {highest:.0f}; it must be below {limit}, since only {different} states "
            "are used. Number them from 0 without large gaps."
        )


def one_automaton(name: str, value: Any) -> None:
    """Checks that `value` is an Fsa without batch axes."""
    _of_type_fsa(name, value)
    if np.ndim(value.final) != 1:
        shape = np.shape(value.final)
        raise ValueError(f"{name}.final has shape {shape}; it must be [S], of one automaton.")


def several_automata(name: str, value: Any) -> None:
    """Checks that `value` is a sequence of one Fsa or more, none of them a batch."""
    if hasattr(value, "destination"):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a sequence of Fsas.")
    if not value:
        raise ValueError(f"{name} has length 0; it must be at least 1.")
    for i, fsa in enumerate(value):
        one_automaton(f"{name}[{i}]", fsa)


def topology(value: Any) -> None:
    """Checks that `value` is a `FrameTopology`."""
    if isinstance(value, type) or not hasattr(value, "read"):
        raise TypeError(
            f"topology has type {type(value).__name__}; it must be a topology, such as CTC()."
        )


def label_list(name: str, value: Any) -> list[int]:
    """`value` as a list of whole numbers from 0 up."""
    try:
        array = np.asarray(value if isinstance(value, jax.Array) else [*value])
    except (TypeError, ValueError):  # not iterable, or rows of different lengths
        raise TypeError(
            f"{name} has type {type(value).__name__}; it must be a sequence of labels."
        ) from None
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; it must be [S].")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {array.dtype}; it must be an integer type.")
    wrong = ~((array >= 0) & (array < 2**31 - 1) & (array == np.floor(array)))
    if wrong.any():
        raise ValueError(f"label is {array[wrong][0]:g}; it must be a whole number from 0 up.")
    return [int(label) for label in array]
