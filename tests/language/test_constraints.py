"""Grammars, lexicons and hotwords against enumeration and published results."""

import json
import math
from typing import NamedTuple

import numpy as np
import pytest
from oracles import scores_of, sequences
from published import DATA

import jaxctc


def test_grammar_allows_what_its_templates_allow():
    letters, digits = {1, 2, 3}, {3, 4}
    templates = [[letters, digits], [digits, letters, digits], [letters]]
    scorer = jaxctc.Grammar(templates, classes=5).scorer()
    every = [*sequences(range(5), 4)]
    for labels, score in zip(every, scores_of(scorer, every), strict=True):
        allowed = any(
            len(t) == len(labels) and all(c in s for c, s in zip(labels, t, strict=True))
            for t in templates
        )
        assert score == (0 if allowed else -math.inf)


def test_lexicon_allows_words_with_separators_between():
    words = [(1,), (1, 2), (2, 1, 2)]
    one = jaxctc.Lexicon(words, classes=4).scorer()
    many = jaxctc.Lexicon(words, classes=4, separator=3).scorer()
    every = [*sequences(range(4), 6)]
    for labels, single, several in zip(
        every, scores_of(one, every), scores_of(many, every), strict=True
    ):
        text = "".join(map(str, labels))
        assert single == (0 if labels in words else -math.inf)
        known = all(w in ("1", "12", "212") for w in text.split("3")) or not labels
        assert several == (0 if known else -math.inf)
    with pytest.raises(ValueError, match="must not be empty or contain the separator"):
        jaxctc.Lexicon([[1], [1, 3]], classes=4, separator=3).scorer()
    with pytest.raises(ValueError, match="label is 4; it must be a class"):
        jaxctc.Lexicon([[4]], classes=4).scorer()


def test_lexicon_with_a_model_of_words(model):
    spelling = {"a": (1,), "c": (1, 2), "zzz": (2, 2)}
    words = jaxctc.NGram.from_arpa(DATA / "small.arpa", list(spelling))
    scorer = jaxctc.Lexicon(list(spelling.values()), 4, 3).scorer(language_model=words.scorer())
    every = [*sequences(spelling, 3)]
    labels = [[c for w in sentence for c in (*spelling[w], 3)][:-1] for sentence in every]
    want = [model.log10_probability(sentence) * math.log(10) for sentence in every]
    np.testing.assert_allclose(scores_of(scorer, labels), want, atol=2e-4, rtol=1e-6)


def test_hotwords_give_their_boosts_wherever_they_occur():
    words = {(1, 2): 3.0, (2, 1, 2): 1.5, (1,): 0.25, (2, 2, 3): -1.0}
    every = [*sequences(range(1, 4), 6)]
    scores = scores_of(jaxctc.Hotwords(words, classes=4).scorer(), every)
    for labels, score in zip(every, scores, strict=True):
        want = sum(
            boost
            for word, boost in words.items()
            for i in range(len(labels))
            if labels[i : i + len(word)] == word
        )
        assert score == pytest.approx(want, abs=1e-5)


A_WORD = {("a",): (-1.0, 0.0)}


