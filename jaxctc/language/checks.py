"""Checks of what a search knows besides the logits."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks


def no_blank(name: str, labels: Iterable[Any], blank_id: Any) -> None:
    """Checks that no label is the blank, which a search never reads."""
    blank_id = checks.at_least("blank_id", blank_id, 0)
    labels = [*labels]
    if any(label == blank_id for label in labels):
        raise ValueError(f"{name} has {labels}; it must not contain the blank, class {blank_id}.")


def readable(name: str, value: Any, blank_id: int) -> None:
    """Checks that a scorer with concrete values does not need the blank in every sequence."""
    for i, part in enumerate(getattr(value, "scorers", ())):
        readable(f"{name}.scorers[{i}]", part, blank_id)
    if hasattr(value, "letter"):  # a lexicon's labels
        letter = checks.concrete(value.letter)
        if letter is not None and letter[blank_id]:
            raise ValueError(f"{name} has words with the blank, class {blank_id}; it must not.")
    if hasattr(value, "transition"):
        _readable_tables(name, value, blank_id)


def _readable_tables(name: str, value: Any, blank_id: int) -> None:
    arrays = value.transition, value.score, value.final_score
    transition, score, final = map(checks.concrete, arrays)
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


def scorer(name: str, value: Any, classes: int | None) -> None:
    """Checks that `value` has the methods of a `Scorer`, and reads `classes` classes."""
    missing = [x for x in ("start", "extend", "final") if not callable(getattr(value, x, None))]
    if missing or isinstance(value, type):
        raise TypeError(
            f"{name} has type {type(value).__name__}; it must be a Scorer, such as the method "
            "`scorer()` of a model or constraint returns, or an object with the methods start, "
            "extend and final."
        )
    if hasattr(value, "transition") and hasattr(value, "final_score"):
        tables(name, value)
    own = getattr(value, "classes", None)
    if classes is not None and own is not None and own != classes:
        raise ValueError(f"{name} reads {own} classes; it must read {classes}.")


def methods(name: str, value: Any) -> None:
    """Checks what the methods of a scorer return, by tracing them."""
    state = jax.eval_shape(value.start)
    label = jax.ShapeDtypeStruct((), jnp.int32)
    after, score = jax.eval_shape(value.extend, state, label)
    final = jax.eval_shape(value.final, state)

    def shapes(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    if shapes(after) != shapes(state):
        raise ValueError(
            f"{name}.extend returns the state {after}; it must be like that of start, {state}."
        )
    for method, result in (("extend", score), ("final", final)):
        if result.shape != () or not jnp.issubdtype(result.dtype, jnp.floating):
            raise ValueError(
                f"{name}.{method} returns a score of shape {result.shape} and dtype "
                f"{result.dtype}; it must be a floating-point scalar."
            )


def state(name: str, value: Any, scorer: Any, batch: tuple[int, ...]) -> None:
    """Checks that `value` are states of a scorer, of each sequence of a batch."""
    if not state_fits(value, scorer, batch):
        raise ValueError(
            f"{name} does not fit; it must have a state of the scorer for each sequence of the "
            f"batch {batch}, as `scorer_state` returns."
        )


def state_fits(value: Any, scorer: Any, batch: tuple[int, ...]) -> bool:
    """Whether `value` are states of a scorer; without one, nothing."""
    start = () if scorer is None else jax.eval_shape(scorer.start)
    kinds = [
        [(*lead, *x.shape, x.dtype) for x in jax.tree.leaves(tree)]
        for tree, lead in ((start, batch), (value, ()))
    ]
    return kinds[0] == kinds[1] and jax.tree.structure(start) == jax.tree.structure(value)


def tables(name: str, value: Any) -> None:
    """Checks the arrays of an `Automaton`."""
    states, width = value.score.shape if value.score.ndim == 2 else ("states", "C")
    checks.field(f"{name}.score", value.score, True, (states, width))
    checks.field(f"{name}.transition", value.transition, False, (states, width))
    checks.field(f"{name}.final_score", value.final_score, True, (states,))
