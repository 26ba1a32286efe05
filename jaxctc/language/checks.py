"""Checks of the automata that a search reads."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxctc.core import checks


def no_blank(name: str, labels: Iterable[Any], blank_id: Any) -> None:
    """Checks that no label is the blank, which a search never reads."""
    blank_id = checks.at_least("blank_id", blank_id, 0)
    labels = [*labels]
    if any(label == blank_id for label in labels):
        raise ValueError(f"{name} has {labels}; it must not contain the blank, class {blank_id}.")


def readable(name: str, value: Any, blank_id: int) -> None:
    """Checks that an Automaton with concrete values does not need the blank in every sequence."""
    transition, score, final = map(checks.concrete, (value.transition, value.score, value.final))
    if transition is None or score is None or final is None:
        return
    # A final state is usually near, so only a few rows of the tables are read.
    seen, stack, blank_is_read = {0}, [0], False
    while stack:
        state = stack.pop()
        if final[state] > -np.inf:
            return
        labels = np.flatnonzero(score[state] > -np.inf)
        blank_is_read |= blank_id in labels
        following = {*transition[state, labels[labels != blank_id]].tolist()} - seen
        seen |= following
        stack.extend(following)
    if blank_is_read:
        raise ValueError(
            f"{name} reads no sequence without the blank, class {blank_id}; it must read some."
        )


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
