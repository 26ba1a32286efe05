"""The tables of a back-off n-gram model: memory in proportion to its n-grams.

N-grams of two words and more are sorted by their *context*, the words before the last, and the
last word. A context is an n-gram itself: number 0 is the empty one, 1 + w that of the word w,
and 1 + words + e that of the n-gram e, for all but those of the highest order. Contexts of one
order are therefore numbered in the order in which their n-grams are sorted, and the n-grams after
a context are a range of the table.
"""

from typing import NamedTuple

import numpy as np

from jaxctc.language.arpa import Section


class Tables(NamedTuple):
    """A model's tables; logarithms are decimal, as in ARPA files."""

    unigram: np.ndarray  # float32 [words]
    offset: np.ndarray  # int32 [contexts + 1]: the first n-gram after each context
    word: np.ndarray  # int32 [n-grams of two words and more]: the last word
    log10: np.ndarray  # float32, of each n-gram
    # The longest shorter n-gram that is a context and ends in the same words: where to back off
    # to from a context, and the context after an n-gram of the highest order.
    link: np.ndarray  # int32, of each n-gram
    backoff: np.ndarray  # float32 [contexts]


def build(sections: list[Section], start: int, end: int, order: int, name: str) -> Tables:
    """The tables of the n-grams that a sentence can contain.

    Args:
      sections: The n-grams of each order, from 1 on.
      start: The number of ``<s>``, -1 without.
      end: The number of ``</s>``, -1 without.
      order: The model's.
      name: What errors are about.
    """
    unigrams = sections[0]
    words = len(unigrams.log10)
    unigram = np.full(words, -np.inf, np.float32)
    unigram[unigrams.words[:, 0]] = unigrams.log10
    backoff = np.zeros(1 + words if order > 1 else 1, np.float32)
    if order > 1:
        backoff[1 + unigrams.words[:, 0]] = unigrams.backoff
    key = np.zeros(0, np.int64)  # context times 2**32, and word
    log10, link, backoffs = [], [], [backoff]
    for section in sections[1:]:
        listed = section.words
        # Contexts that no sentence leads to: a start within it, an end before its end.
        possible = (listed[:, 1:] != start).all(1) & (listed[:, :-1] != end).all(1)
        listed = listed[possible]
        context = 1 + listed[:, 0].astype(np.int64)
        for i in range(1, section.order - 1):
            place = _find(key, context, listed[:, i])
            if (place < 0).any():
                raise ValueError(
                    f"{name} has an n-gram of {section.order} words without its first "
                    f"{i + 1}; it must have both."
                )
            context = 1 + words + place
        own = (context << 32) | listed[:, -1]
        order_of = np.argsort(own, kind="stable")
        own, context = own[order_of], context[order_of]
        if (own[1:] == own[:-1]).any():
            raise ValueError(f"{name} has an n-gram twice; its n-grams must differ.")
        last = listed[order_of, -1]
        link.append(_shorter(key, link, words, context, last))
        key = np.concatenate([key, own])
        log10.append(section.log10[possible][order_of])
        if section.order < order:
            backoffs.append(section.backoff[possible][order_of])
    backoff = np.concatenate(backoffs)
    contexts = np.arange(len(backoff) + 1, dtype=np.int64)
    return Tables(
        unigram,
        np.searchsorted(key, contexts << 32).astype(np.int32),
        (key & 0xFFFFFFFF).astype(np.int32),
        np.concatenate([*log10, np.zeros(0, np.float32)]),
        np.concatenate([*link, np.zeros(0, np.int32)]),
        backoff,
    )


def check(tables: Tables, names: int, path: str) -> None:
    """Checks that tables from a file fit together."""
    words, ngrams, contexts = len(tables.unigram), len(tables.word), len(tables.backoff)
    sizes = {
        "unigram": (names, words),
        "log10": (ngrams, len(tables.log10)),
        "link": (ngrams, len(tables.link)),
        "offset": (contexts + 1, len(tables.offset)),
    }
    for field, (wanted, found) in sizes.items():
        if found != wanted:
            raise ValueError(f"{path} has {field} of length {found}; it must be {wanted}.")
    if tables.offset[0] != 0 or tables.offset[-1] != ngrams:
        raise ValueError(f"{path} has offset up to {tables.offset[-1]}; it must be {ngrams}.")


def _find(key: np.ndarray, context: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Where the n-grams of contexts and words are, -1 where there are none."""
    if not len(key):
        return np.full(len(word), -1)
    wanted = (context.astype(np.int64) << 32) | word
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    return np.where(key[place] == wanted, place, -1)


def _shorter(key, link: list, words: int, context: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The longest shorter context that n-grams end in (Aho, Corasick 1975), int32."""
    links = np.concatenate([*link, np.zeros(0, np.int32)])

    def back(context):
        long = context > words
        return np.where(long, links[np.where(long, context - 1 - words, 0)] if len(links) else 0, 0)

    context = back(context)
    result = np.full(len(last), -1, np.int64)
    while (result < 0).any():
        place = _find(key, context, last)
        result = np.where((result < 0) & (place >= 0), 1 + words + place, result)
        result = np.where((result < 0) & (context == 0), 1 + last, result)
        context = back(context)
    return result.astype(np.int32)


def lookup(tables: Tables, context: int, word: int) -> tuple[float, int]:
    """log10 of the probability of a word after a context, and the context after it, on the host."""
    words, middle = len(tables.unigram), len(tables.backoff) - 1 - len(tables.unigram)
    total = 0.0
    while context:
        first, last = tables.offset[context : context + 2]
        place = first + np.searchsorted(tables.word[first:last], word)
        if place < last and tables.word[place] == word:
            after = 1 + words + place if place < middle else tables.link[place]
            return total + float(tables.log10[place]), int(after)
        total += float(tables.backoff[context])
        context = int(tables.link[context - 1 - words]) if context > words else 0
    return total + float(tables.unigram[word]), 1 + word if len(tables.backoff) > 1 else 0
