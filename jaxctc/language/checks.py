"""Checks of the automata that a search reads."""

from typing import Any

from jaxctc.core import checks


def tables(name: str, value: Any, classes: int | None = None) -> None:
    """Checks that `value` is an Automaton, and that it reads `classes` classes."""
    if not hasattr(value, "transition"):
        raise TypeError(
            f"{name} has type {type(value).__name__}; it must be an Automaton, as the method "
            "`automaton()` of a model or constraint returns it."
        )
    states, width = value.score.shape if value.score.ndim == 2 else ("states", "C")
    checks.field(f"{name}.score", value.score, True, (states, width))
    checks.field(f"{name}.transition", value.transition, False, (states, width))
    checks.field(f"{name}.final", value.final, True, (states,))
    if classes is not None and width != classes:
        raise ValueError(f"{name} reads {width} classes; it must read {classes}.")
