"""Grammars, lexicons and hotwords as automata: which labels are allowed or preferred."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxctc.core import checks
from jaxctc.language import checks as language_checks
from jaxctc.language.tables import Automaton, build

FORBIDDEN = -np.inf
Labels = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Grammar:
    """Sequences with a set of allowed labels at each place: a plate's number, a date, a code.

    Attributes:
      templates: One or more sequences of sets of labels. A sequence of labels is allowed if
        it is as long as one of the templates and each label is in the set of its place.
      classes: The number of classes C.
      blank_id: The class that is the blank, which no label may be.

    Example:
      >>> import jaxctc
      >>> letters, digits = {1, 2, 3}, {4, 5}
      >>> grammar = jaxctc.Grammar([[letters, digits], [letters, digits, digits]], classes=6)
      >>> automaton = grammar.automaton()
      >>> [automaton.score_sequence(labels) for labels in ([1, 4], [3, 5, 5], [4, 1])]
      [0.0, 0.0, -inf]
    """

    templates: Sequence[Sequence[Collection[int]]]
    classes: int
    blank_id: int = 0

    def automaton(self) -> Automaton:
        """The grammar as an automaton: scores are 0 or ``-inf``."""
        for template in self.templates:
            places = template if isinstance(template, Sequence) else [None]
            if not all(isinstance(place, Collection) for place in places):
                raise TypeError(
                    f"templates has {template!r}; a template must be a sequence of sets of labels."
                )
            for place in template:
                language_checks.no_blank("templates", place, self.blank_id)

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

        return build((0, tuple(range(len(self.templates)))), expand, self.classes)


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Only words of a list: one word, or any number of words with a separator between them.

    Attributes:
      words: Each word as its labels; no word twice.
      classes: The number of classes C.
      separator: The label between words; None if a sequence is one word.
      language_model: An automaton whose label i is the word ``words[i]``, such as that of an
        `NGram` with these words as vocabulary. Its score of a word is added when the word ends.
      blank_id: The class that is the blank, which neither a label nor the separator may be.

    Example:
      >>> import jaxctc
      >>> lexicon = jaxctc.Lexicon([[1, 2], [1, 2, 3]], classes=5, separator=4).automaton()
      >>> lexicon.score_sequence([1, 2, 4, 1, 2, 3]), lexicon.score_sequence([1, 4, 1, 2])
      (0.0, -inf)
    """

    words: Sequence[Sequence[int]]
    classes: int
    separator: int | None = None
    language_model: Automaton | None = None
    blank_id: int = 0

    def automaton(self) -> Automaton:
        """The trie of the words as an automaton; a state is a node and the model's state."""
        root: Labels = ()
        children: dict[Labels, dict[int, Labels]] = {root: {}}
        word_at: dict[Labels, int] = {}
        if self.separator is not None:
            language_checks.no_blank("separator", [self.separator], self.blank_id)
        for index, word in enumerate(_labels(word) for word in self.words):
            language_checks.no_blank("words", word, self.blank_id)
            if not word or word in word_at or self.separator in word:
                raise ValueError(
                    f"words has {list(word)}; a word must not be empty, repeated, or contain the "
                    "separator."
                )
            word_at[word] = index
            for end in range(1, len(word) + 1):
                children[word[: end - 1]][word[end - 1]] = word[:end]
                children.setdefault(word[:end], {})

        model = self.language_model
        if model is None:
            words = len(word_at)
            model = Automaton(np.zeros((1, words), np.int32), np.zeros((1, words)), np.zeros(1))
        language_checks.tables("language_model", model, len(word_at))

        def expand(state):
            context, node, empty = state
            arcs = [
                (label, (context, child, False), 0.0) for label, child in children[node].items()
            ]
            final = float(model.final[context]) if empty else FORBIDDEN
            if node in word_at:
                word = word_at[node]
                following = int(model.transition[context, word])
                score = float(model.score[context, word])
                final = score + float(model.final[following])
                if self.separator is not None:
                    arcs.append((self.separator, (following, root, False), score))
            return arcs, final

        # With a separator a sequence is any number of words, so it may be empty.
        return build((0, root, self.separator is not None), expand, self.classes)


@dataclasses.dataclass(frozen=True)
class Hotwords:
    """Sequences of labels that score higher wherever they occur.

    Each label of a word that may have begun adds a part of the boost, so that a beam does not
    lose the word before its end; if the word is not completed, the parts are subtracted again.
    The score of a whole sequence is the sum of the boosts of all occurrences, overlaps included.

    Attributes:
      words: The boost, a natural logarithm, of each word, a tuple of labels.
      classes: The number of classes C.
      blank_id: The class that is the blank, which no label may be.

    Example:
      >>> import jaxctc
      >>> hot = jaxctc.Hotwords({(1, 2): 3.0}, classes=4).automaton()
      >>> hot.score_sequence([1, 2, 3, 1, 2]), hot.score_sequence([1, 3])
      (6.0, 0.0)

    References:
      Aho, Corasick 1975, "Efficient string matching: an aid to bibliographic search".
      Ng, Harada, Russell 1999, "Policy invariance under reward transformations" (boosts in parts).
    """

    words: Mapping[Sequence[int], float]
    classes: int
    blank_id: int = 0

    def automaton(self) -> Automaton:
        """The automaton whose states are the prefixes of words (Aho and Corasick 1975)."""
        if not isinstance(self.words, Mapping):
            raise TypeError(
                f"words has type {type(self.words).__name__}; it must be a mapping to boosts."
            )
        words = {_labels(word): boost for word, boost in self.words.items()}
        for word, boost in words.items():
            language_checks.no_blank("words", word, self.blank_id)
            if not word or not np.isfinite(boost):
                raise ValueError(
                    f"words has {list(word)} with the boost {boost}; a word must not be empty, and "
                    "its boost must be finite."
                )
            for label in word:  # a label that is not a class would never be read
                checks.class_id("label", label, self.classes)
        in_advance: dict[Labels, float] = {(): 0.0}  # the part of the boost at each prefix
        for word, boost in words.items():
            for end in range(len(word)):
                part = boost * end / len(word)
                in_advance[word[:end]] = max(in_advance.get(word[:end], 0.0), part)

        def expand(prefix):
            arcs = []
            for label in range(self.classes):
                read = (*prefix, label)
                suffixes = [read[i:] for i in range(len(read))]
                gained = sum(words.get(suffix, 0.0) for suffix in suffixes)
                following = next((suffix for suffix in suffixes if suffix in in_advance), ())
                gained += in_advance[following] - in_advance[prefix]
                arcs.append((label, following, gained))
            return arcs, -in_advance[prefix]

        return build((), expand, self.classes)


def _labels(word) -> Labels:
    """A word as a tuple of labels."""
    if not isinstance(word, Collection):
        raise TypeError(f"words has {word!r}; a word must be a sequence of labels.")
    return tuple(word)
