"""Grammars and hotwords as dense tables: which labels are allowed or preferred."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxctc.core import checks
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import FORBIDDEN
from jaxctc.language.tables import Automaton, build

Labels = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Sequences with a set of allowed labels at each place: a plate's number, a date, a code.

    Attributes:
      templates: One or more sequences of sets of labels. A sequence of labels is allowed if
        it is as long as one of the templates and each label is in the set of its place.
      classes: The number of classes C.
      blank_id: The class that is the blank, which no label may be. None if labels are the words of
        a `Lexicon`.

    Examples:
      >>> import jaxctc
      >>> letters, digits = {1, 2, 3}, {4, 5}
      >>> grammar = jaxctc.Grammar([[letters, digits], [letters, digits, digits]], classes=6)
      >>> labels = [[1, 4, -1], [3, 5, 5], [4, 1, -1]]
      >>> print(jaxctc.score_sequence(grammar.scorer(), labels))
      [  0.   0. -inf]
    """

    templates: Sequence[Sequence[Collection[int]]]
    classes: int
    blank_id: int | None = 0

    def __post_init__(self):
        language_checks.several("templates", self.templates, "templates")
        for template in self.templates:
            places = template if isinstance(template, Sequence) else [None]
            if not all(isinstance(place, Collection) for place in places):
                raise TypeError(
                    f"templates has {template!r}; a template must be a sequence of sets of labels."
                )
            for place in template:
                language_checks.no_blank("templates", place, self.blank_id)

    def scorer(self) -> Automaton:
        """The grammar as a `Scorer`: scores are 0 or ``-inf``."""

        # A state is a place and the templates that fit so far.
        def expand(state):
            place, fitting = state
            arcs = {}
            for i in fitting:
                if place < len(self.templates[i]):
                    for label in self.templates[i][place]:
                        arcs.setdefault(label, []).append(i)
            ends = any(len(self.templates[i]) == place for i in fitting)
            following = [(label, (place + 1, tuple(fits)), 0.0) for label, fits in arcs.items()]
            return following, 0.0 if ends else FORBIDDEN

        start = 0, tuple(range(len(self.templates)))
        return build(start, expand, self.classes, lambda _: None)


@dataclasses.dataclass(frozen=True)
class Hotwords:
    """Sequences of labels that score higher wherever they occur, or as whole words only.

    Each label of a word that may have begun adds a part of the boost, so that a beam does not
    lose the word before its end; if the word is not completed, the parts are subtracted again.
    The score of a whole sequence is the sum of the boosts of all occurrences, overlaps included.

    Attributes:
      words: The boost, a natural logarithm, of each word, a tuple of labels.
      classes: The number of classes C.
      separator: If given, words count only between separators, the start and the end, so that
        "cat" is not found in "concatenate". A word of several has separators between its parts.
      blank_id: The class that is the blank, which no label may be. None if labels are the words of
        a `Lexicon`.

    Examples:
      >>> import jaxctc
      >>> hot = jaxctc.Hotwords({(1, 2): 3.0}, classes=4).scorer()
      >>> print(jaxctc.score_sequence(hot, [[1, 2, 3, 1, 2], [1, 3, -1, -1, -1]]))
      [6. 0.]
      >>> whole = jaxctc.Hotwords({(1, 2): 3.0}, classes=4, separator=3).scorer()
      >>> print(jaxctc.score_sequence(whole, [[1, 2, 3, 1, 2], [1, 1, 2, -1, -1]]))
      [6. 0.]

    References:
      Aho, Corasick 1975, "Efficient string matching: an aid to bibliographic search".
      Ng, Harada, Russell 1999, "Policy invariance under reward transformations" (boosts in parts).
    """

    words: Mapping[Sequence[int], float]
    classes: int
    separator: int | None = None
    blank_id: int | None = 0

    def __post_init__(self):
        if not isinstance(self.words, Mapping):
            raise TypeError(
                f"words has type {type(self.words).__name__}; it must be a mapping to boosts."
            )
        for word, boost in self.words.items():
            word = _labels(word)
            language_checks.no_blank("words", word, self.blank_id)
            if not word or not np.isfinite(checks.static_real(f"the boost of {[*word]}", boost)):
                raise ValueError(
                    f"words has {list(word)} with the boost {boost}; a word must not be empty, and "
                    "its boost must be finite."
                )
            for label in word:  # a label that is not a class would never be read
                checks.class_id("label", label, self.classes)
        if self.separator is not None:
            language_checks.no_blank("separator", [self.separator], self.blank_id)
            checks.class_id("separator", self.separator, self.classes)

    def scorer(self) -> Automaton:
        """The tables whose states are the prefixes of words (Aho and Corasick 1975)."""
        words = {_labels(word): boost for word, boost in self.words.items()}
        # Whole words are words with a separator at both ends. A sequence has one before its
        # first label, which it never reads, and one after its last.
        edge = () if self.separator is None else (self.separator,)
        if edge:
            words = {(*edge, *word, *edge): boost for word, boost in words.items()}
        in_advance: dict[Labels, float] = {(): 0.0, edge: 0.0}  # the boost's part at each prefix
        for word, boost in words.items():
            first = len(edge)
            for end in range(first, len(word)):
                part = boost * (end - first) / (len(word) - first)
                in_advance[word[:end]] = max(in_advance.get(word[:end], 0.0), part)

        def read(prefix, label):
            longer = (*prefix, label)
            suffixes = [longer[i:] for i in range(len(longer))]
            gained = sum(words.get(suffix, 0.0) for suffix in suffixes)
            following = next((suffix for suffix in suffixes if suffix in in_advance), ())
            return following, gained

        def expand(prefix):
            arcs = []
            for label in range(self.classes):
                following, gained = read(prefix, label)
                gained += in_advance[following] - in_advance[prefix]
                arcs.append((label, following, gained))
            end = read(prefix, self.separator)[1] if edge else 0.0
            return arcs, end - in_advance[prefix]

        def unknown(prefix):
            return (), -in_advance[prefix]

        return build(edge, expand, self.classes, unknown)


def _labels(word) -> Labels:
    """A word as a tuple of labels."""
    language_checks.ordered("words", word)
    return tuple(word)
