"""Words of decoded label sequences, with times and confidences."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxctc.core import checks
from jaxctc.ctc import checks as ctc_checks
from jaxctc.ctc.align import forced_align
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language import checks as language_checks
from jaxctc.language.lexicon import Lexicon

CONFIDENCES = {"mean": np.mean, "minimum": np.min, "product": np.prod}


class Word(NamedTuple):
    """A word of a hypothesis.

    Attributes:
      text: What its labels spell, or its name in a lexicon.
      first: Its first frame.
      last: Its last frame, which belongs to it.
      start: Where its first frame begins, in seconds; None without `frame_seconds`.
      end: Where its last frame ends, in seconds; None without `frame_seconds`.
      confidence: A probability.
    """

    text: str
    first: int
    last: int
    start: float | None
    end: float | None
    confidence: float


def words(
    hypotheses: Hypotheses | checks.ArrayLike,
    vocabulary: Sequence[str] | Lexicon,
    *,
    separator: int | None = None,
    word_begins: Collection[int] | None = None,
    logits: checks.ArrayLike | None = None,
    logit_lengths: checks.ArrayLike | None = None,
    blank_id: int = 0,
    frame_seconds: float | None = None,
    confidence: str = "mean",
) -> list[Any]:
    """The words of hypotheses, with the frames where they are and how sure they are. On the host.

    Args:
      hypotheses: What a decoder of CTC or of a transducer returned, with any axes. Or the labels of
        transcripts, integer ``[*batch, S]``, padded with negative ones, which are aligned with
        `logits`.
      vocabulary: The text of each class; a word's is that of its labels, one after another. Or a
        `Lexicon` with `names` or a `vocabulary`, whose words, separator and labels that begin words
        are meant. Of words spelled alike the text is that of the first, since hypotheses are labels
        and do not say which of them a model of words chose. A word that is not in the list is
        spelled with the lexicon's vocabulary; without one it is "<unk>".
      separator: The label between words.
      word_begins: Labels that begin words, such as tokens with "▁", which is left out of the text.
        With neither, each hypothesis is one word.
      logits: The logits that were decoded, float ``[*batch, T, C]``, of CTC only. With them, words
        are those of the best alignment; without, of the best one that the search found.
      logit_lengths: integer ``[*batch]``, as for the decoder.
      blank_id: The class that is the blank.
      frame_seconds: The length of a frame, above 0.
      confidence: How the probabilities of a word's labels become the word's: "mean", "minimum" or
        "product". A label's is ``exp(hypotheses.label_scores)``; with `logits`, the geometric mean
        over its frames.

    Returns:
      For each hypothesis a list of `Word`, in lists as the axes of ``hypotheses.lengths`` are.

    Raises:
      TypeError: If an argument is of another type.
      ValueError: If shapes or numbers of classes do not fit, an argument is out of range, a
        lexicon has no text, or a transcript can't be aligned.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> logits = 5.0 * jnp.eye(4)[jnp.array([1, 1, 0, 3, 2, 2])]
      >>> best = jaxctc.ctc_greedy_decode(logits)
      >>> for word in jaxctc.words(
      ...     best, ["", "a", "b", " "], separator=3, logits=logits, frame_seconds=0.02
      ... ):
      ...     print(word.text, word.first, word.last, round(word.end, 2), round(word.confidence, 3))
      a 0 1 0.04 0.98
      b 4 5 0.12 0.98
    """
    transcripts = not isinstance(hypotheses, Hypotheses)
    if transcripts:
        labels = ctc_checks.transcripts("hypotheses", hypotheses, logits)
        lengths = np.asarray(checks.lengths_of_labels("", None, labels))
        labels = np.asarray(labels)
        first = last = np.full(labels.shape, -1)
        sure = np.zeros(labels.shape)
    else:
        ctc_checks.hypotheses("hypotheses", hypotheses)
        labels, lengths = np.asarray(hypotheses.labels), np.asarray(hypotheses.lengths)
        first = np.asarray(hypotheses.frames)
        last = first + np.maximum(np.asarray(hypotheses.durations), 1) - 1
        sure = np.exp(np.asarray(hypotheses.label_scores, np.float64))
    confidence = checks.one_of("confidence", confidence, tuple(CONFIDENCES))
    if (
        frame_seconds is not None
        and not 0 < checks.static_real("frame_seconds", frame_seconds) < np.inf
    ):
        raise ValueError(f"frame_seconds is {frame_seconds}; it must be finite and above 0.")
    texts = _texts(vocabulary, separator, word_begins)
    if labels.size and labels.max() >= texts.classes:
        raise ValueError(
            f"vocabulary has length {texts.classes}; it must be above label {labels.max()}."
        )
    if logits is not None:
        logits, frames = checks.logits_with_lengths(logits, logit_lengths)
        if logits.shape[-1] != texts.classes:
            raise ValueError(
                f"vocabulary has length {texts.classes}; it must be that of a frame of logits, "
                f"{logits.shape[-1]}."
            )
        if first.size and first.max() >= logits.shape[-2]:
            raise ValueError(
                f"logits has {logits.shape[-2]} frames; it must have all of hypotheses, up to "
                f"{first.max()}."
            )
        if lengths.shape[: frames.ndim] != frames.shape or lengths.ndim > frames.ndim + 1:
            raise ValueError(
                f"logits has batch shape {frames.shape}; it must be that of hypotheses, "
                f"{lengths.shape}."
            )
        if lengths.ndim > frames.ndim:
            logits, frames = logits[..., None, :, :], frames[..., None]
        found = forced_align(logits, labels, frames, lengths, blank_id=blank_id)
        aligned = np.asarray(found.starts) >= 0
        if transcripts and not np.all(np.isfinite(found.score)):
            raise ValueError(
                "hypotheses has labels that can't be aligned with logits; `jaxctc.explain` says "
                "why."
            )
        first = np.where(aligned, found.starts, first)
        last = np.where(aligned, np.asarray(found.ends) - 1, last)
        sure = np.exp(np.asarray(found.label_scores, np.float64))

    def one(place) -> list[Word]:
        row = labels[place][: lengths[place]].tolist()
        result = []
        for begin, end in _split(row, texts.separator, texts.begins):
            text = texts.spell(row[begin:end])
            where = int(first[place][begin]), int(last[place][end - 1])
            start = end_time = None
            if frame_seconds is not None:
                start, end_time = where[0] * frame_seconds, (where[1] + 1) * frame_seconds
            value = float(CONFIDENCES[confidence](sure[place][begin:end]))
            result.append(Word(text, where[0], where[1], start, end_time, value))
        return result

    def nested(place) -> list[Any]:
        if len(place) == lengths.ndim:
            return one(place)
        return [nested((*place, i)) for i in range(lengths.shape[len(place)])]

    return nested(())


class _Texts(NamedTuple):
    """How labels become words."""

    classes: int
    separator: int | None
    begins: frozenset[int]
    spell: Callable[[list[int]], str]


def _texts(vocabulary: Any, separator: Any, word_begins: Any) -> _Texts:
    """The checked arguments that say how labels become words."""
    if isinstance(vocabulary, Lexicon):
        own = {"separator": vocabulary.separator, "word_begins": vocabulary.word_begins}
        for name, value in (("separator", separator), ("word_begins", word_begins)):
            if value is not None and value != own[name]:
                raise ValueError(f"{name} is {value}; with a Lexicon it must be its, {own[name]}.")
        begins = frozenset(vocabulary.word_begins or ())
        return _Texts(vocabulary.classes, vocabulary.separator, begins, vocabulary.name)
    language_checks.texts("vocabulary", vocabulary, None, "class")
    classes = len(vocabulary)
    if separator is not None:
        separator = checks.class_id("separator", separator, classes)
    begins = language_checks.begins("word_begins", word_begins, classes)

    def spell(word: list[int]) -> str:
        text = "".join(vocabulary[label] for label in word)
        return text.removeprefix("▁") if word_begins is not None else text

    return _Texts(classes, separator, begins, spell)


def _split(labels: list[int], separator: int | None, begins: frozenset[int]):
    """The ranges of the words in a sequence of labels."""
    begin = 0
    for i, label in enumerate([*labels, None]):
        ends = label is None or label == separator or (label in begins and i > begin)
        if ends:
            if i > begin:
                yield begin, i
            begin = i if label in begins else i + 1