class _WithModel(NamedTuple):
    """A lexicon of one word, with a model of two, or with none."""

    model: object

    def scorer(self):
        return jaxctc.Lexicon([[1]], 4).scorer(language_model=self.model)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jaxctc.Grammar([{1, 2}, {3}], 4), TypeError, "templates has {1, 2}; a template"),
        (
            lambda: jaxctc.Grammar([[1, 2], [3]], 4),
            TypeError,
            r"templates has \[1, 2\]; a template",
        ),
        (lambda: jaxctc.Grammar([[{9}]], 4), ValueError, "label is 9; it must be a class"),
        (lambda: jaxctc.Grammar([["ab"]], 4), TypeError, "label has type str; it must be an int"),
        (lambda: jaxctc.Grammar([], 0), ValueError, "classes is 0; it must be at least 1"),
        (lambda: jaxctc.Lexicon([1, 2], 4), TypeError, "words has 1; a word must be a sequence"),
        (
            lambda: _WithModel(jaxctc.NGram(A_WORD, ["a"])),
            TypeError,
            "language_model has type NGram; it must be a Scorer",
        ),
        (
            lambda: _WithModel(jaxctc.NGram(A_WORD, ["<blank>", "a"]).scorer()),
            ValueError,
            "language_model reads 2 classes; it must read 1",
        ),
        (
            lambda: jaxctc.Hotwords([(1, 2)], 4),
            TypeError,
            "words has type list; it must be a mapping",
        ),
        (lambda: jaxctc.Hotwords({1: 2.0}, 4), TypeError, "words has 1; a word must be a sequence"),
        (lambda: jaxctc.Hotwords({(): 2.0}, 4), ValueError, r"words has \[\] with the boost 2.0;"),
        (lambda: jaxctc.Hotwords({(1,): math.inf}, 4), ValueError, "words has .* the boost inf;"),
        (lambda: jaxctc.Hotwords({(4,): 1.0}, 4), ValueError, "label is 4; it must be a class"),
        (
            lambda: jaxctc.Grammar([[{1}, {2, 0}]], 4),
            ValueError,
            r"templates has \[0, 2\]; it must not contain the blank, class 0 as `blank_id` says\.$",
        ),
        (
            lambda: jaxctc.Lexicon([[1], [1, 0, 2]], 4),
            ValueError,
            r"words has \[1, 0, 2\]; it must not contain the blank, class 0 as `blank_id` says\.$",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, 3, blank_id=3),
            ValueError,
            r"separator has \[3\]; it must not contain the blank, class 3 as `blank_id` says\.$",
        ),
        (
            lambda: jaxctc.Hotwords({(1, 3): 1.0}, 4, blank_id=3),
            ValueError,
            r"words has \[1, 3\]; it must not contain the blank, class 3 as `blank_id` says\.$",
        ),
        (
            lambda: jaxctc.Hotwords({(1, 2): 1.0}, 4, separator=0),
            ValueError,
            r"separator has \[0\]; it must not contain the blank, class 0 as `blank_id` says\.$",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, word_begins={0, 1}),
            ValueError,
            r"word_begins is \[0, 1\]; it must have labels, but not the separator or the blank, cl",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, 3, word_begins={1, 3}),
            ValueError,
            r"word_begins is \[1, 3\]; it must have labels, but not the separator or",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, word_begins=()),
            ValueError,
            r"word_begins is \[\]; it m",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, word_begins=1),
            TypeError,
            "word_begins has type int; it must be a set of labels",
        ),
        (
            lambda: jaxctc.Lexicon(None, 4),
            TypeError,
            "words has type NoneType; it must be a sequen",
        ),
        (
            lambda: jaxctc.Lexicon([{2, 1}], 4),
            TypeError,
            r"words has \{1, 2\}; a word must be a sequence of labels\.$",
        ),
        (
            lambda: jaxctc.Hotwords({frozenset({2}): 1.0}, 4),
            TypeError,
            r"words has frozenset\(\{2\}\); a word must be a sequence of labels\.$",
        ),
        (lambda: jaxctc.Grammar(3, 4), TypeError, "templates has type int; it must be a sequence"),
        (
            lambda: jaxctc.Hotwords({(1,): "2"}, 4),
            TypeError,
            r"the boost of \[1\] has type str; it must be a number",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, names=["a", "b"]),
            ValueError,
            "names has length 2; it must have the text of each word, 1",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, vocabulary=["", "a"]),
            ValueError,
            "vocabulary has length 2; it must have the text of each class, 4",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 2, vocabulary=["", 3]),
            TypeError,
            "vocabulary has 3; it must have texts",
        ),
        (
            lambda: jaxctc.Lexicon([[1]], 4, blank_id=-1),
            ValueError,
            r"blank_id is -1; it must be at least 0\.$",
        ),
    ],
)
def test_errors_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make().scorer()


