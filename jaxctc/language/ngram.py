"""Back-off n-gram models from ARPA files, for vocabularies of any size."""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxctc.core import checks
from jaxctc.language import arpa, mapped, ngram_tables
from jaxctc.language import checks as language_checks
from jaxctc.language.arpa import END, START, UNKNOWN, Section
from jaxctc.language.ngram_scorer import NGramScorer
from jaxctc.language.ngram_tables import Tables
from jaxctc.language.tables import Automaton, build

LN_10 = float(np.log(10.0))

NGrams = Mapping[tuple[str, ...], tuple[float, float]]


class NGram:
    """A back-off n-gram model whose words are the labels of a decoder, or the words of a `Lexicon`.

    Words of the vocabulary that are not in the model count as ``<unk>``; if it has no ``<unk>``,
    their log10 probability is `unknown_log10`. Sequences start with ``<s>`` and end with ``</s>``,
    if the model has them. Only n-grams of words of the vocabulary are kept: other words of the
    model count as ``<unk>`` too.

    Args:
      ngrams: For each n-gram, a tuple of words, log10 of its probability and of its back-off.
      vocabulary: The word of each class, in the order of the classes. The blank needs a word
        too, which is never read.
      unknown_log10: For words not in the model, if it has no ``<unk>``; kenlm uses -100.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there are no n-grams, a probability is above 1, a back-off is not finite, or an
        n-gram's own context or last word is missing.

    Examples:
      >>> import jaxctc
      >>> listed = {("a",): (-0.5, -0.25), ("b",): (-0.75, 0.0), ("a", "b"): (-0.125, 0.0)}
      >>> model = jaxctc.NGram(listed, vocabulary=["<blank>", "a", "b"])
      >>> model.log10_probability(["a", "b"])  # -0.5 - 0.125
      -0.625
      >>> model.log10_probability(["a", "a"])  # -0.5 + (-0.25 - 0.5)
      -1.25

    References:
      Katz 1987, "Estimation of probabilities from sparse data for the language model component
      of a speech recognizer".
    """

    def __init__(self, ngrams: NGrams, vocabulary: Sequence[str], *, unknown_log10: float = -100.0):
        _check_words(vocabulary, unknown_log10)
        wanted = {*vocabulary, START, END, UNKNOWN}
        language_checks.ngrams("ngrams", ngrams)
        listed = {
            tuple(UNKNOWN if word == "<UNK>" else word for word in ngram): values
            for ngram, values in ngrams.items()
        }
        for ngram in listed:
            for part in (ngram[:-1], ngram[-1:]):
                if part and part not in listed:
                    raise ValueError(f"ngrams has {ngram}; it must have {part} too.")
        kept = {ngram: values for ngram, values in listed.items() if wanted.issuperset(ngram)}
        names = {ngram[0]: i for i, ngram in enumerate(x for x in kept if len(x) == 1)}
        sections = []
        for n in range(1, max(map(len, listed), default=1) + 1):
            rows = [ngram for ngram in kept if len(ngram) == n]
            numbers = [[names[word] for word in ngram] for ngram in rows]
            values = np.array([kept[ngram] for ngram in rows], np.float32).reshape(-1, 2)
            numbers = np.array(numbers, np.int32).reshape(-1, n)
            sections.append(Section(n, numbers, values[:, 0], values[:, 1]))
        self._set(vocabulary, names, sections, unknown_log10, "ngrams")

    def _set(self, vocabulary, names: dict[str, int], sections: list[Section], unknown_log10, name):
        self.vocabulary = list(vocabulary)
        self.order = max(section.order for section in sections)
        if UNKNOWN not in names:
            names = names | {UNKNOWN: len(names)}
            first = sections[0]
            row = np.array([[names[UNKNOWN]]], np.int32)
            log10 = np.append(first.log10, np.float32(unknown_log10))
            words = np.concatenate([first.words, row])
            sections[0] = Section(1, words, log10, np.append(first.backoff, np.float32(0)))
        self._names = names
        self._start, self._end = names.get(START, -1), names.get(END, -1)
        self._word = np.array([self._number(word) for word in self.vocabulary], np.int32)
        self.tables = ngram_tables.build(sections, self._start, self._end, self.order, name)

    @classmethod
    def from_arpa(
        cls,
        path: str | os.PathLike,
        vocabulary: Sequence[str],
        *,
        unknown_log10: float = -100.0,
    ) -> "NGram":
        """The model in an ARPA file, which may be compressed by gzip.

        KenLM (``lmplz``), SRILM (``ngram-count``) and IRSTLM write such files.

        Args:
          path: The file, UTF-8.
          vocabulary: The word of each class; see `NGram`.
          unknown_log10: See `NGram`.

        Raises:
          ValueError: If the file is not in ARPA format, is cut off or damaged, its n-grams do not
            match the counts in its header, or a probability is above 1.
        """
        _check_words(vocabulary, unknown_log10)
        names, sections = arpa.read(path, {*vocabulary, START, END, UNKNOWN})
        model = cls.__new__(cls)
        model._set(vocabulary, names, sections, unknown_log10, path)
        return model

    def save(self, path: str | os.PathLike) -> None:
        """Writes the built tables to an ``.npz`` file, which `load` opens at once.

        Args:
          path: The file; its name must end in ``.npz``.
        """
        if not str(path).endswith(".npz"):
            raise ValueError(f"path is {str(path)!r}; it must end in .npz.")
        names = sorted(self._names, key=self._names.__getitem__)
        np.savez(
            path,
            vocabulary=_bytes(self.vocabulary),
            names=_bytes(names),
            order=np.int32(self.order),
            **self.tables._asdict(),
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "NGram":
        """The model that `save` wrote. Its tables are mapped from the file, and read when used.

        Raises:
          ValueError: If `save` did not write the file.

        Examples:
          >>> import jaxctc, tempfile
          >>> model = jaxctc.NGram({("a",): (-0.5, 0.0)}, vocabulary=["<blank>", "a"])
          >>> with tempfile.TemporaryDirectory() as folder:
          ...     model.save(f"{folder}/model.npz")
          ...     again = jaxctc.NGram.load(f"{folder}/model.npz")
          >>> again.log10_probability(["a"])
          -0.5
        """
        arrays = mapped.load(path)
        language_checks.saved_tables(path, arrays, Tables._fields)
        model = cls.__new__(cls)
        model.vocabulary = _strings(arrays["vocabulary"])
        model.order = int(arrays["order"])
        model._names = {word: i for i, word in enumerate(_strings(arrays["names"]))}
        model._start, model._end = model._names.get(START, -1), model._names.get(END, -1)
        model._word = np.array([model._number(word) for word in model.vocabulary], np.int32)
        model.tables = Tables(*(arrays[field] for field in Tables._fields))
        ngram_tables.check(model.tables, len(model._names), str(path))
        return model

    def log10_probability(self, words: Iterable[str], *, start: bool = True, end: bool = True):
        """log10 of the probability of a sentence, by default with its start and end.

        Words that are not in the vocabulary count as ``<unk>``.
        """
        context, total = self._first(start), 0.0
        for word in words:
            score, context = ngram_tables.lookup(self.tables, context, self._number(word))
            total += score
        if end and self._end >= 0:
            total += ngram_tables.lookup(self.tables, context, self._end)[0]
        return total

    def scorer(self, *, start: bool = True, end: bool = True) -> NGramScorer:
        """The model as a `Scorer` of natural logarithms.

        Its arrays take at most 20 bytes for each n-gram. If they are used more than once on an
        accelerator, put them there with `jax.device_put`.

        Args:
          start: Whether sequences begin after ``<s>``.
          end: Whether the probability of ``</s>`` is added at the end.

        Examples:
          >>> import jaxctc
          >>> listed = {("a",): (-0.5, -0.25), ("b",): (-0.75, 0.0), ("a", "b"): (-0.125, 0.0)}
          >>> model = jaxctc.NGram(listed, vocabulary=["<blank>", "a", "b"])
          >>> print(f"{jaxctc.score_sequence(model.scorer(), [1, 2]):.4f}")  # -0.625 ln 10
          -1.4391
        """
        start, end = checks.flag("start", start), checks.flag("end", end)
        ln_10 = np.float32(LN_10)
        return NGramScorer(
            label_word=self._word,
            unigram=self.tables.unigram * ln_10,
            offset=np.asarray(self.tables.offset),
            word=np.asarray(self.tables.word),
            log_prob=self.tables.log10 * ln_10,
            link=np.asarray(self.tables.link),
            backoff=self.tables.backoff * ln_10,
            first=np.int32(self._first(start)),
            end=np.int32(self._end if end else -1),
            unknown=np.int32(self._names[UNKNOWN]),
            order=self.order,
        )

    def _number(self, word: str) -> int:
        return self._names.get(word, self._names[UNKNOWN])

    def _first(self, start: bool) -> int:
        return 1 + self._start if start and self._start >= 0 and self.order > 1 else 0


def _check_words(vocabulary: Sequence[str], unknown_log10) -> None:
    language_checks.texts("vocabulary", vocabulary, None, "class")
    if isinstance(vocabulary, str):  # its letters would be the words
        raise TypeError("vocabulary has type str; it must be a sequence of words.")
    if any("\0" in word for word in vocabulary):  # a saved file has it between words
        raise ValueError(r"vocabulary has a word with '\0'; a word must not contain it.")
    if not checks.static_real("unknown_log10", unknown_log10) <= 0:
        raise ValueError(f"unknown_log10 is {unknown_log10}; it must be at most 0.")


def dense(model: NGram) -> Automaton:
    """The model as dense tables, computed on the host alone; for small ones."""

    def expand(context):
        arcs = []
        for label, word in enumerate(model._word):
            log10, after = ngram_tables.lookup(model.tables, context, int(word))
            arcs.append((label, after, log10 * LN_10))
        end = model._end
        final = ngram_tables.lookup(model.tables, context, end)[0] * LN_10 if end >= 0 else 0.0
        return arcs, final

    return build(model._first(True), expand, len(model.vocabulary))


def _bytes(words: Sequence[str]) -> np.ndarray:
    """Words as one array of bytes, which takes as many as they have."""
    return np.frombuffer("".join(f"{word}\0" for word in words).encode(), np.uint8)


def _strings(array: np.ndarray) -> list[str]:
    return array.tobytes().decode().removesuffix("\0").split("\0") if array.size else []
