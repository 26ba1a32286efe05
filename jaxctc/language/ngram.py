"""Back-off n-gram language models, read from ARPA files, as automata.

The probability of a word w after a history h is that of the longest known n-gram (Katz 1987)::

    p(w | h) = p(h w)                     if the n-gram h w is listed
             = backoff(h) · p(w | h')     otherwise, h' being h without its first word

where the back-off of a history that is not listed is 1.
"""

import gzip
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxctc.language.tables import Automaton

LN_10 = float(np.log(10.0))
START, END, UNKNOWN = "<s>", "</s>", "<unk>"

NGrams = Mapping[tuple[str, ...], tuple[float, float]]


class NGram:
    """A back-off n-gram model whose words are the labels of a decoder.

    Words of the vocabulary that are not in the model count as ``<unk>``; if it has no ``<unk>``,
    their log10 probability is `unknown_log10`. Sequences start with ``<s>`` and end with ``</s>``,
    if the model has them.

    Args:
      ngrams: For each n-gram, a tuple of words, log10 of its probability and of its back-off.
      vocabulary: The word of each class, in the order of the classes. The blank needs a word
        too, which is never read.
      unknown_log10: For words not in the model, if it has no ``<unk>``; kenlm uses -100.

    Example:
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
        self.ngrams = {
            tuple(UNKNOWN if word == "<UNK>" else word for word in ngram): values
            for ngram, values in ngrams.items()
        }
        self.vocabulary = list(vocabulary)
        self.order = max(map(len, self.ngrams), default=1)
        self.ngrams.setdefault((UNKNOWN,), (unknown_log10, 0.0))
        for ngram in self.ngrams:
            if ngram[:-1] and ngram[:-1] not in self.ngrams:
                raise ValueError(f"ngrams has {ngram}; it must have {ngram[:-1]} too.")
        # Contexts, shortest first. All prefixes of a context are contexts too, so the context
        # after one more word depends only on the context and that word.
        contexts = {()} | {ngram for ngram in self.ngrams if len(ngram) < self.order}
        self._contexts = sorted(contexts, key=lambda context: (len(context), context))
        self._number = {context: i for i, context in enumerate(self._contexts)}

    @classmethod
    def from_arpa(
        cls,
        path: str | os.PathLike,
        vocabulary: Sequence[str],
        *,
        unknown_log10: float = -100.0,
    ) -> "NGram":
        """The model in an ARPA file, which may be compressed by gzip.

        Args:
          path: The file, UTF-8.
          vocabulary: The word of each class; see `NGram`.
          unknown_log10: See `NGram`.

        Raises:
          ValueError: If the file is not in ARPA format, its n-grams do not match the counts in its
            header, or a probability is above 1.
        """
        opener = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            return cls(_parse_arpa(lines, path), vocabulary, unknown_log10=unknown_log10)

    def log10_probability(self, words: Iterable[str], *, start: bool = True, end: bool = True):
        """log10 of the probability of a sentence, by default with its start and end."""
        context = self._start() if start else ()
        total = 0.0
        for word in words:
            total += self._log10(context, self._known(word))
            context = self._suffix((*context, self._known(word)))
        if end and (END,) in self.ngrams:
            total += self._log10(context, END)
        return total

    def automaton(self, *, start: bool = True, end: bool = True) -> Automaton:
        """The model as dense tables, contexts times classes, of natural logarithms.

        Args:
          start: Whether sequences begin after ``<s>``.
          end: Whether the probability of ``</s>`` is added at the end.

        Example:
          >>> import jaxctc
          >>> listed = {("a",): (-0.5, -0.25), ("b",): (-0.75, 0.0), ("a", "b"): (-0.125, 0.0)}
          >>> model = jaxctc.NGram(listed, vocabulary=["<blank>", "a", "b"])
          >>> round(model.automaton().score_sequence([1, 2]), 4)  # -0.625 ln 10
          -1.4391
        """
        words = [self._known(word) for word in self.vocabulary]
        classes_of: dict[str, list[int]] = {}
        for i, word in enumerate(words):
            classes_of.setdefault(word, []).append(i)
        listed: dict[tuple[str, ...], list] = {}
        for ngram, (log10, _) in self.ngrams.items():
            for i in classes_of.get(ngram[-1], ()):
                listed.setdefault(ngram[:-1], []).append((i, log10, self._number.get(ngram)))

        size = (len(self._contexts), len(words))
        score, transition = np.empty(size), np.empty(size, np.int32)
        final = np.zeros(size[0])
        for row, context in enumerate(self._contexts):
            # Words not listed after this context back off to a shorter one, whose row is above.
            shorter = self._number[self._suffix(context[1:])] if context else row
            if context:
                score[row] = score[shorter] + self._backoff(context)
                transition[row] = transition[shorter]
            else:
                score[row], transition[row] = -np.inf, row
            for i, log10, longer in listed.get(context, ()):
                score[row, i] = log10
                if longer is not None:
                    transition[row, i] = longer
            if end and (END,) in self.ngrams:
                final[row] = self._log10(context, END)
        first = self._number[self._start() if start else ()]
        swap = np.arange(size[0])
        swap[[0, first]] = first, 0
        return Automaton(
            swap[transition[swap]].astype(np.int32),
            (score[swap] * LN_10).astype(np.float32),
            (final[swap] * LN_10).astype(np.float32),
        )

    def _known(self, word: str) -> str:
        return word if (word,) in self.ngrams else UNKNOWN

    def _suffix(self, history: tuple[str, ...]) -> tuple[str, ...]:
        """The longest suffix of a history that is a context."""
        history = history[max(0, len(history) - self.order + 1) :]
        while history not in self._number:
            history = history[1:]
        return history

    def _start(self) -> tuple[str, ...]:
        return self._suffix((START,)) if (START,) in self.ngrams else ()

    def _backoff(self, context: tuple[str, ...]) -> float:
        return self.ngrams.get(context, (0.0, 0.0))[1]

    def _log10(self, context: tuple[str, ...], word: str) -> float:
        backoff = 0.0
        while (*context, word) not in self.ngrams:
            if not context:
                return -np.inf
            backoff += self._backoff(context)
            context = context[1:]
        return backoff + self.ngrams[(*context, word)][0]


def _parse_arpa(lines: Iterable[str], name) -> dict[tuple[str, ...], tuple[float, float]]:
    """The n-grams of an ARPA file, checked against the counts in its header."""
    counts: dict[int, int] = {}
    ngrams: dict[tuple[str, ...], tuple[float, float]] = {}
    order = None  # None before the header, 0 in the header, then the order of the section
    for number, line in enumerate(lines, 1):
        line = line.strip(" \t\r\n")
        try:
            if line == "\\data\\":
                order = 0
            elif not line or order is None:
                continue
            elif line == "\\end\\":
                break
            elif line.startswith("\\") and line.endswith("-grams:"):
                order = int(line[1:-7])
            elif order == 0:
                n, _, count = line.removeprefix("ngram ").partition("=")
                counts[int(n)] = int(count)
            else:
                # Only these separate words: another space, such as that of Chinese, may be a word.
                log10, *words = re.split(r"[ \t]+", line)
                backoff = float(words.pop()) if len(words) == order + 1 else 0.0
                if len(words) != order or not float(log10) <= 0 or np.isnan(backoff):
                    raise ValueError
                ngrams[tuple(words)] = (float(log10), backoff)
        except ValueError:
            raise ValueError(
                f"{name}, line {number}: {line!r} is not a line of an ARPA file."
            ) from None
    else:
        raise ValueError(f"{name} has no \\data\\ to \\end\\; it must be a whole ARPA file.")
    counts = {n: count for n, count in counts.items() if count}
    found = dict(Counter(map(len, ngrams)))
    if found != counts:
        raise ValueError(f"{name} has {found} different n-grams; its header says {counts}.")
    return ngrams
