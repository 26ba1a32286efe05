"""Words of a list, as many as a language has, with a model of them."""

import dataclasses
import functools
import operator
from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import checks
from jaxctc.language import checks as language_checks
from jaxctc.language import trie
from jaxctc.language.lexicon_scorer import LexiconScorer
from jaxctc.language.scorer import Scorer, unigram_scores


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Only words of a list: one word, or any number of words.

    Words are told apart by a separator between them, or by labels that begin words, such as the
    tokens with "▁" of SentencePiece.

    Attributes:
      words: Each word as its labels, or as a list of several spellings. Two words may be
        spelled alike.
      classes: The number of classes C.
      separator: The label between words, if there is one.
      word_begins: Labels that begin a word and are nowhere else in it, if there are such. With
        neither, a sequence is one word.
      blank_id: The class that is the blank, which neither a label nor the separator may be.
      names: The text of each word, for `jaxctc.words`. Without them a word's text is its spelling.
      vocabulary: The text of each class, of which `jaxctc.words` spells words that are not in the
        list.

    Examples:
      >>> import jaxctc
      >>> lexicon = jaxctc.Lexicon([[1, 2], [1, 2, 3]], classes=5, separator=4).scorer()
      >>> print(jaxctc.score_sequence(lexicon, [[1, 2, 4, 1, 2, 3], [1, 4, 1, 2, -1, -1]]))
      [  0. -inf]
    """

    words: Sequence[Sequence[int] | Sequence[Sequence[int]]]
    classes: int
    separator: int | None = None
    word_begins: Collection[int] | None = None
    blank_id: int = 0
    names: Sequence[str] | None = None
    vocabulary: Sequence[str] | None = None

    def __post_init__(self):
        language_checks.several("words", self.words, "words")
        checks.positive("classes", self.classes)
        checks.at_least("blank_id", self.blank_id, 0)
        if self.separator is not None:
            language_checks.no_blank("separator", [self.separator], self.blank_id)
            checks.class_id("separator", self.separator, self.classes)
        if self.word_begins is not None:
            begins = self._begins
            if not begins or self.separator in begins or self.blank_id in begins:
                raise ValueError(
                    f"word_begins is {sorted(begins)}; it must have labels, but not the separator "
                    f"or the blank, class {self.blank_id}."
                )
        _ = self._entries  # checks each word
        if self.names is not None:
            language_checks.texts("names", self.names, len(self.words), "word")
        if self.vocabulary is not None:
            language_checks.texts("vocabulary", self.vocabulary, self.classes, "class")

    def scorer(
        self,
        *,
        language_model: Scorer | None = None,
        weight: checks.ArrayLike = 1.0,
        word_score: checks.ArrayLike = 0.0,
        lookahead: bool = True,
        unknown: tuple[checks.ArrayLike, checks.ArrayLike] | None = None,
    ) -> LexiconScorer:
        """The lexicon as a `Scorer`: a trie, and the model's state at its words.

        The score of a sequence is, for each word, ``weight`` times the model's score plus
        ``word_score``, and ``weight`` times the model's score of the end. Of words spelled alike
        the one that scores best after the words before is taken.

        Args:
          language_model: A `Scorer` whose label i is the word ``words[i]``, such as that of an
            `NGram` with these words as vocabulary.
          weight: The factor of the model's scores; this and the other numbers may be traced, and
            so may the model.
          word_score: Added for each word.
          lookahead: Whether the best score that a word below a node of the trie has on its own
            is given in advance, and taken back at the end of the word. Scores of whole
            sequences are the same; a narrow beam finds better ones.
          unknown: If given, words that are not in the list are allowed, of the labels that its
            words have. Two numbers, added for such a word and for each of its labels, instead of
            the model's score. The model goes on as it does after such a word: an n-gram after
            ``<unk>``; hotwords of words begin anew, and what was given in advance is taken back; a
            grammar of words forbids it; another scorer as its `extend_unknown` says, or from its
            start.

        Raises:
          TypeError: If an argument is of the wrong kind.
          ValueError: If a word is empty or has a label that it cannot have, or the model has
            another number of words, or none.

        Examples:
          >>> import jaxctc
          >>> listed = {("at",): (-0.5, 0.0), ("a",): (-0.25, 0.0)}
          >>> model = jaxctc.NGram(listed, vocabulary=["a", "at"]).scorer()
          >>> lexicon = jaxctc.Lexicon([[1], [1, 2]], classes=4, separator=3)
          >>> scorer = lexicon.scorer(language_model=model, word_score=0.5)
          >>> print(f"{jaxctc.score_sequence(scorer, [1, 2, 3, 1]):.4f}")  # 1 - 0.75 ln 10
          -0.7269
        """
        words = len(self.words)
        spellings, _ = self._entries
        if language_model is not None:
            if not words:
                raise ValueError("words has length 0; with a language_model it must have a word.")
            language_checks.scorer("language_model", language_model, words)
            language_checks.methods("language_model", language_model, words, unknown is not None)
        lookahead = checks.flag("lookahead", lookahead)
        numbers = [checks.finite("weight", weight), checks.finite("word_score", word_score)]
        if unknown is not None:
            if not isinstance(unknown, (tuple, list)) or len(unknown) != 2:
                raise TypeError(
                    f"unknown is {unknown!r}; it must be two numbers, for a word and a letter."
                )
            unknown = checks.finite("unknown", unknown[0]), checks.finite("unknown", unknown[1])
        found = self._trie
        scores = np.zeros(words, np.float32)
        if language_model is not None and lookahead:
            scores = _unigrams(language_model, words)
        best = trie.best_below(found, scores[found.entry])
        letter = np.zeros(self.classes, bool)
        letter[np.unique(np.concatenate([np.zeros(0, int), *map(np.unique, spellings)]))] = True
        begins = None
        if self.word_begins is not None:
            begins = np.zeros(self.classes, bool)
            begins[list(self.word_begins)] = True
        together = np.bincount(found.node, minlength=1)
        return LexiconScorer(
            bits=found.bits,
            child=found.child,
            depth=found.depth,
            spelled=found.word,
            next_spelled=found.next_word,
            entry=found.entry,
            best=(jnp if isinstance(best, jax.Array) else np).where(best > -np.inf, best, 0),
            letter=letter,
            begins=begins,
            separator=np.int32(-1 if self.separator is None else self.separator),
            model=language_model,
            weight=_number(numbers[0]),
            word_score=_number(numbers[1]),
            unknown=None if unknown is None else _number(unknown),
            lookahead=lookahead,
            many=self.separator is not None or self.word_begins is not None,
            homographs=int(together.max(initial=1)),
        )

    def name(self, labels: Sequence[int]) -> str:
        """The text of the word with these labels: its name, the first of several, or its spelling.

        Without a `vocabulary` to spell with, a word that is not in the list is "<unk>".

        Raises:
          ValueError: If the lexicon has neither names nor a vocabulary.

        Examples:
          >>> import jaxctc
          >>> lexicon = jaxctc.Lexicon([[1], [1, 2]], 3, names=["eye", "it"], vocabulary="_it")
          >>> lexicon.name([1]), lexicon.name([2, 1])
          ('eye', 'ti')
        """
        if self.names is None and self.vocabulary is None:
            raise ValueError("names is None and vocabulary too; a lexicon with text must have one.")
        known = self._named.get(tuple(labels))
        if known is not None or self.vocabulary is None:
            return "<unk>" if known is None else known
        text = "".join(self.vocabulary[label] for label in labels)
        return text.removeprefix("▁") if self.word_begins is not None else text

    @functools.cached_property
    def _named(self) -> dict[tuple[int, ...], str]:
        names = self.names
        if names is None:
            return {}
        both = [*zip(*self._entries, strict=True)]
        return {labels: names[word] for labels, word in reversed(both)}

    @functools.cached_property
    def _entries(self) -> tuple[list[tuple[int, ...]], list[int]]:
        """All spellings, and the word of each."""
        spellings, words = [], []
        for index, word in enumerate(self.words):
            first = next(iter(word), None) if isinstance(word, Collection) else None
            several = isinstance(first, (tuple, list, np.ndarray))
            for labels in word if several else [word]:
                language_checks.ordered("words", labels)
                spellings.append(self._checked(tuple(labels)))  # pyright: ignore
                words.append(index)
        return spellings, words

    @functools.cached_property
    def _trie(self) -> trie.Trie:
        return trie.build(*self._entries, self.classes)

    @functools.cached_property
    def _begins(self) -> frozenset[int]:
        return language_checks.begins("word_begins", self.word_begins, self.classes)

    def _checked(self, labels: tuple) -> tuple[int, ...]:
        for label in labels:
            if not isinstance(label, int) or not 0 <= label < self.classes:
                checks.class_id("label", label, self.classes)
        if self.blank_id in labels:
            language_checks.no_blank("words", labels, self.blank_id)
        labels = tuple(map(operator.index, labels))
        if not labels or self.separator in labels:
            raise ValueError(
                f"words has {list(labels)}; a word must not be empty or contain the separator."
            )
        begins = self._begins
        if begins and (labels[0] not in begins or not begins.isdisjoint(labels[1:])):
            raise ValueError(
                f"words has {list(labels)}; a word must begin with a label of word_begins, and "
                "have no other."
            )
        return labels


def _number(value) -> np.ndarray | jax.Array:
    known = checks.concrete(value)
    if known is None:
        return jnp.asarray(value, jnp.float32)
    return known.astype(np.float32)


def _unigrams(model: Scorer, words: int) -> np.ndarray | jax.Array:
    """The scores of words on their own: on the host if known, also within a caller's `jit`."""
    may_close_over_traced = language_checks.holds_functions(jax.tree.structure(model))
    if language_checks.is_traced(model) or may_close_over_traced:
        scores = unigram_scores(model, words)
    else:
        with jax.ensure_compile_time_eval():
            scores = unigram_scores(model, words)
    known = checks.concrete(scores)
    if known is not None:
        return known.astype(np.float32)
    # What is given in advance is taken back, so that scores do not change with it.
    return lax.stop_gradient(jnp.asarray(scores, jnp.float32))
