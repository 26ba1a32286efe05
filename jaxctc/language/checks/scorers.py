"""Checks of scorers and of their states."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks


def readable(name: str, value: Any, blank_id: int) -> None:
    """Checks that a scorer in the host's memory does not need the blank in every sequence."""
    for i, part in enumerate(getattr(value, "scorers", ())):
        readable(f"{name}.scorers[{i}]", part, blank_id)
    if hasattr(value, "letter"):  # a lexicon's labels
        letter, separator = map(_in_memory, (value.letter, value.separator))
        if letter is not None and letter[blank_id]:
            raise ValueError(f"{name} has words with the blank, class {blank_id}; it must not.")
        if separator is not None and separator == blank_id:
            raise ValueError(
                f"{name} has the separator {blank_id}; it must not be the blank, class {blank_id}."
            )
    if hasattr(value, "transition"):
        _readable_tables(name, value, blank_id)


def _in_memory(value: Any) -> np.ndarray | None:
    """`value` as a numpy array without a copy; None if there would be one, or it is traced."""
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        on_host = all(device.platform == "cpu" for device in value.devices())
        if not (on_host and value.is_fully_replicated):
            return None
    return checks.concrete(value)


def _readable_tables(name: str, value: Any, blank_id: int) -> None:
    arrays = value.transition, value.score, value.final_score
    transition, score, final = map(_in_memory, arrays)
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
    if own is not None and not isinstance(own, (int, np.integer)):
        raise TypeError(f"{name}.classes has type {type(own).__name__}; it must be an int.")
    if classes is not None and own is not None and own != classes:
        raise ValueError(f"{name} reads {own} classes; it must read {classes}.")


def methods(name: str, value: Any, words: int | None = None, unknown: bool = False) -> None:
    """Checks what the methods of a scorer return, by tracing them.

    Args:
      name: What errors are about.
      value: A scorer that `scorer` has checked.
      words: Of a model of words, how many there are.
      unknown: Whether it is asked for words that are not in the list.
    """
    for i, part in enumerate(getattr(value, "scorers", ())):
        methods(f"{name}.scorers[{i}]", part, words, unknown)
    _leaves(name, value)
    leaves, structure = jax.tree.flatten(value)
    kinds = tuple((np.shape(x), jax.dtypes.canonicalize_dtype(_dtype(x), True)) for x in leaves)
    # A function may close over traced arrays, which a cache must not keep.
    check = _methods if holds_functions(structure) else _methods_once
    check(name, structure, kinds, words, unknown)


def known(name: str, value: Any) -> None:
    """Checks that a scorer is not traced."""
    if is_traced(value):
        raise TypeError(f"{name} is traced; it must be known, outside `jit`.")


def is_traced(value: Any) -> bool:
    """Whether an array of a pytree is traced."""
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(value))


def holds_functions(structure: Any) -> bool:
    """Whether a pytree has functions that are static; they may close over traced arrays."""
    node = structure.node_data()
    static = node[1] if node is not None and isinstance(node[1], tuple) else ()
    return any(map(callable, static)) or any(map(holds_functions, structure.children()))


def _methods(name: str, structure: Any, kinds: tuple, words: int | None, unknown: bool) -> None:
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kinds]
    value = jax.tree.unflatten(structure, arrays)

    def returned(method, *arguments):
        def call(arrays, *arguments):
            return getattr(jax.tree.unflatten(structure, arrays), method)(*arguments)

        return jax.eval_shape(call, arrays, *arguments)

    def labels(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    state = returned("start")
    _extended(f"{name}.extend", returned("extend", state, labels()), state)
    _score(f"{name}.final", returned("final", state))
    if hasattr(value, "extend_scores"):
        _score(f"{name}.extend_scores", returned("extend_scores", state, labels(2)), (2,))
    if hasattr(value, "next_segment"):
        _like_start(f"{name}.next_segment", returned("next_segment", state), state)
    if words is not None and hasattr(value, "unigram_scores"):
        _score(f"{name}.unigram_scores", returned("unigram_scores"), (words,))
    if unknown and hasattr(value, "extend_unknown"):
        _extended(f"{name}.extend_unknown", returned("extend_unknown", state), state)


_methods_once = functools.lru_cache(maxsize=256)(_methods)  # streams check for each piece


def _dtype(value: Any) -> Any:
    return value.dtype if hasattr(value, "dtype") else np.dtype(type(value))


def _leaves(name: str, value: Any) -> None:
    """Checks that a scorer is a pytree of arrays, which a compiled search can take."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        if leaf is value:
            raise TypeError(
                f"{name} has type {type(value).__name__}, which is not a pytree; it must be one, "
                "such as a dataclass with jax.tree_util.register_dataclass."
            )
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float)):
            where = jax.tree_util.keystr(path)
            raise TypeError(
                f"{name}{where} has type {type(leaf).__name__}; it must be an array, or a field "
                "that is static."
            )


def _extended(name: str, value: Any, state: Any) -> None:
    """Checks what `extend` or `extend_unknown` returned: a state, and a score."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        kind = type(value).__name__
        what = f"{len(value)} values" if kind in ("tuple", "list") else f"a value of type {kind}"
        raise TypeError(f"{name} returns {what}; it must return two, a state and a score.")
    after, score = value
    _like_start(name, after, state)
    _score(name, score)


def _like_start(name: str, after: Any, state: Any) -> None:
    """Checks that a state is like that of the start."""
    if jax.tree.structure(after) != jax.tree.structure(state) or _kinds(after) != _kinds(state):
        raise ValueError(
            f"{name} returns the state {_text(after)}; it must be like that of start, "
            f"{_text(state)}."
        )


def _kinds(tree: Any) -> list[tuple]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _text(tree: Any) -> str:
    """A pytree with dtype and shape for each array."""
    return str(jax.tree.map(_Kind, tree))


class _Kind:
    """Prints as an array's dtype and shape."""

    def __init__(self, array: Any):
        self.array = array

    def __repr__(self) -> str:
        return f"{self.array.dtype}{[*self.array.shape]}"


def _score(name: str, value: Any, shape: tuple[int, ...] = ()) -> None:
    """Checks that a method returned a score, or several."""
    if not hasattr(value, "dtype"):
        raise TypeError(
            f"{name} returns a score of type {type(value).__name__}; it must be a number."
        )
    if value.shape != shape or not jnp.issubdtype(value.dtype, jnp.floating):
        wanted = f"floating-point, of shape {shape}" if shape else "a floating-point scalar"
        raise ValueError(
            f"{name} returns a score of shape {value.shape} and dtype {value.dtype}; "
            f"it must be {wanted}."
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
        [(*lead, *np.shape(x), getattr(x, "dtype", None)) for x in jax.tree.leaves(tree)]
        for tree, lead in ((start, batch), (value, ()))
    ]
    return kinds[0] == kinds[1] and jax.tree.structure(start) == jax.tree.structure(value)


def tables(name: str, value: Any) -> None:
    """Checks the arrays of an `Automaton`."""
    states, width = value.score.shape if value.score.ndim == 2 else ("states", "C")
    checks.field(f"{name}.score", value.score, True, (states, width))
    checks.field(f"{name}.transition", value.transition, False, (states, width))
    checks.field(f"{name}.final_score", value.final_score, True, (states,))
    for field, real in (("unknown_transition", False), ("unknown_score", True)):
        if getattr(value, field, None) is not None:
            checks.field(f"{name}.{field}", getattr(value, field), real, (states,))