def test_published_bigram_of_words():
    # kensho-technologies/pyctcdecode test_decoder.py test_decode_beams_batch: alpha 0.5, beta 1.5
    case = json.loads((DATA / "decode.json").read_text())["pyctcdecode_bigram_lm"]
    listed = {("<unk>",): -10, ("<s>",): 0, ("</s>",): 0, ("bugs",): 0, ("bunny",): 0}
    listed |= {("bunny", "</s>"): 0, ("bugs", "</s>"): -10, ("<s>", "bugs"): 0}
    listed |= {("<s>", "bunny"): -10, ("bugs", "bunny"): 0}
    model = jaxctc.NGram({k: (float(v), 0.0) for k, v in listed.items()}, ["bugs", "bunny"])
    one_each = jaxctc.Automaton(np.zeros((1, 2), np.int32), np.ones((1, 2)), np.zeros(1))
    symbols = case["vocabulary"]
    spelling = [[symbols.index(c) for c in word] for word in model.vocabulary]

    def read(*parts, weight=1.0):
        return jaxctc.ctc_beam_search(
            np.array(case["values"], np.float32),
            beam_width=100,
            blank_id=7,
            scorer=jaxctc.combine(parts),
            scorer_weight=weight,
        )

    def text(found):
        return "".join(symbols[c] for c in found.labels[0, : found.lengths[0]].tolist())

    lexicon = jaxctc.Lexicon(spelling, 8, 0, blank_id=7)
    both = jaxctc.combine([model.scorer(), one_each], weights=[0.5, 1.5])
    found = read(lexicon.scorer(language_model=both))
    same = read(lexicon.scorer(language_model=model.scorer(), weight=0.5, word_score=1.5))
    assert text(same) == text(found)
    np.testing.assert_allclose(same.scorer_scores[0], found.scorer_scores[0], rtol=1e-5)
    want = case["expected"]
    assert text(found) == want["decoded_text"]
    np.testing.assert_allclose(found.scores[0], want["logit_score"], atol=1e-5)
    total = found.scores[0] + found.scorer_scores[0]
    np.testing.assert_allclose(total, want["lm_score"], atol=1e-5)

    # test_decoder and test_hotwords of the same file; hotwords are whole words there
    words = lexicon.scorer()
    assert text(read(words)) == "bunny bunny"
    hot = jaxctc.Hotwords({tuple(spelling[0]): 10.0}, classes=8, blank_id=7).scorer()
    assert text(read(words, hot)) == "bugs bunny"


def test_weights_of_other_decoders():
    """As docs/coming-from/decoders.md has them, against pyctcdecode 0.5 and flashlight 0.0.7."""
    listed = {("<unk>",): (-1, 0), ("<s>",): (-99, 0), ("</s>",): (-0.7, 0)}
    listed |= {("a",): (-0.4, 0), ("b",): (-0.9, 0), ("a", "b"): (-0.2, 0)}
    model = jaxctc.NGram(listed, ["a", "b"])
    strange = model.log10_probability(["<unk>"], start=False, end=False)
    lexicon = jaxctc.Lexicon([[2, 2], [3]], 4, separator=1)
    labels = np.array([[2, 2, 1, 3], [2, 3, -1, -1]])  # "a b", and an unknown word
    ln_10 = math.log(10)
    for weight, unknown, want in [
        (2.0, 2.0 * (strange - 10.0) * ln_10, [-4.986721228, -53.380491121]),
        (2.0 / ln_10, -3.0 + 2.0 * strange - 0.5, [-1.6, -6.4]),
    ]:
        scorer = lexicon.scorer(
            language_model=model.scorer(), weight=weight, word_score=0.5, unknown=(unknown, 0)
        )
        np.testing.assert_allclose(jaxctc.score_sequence(scorer, labels), want, rtol=1e-6)


def test_a_word_with_the_blank_of_the_search_is_refused():
    logits = np.zeros((6, 4), np.float32)
    other = jaxctc.Lexicon([[1, 3, 2]], classes=4).scorer()  # made for the blank 0
    state = jaxctc.ctc_beam_start(beam_width=2, max_labels=4)
    sentence = r"^scorer has words with the blank, class 3; it must not\.$"
    with pytest.raises(ValueError, match=sentence):
        jaxctc.ctc_beam_search(logits, blank_id=3, scorer=other)
    with pytest.raises(ValueError, match=sentence):
        jaxctc.ctc_beam_extend(state, logits, blank_id=3, scorer=other)
    separated = jaxctc.Lexicon([[1, 2]], classes=4, separator=3).scorer()
    both = jaxctc.combine([separated, jaxctc.Hotwords({(1, 2): 1.0}, 4).scorer()])
    clash = r"scorer\.scorers\[0\] has the separator 3; it must not be the blank, class 3\.$"
    with pytest.raises(ValueError, match=clash):
        jaxctc.ctc_beam_search(logits, blank_id=3, scorer=both)
    tables = jaxctc.tabulate(other)
    sentence = r"^scorer reads no sequence without the blank, class 3; it must read some\.$"
    with pytest.raises(ValueError, match=sentence):
        jaxctc.ctc_beam_search(logits, blank_id=3, scorer=tables)
    readable = jaxctc.tabulate(jaxctc.Lexicon([[1, 3, 2], [2, 1]], classes=4).scorer())
    best = jaxctc.ctc_beam_search(logits, blank_id=3, scorer=readable, beam_width=8)
    assert best.labels[0, :2].tolist() == [2, 1]
    # Constraints that contradict each other are no such mistake.
    one, other = (jaxctc.Grammar([[{label}]], classes=4).scorer() for label in (1, 2))
    nothing = jaxctc.ctc_beam_search(logits, scorer=jaxctc.combine([one, other]), beam_width=2)
    assert not nothing.complete.any()
