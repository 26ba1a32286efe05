"""Checks of labels, texts, n-grams and their files."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from jaxctc.core import checks


def no_blank(name: str, labels: Iterable[Any], blank_id: Any) -> None:
    """Checks that no label is the blank, which a search never reads."""
    if blank_id is None:
        return
    blank_id = checks.at_least("blank_id", blank_id, 0)
    labels = [*labels]
    if any(label == blank_id for label in labels):
        raise ValueError(
            f"{name} has {labels}; it must not contain the blank, class {blank_id} as `blank_id` "
            "says."
        )


def ordered(name: str, word: Any) -> None:
    """Checks that a word is a sequence of labels, or another collection that keeps their order."""
    if not isinstance(word, Collection) or isinstance(word, (str, bytes, Set, Mapping)):
        raise TypeError(f"{name} has {word!r}; a word must be a sequence of labels.")


def several(name: str, value: Any, each: str) -> None:
    """Checks that `value` is a sequence of such things, or another collection that has a length."""
    if isinstance(value, str) or not (hasattr(value, "__iter__") and hasattr(value, "__len__")):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a sequence of {each}.")


def texts(name: str, value: Any, count: int | None, each: str) -> None:
    """Checks that `value` is texts, so many if a number is given, each that of a word or class."""
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, bytes):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a sequence of texts.")
    if count is not None and len(value) != count:
        raise ValueError(
            f"{name} has length {len(value)}; it must have the text of each {each}, {count}."
        )
    for text in value:
        if not isinstance(text, str):
            raise TypeError(f"{name} has {text!r}; it must have texts.")


def ngrams(name: str, value: Any) -> None:
    """Checks that `value` maps n-grams, tuples of words, to two logarithms each."""
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise TypeError(f"{name} has type {kind}; it must be a mapping from n-grams to logarithms.")
    if not value:
        raise ValueError(f"{name} has length 0; it must have at least one n-gram.")
    for ngram, numbers in value.items():
        if not isinstance(ngram, tuple) or not ngram or not all(isinstance(x, str) for x in ngram):
            raise TypeError(f"{name} has {ngram!r}; an n-gram must be a tuple of words.")
        try:
            log10, backoff = map(float, numbers)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} has {ngram} with {numbers!r}; it must be log10 of a probability and of a "
                "back-off."
            ) from None
        if not (log10 <= 0 and backoff < np.inf):
            raise ValueError(
                f"{name} has {ngram} with {numbers!r}; log10 of a probability must be at most 0, "
                "and that of a back-off finite or -inf."
            )


def saved_tables(path: Any, arrays: Mapping[str, np.ndarray], tables: Sequence[str]) -> None:
    """Checks that arrays of a file are those that `NGram.save` writes."""
    kinds = {"vocabulary": "u", "names": "u", "order": "i"}
    kinds |= {name: "f" if name in ("unigram", "log10", "backoff") else "i" for name in tables}
    for name, kind in kinds.items():
        axes = 0 if name == "order" else 1
        found = arrays.get(name)
        if found is None or found.dtype.kind != kind or found.ndim != axes:
            what = "no" if found is None else f"a wrong array {found.dtype}{[*found.shape]} as"
            raise ValueError(f"{path} has {what} {name}; it must be a file that NGram.save wrote.")


def begins(name: str, value: Any, classes: int) -> frozenset[int]:
    """`value` as a set of classes; empty for None."""
    if value is None:
        return frozenset()
    if not isinstance(value, Collection) or isinstance(value, str):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a set of labels.")
    return frozenset(checks.class_id(name, label, classes) for label in value)
