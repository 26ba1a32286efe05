"""Language models against kenlm, constraints and combinations by enumeration."""

import gzip
import itertools
import json
import math

import jax
import numpy as np
import pytest
from published import DATA

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")

VOCABULARY = ["<blank>", "a", "b", "c", "d", "zzz"]  # the last is unknown to the model


@pytest.fixture(scope="module")
def model():
    return jaxctc.NGram.from_arpa(DATA / "small.arpa", VOCABULARY)


@pytest.fixture(scope="module")
def kenlm_cases():
    return json.loads((DATA / "small_arpa_scores.json").read_text())["cases"]


def sequences(classes, most):
    """All sequences of up to so many of the classes."""
    return itertools.chain.from_iterable(
        itertools.product(classes, repeat=n) for n in range(most + 1)
    )


def test_probabilities_equal_kenlm(model, kenlm_cases):
    for case in kenlm_cases:
        words = case["words"]
        assert model.log10_probability(words) == pytest.approx(case["log10"], abs=2e-6)
        without_ends = model.log10_probability(words, start=False, end=False)
        assert without_ends == pytest.approx(case["log10_without_ends"], abs=2e-6)


def test_the_automaton_gives_the_models_probabilities(model, kenlm_cases):
    automaton, without_ends = model.automaton(), model.automaton(start=False, end=False)
    for case in kenlm_cases:
        labels = [VOCABULARY.index(word) for word in case["words"]]
        log10 = automaton.score_sequence(labels) / math.log(10)
        assert log10 == pytest.approx(case["log10"], abs=2e-6)
        log10 = without_ends.score_sequence(labels) / math.log(10)
        assert log10 == pytest.approx(case["log10_without_ends"], abs=2e-6)


def test_the_automaton_gives_the_models_probabilities_exhaustively(model):
    automaton = model.automaton()
    for labels in sequences(range(1, 6), 4):
        want = model.log10_probability([VOCABULARY[c] for c in labels])
        assert automaton.score_sequence(labels) / math.log(10) == pytest.approx(want, abs=1e-5)


def test_a_model_without_unknown_words_has_kenlms_number_for_them():
    model = jaxctc.NGram({("a",): (-0.5, 0.0)}, ["", "a", "b"])
    assert model.log10_probability(["a", "b"]) == -100.5
    model = jaxctc.NGram({("a",): (-0.5, 0.0)}, ["", "a", "b"], unknown_log10=-math.inf)
    assert model.automaton().score_sequence([1, 2]) == -math.inf


def test_files_are_checked(tmp_path, model):
    text = (DATA / "small.arpa").read_text()
    with gzip.open(tmp_path / "small.arpa.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    again = jaxctc.NGram.from_arpa(tmp_path / "small.arpa.gz", VOCABULARY)
    assert again.ngrams == model.ngrams
    file = tmp_path / "bad.arpa"
    for change, message in [
        (("ngram 3=10", "ngram 3=11"), "its head says"),
        (("\\end\\", ""), "must be a whole ARPA file"),
        (("-0.9\t</s>", "nine\t</s>"), "line 9: 'nine"),
        (("\ta b\t", "\ta b c d\t"), "is not of an ARPA file"),
        (("\\data\\", ""), "must be a whole ARPA file"),
        (("-0.9\t</s>", "0.9\t</s>"), "line 9: '0.9"),
        (("-0.9\t</s>", "nan\t</s>"), "line 9: 'nan"),
        (("-0.9\t</s>", "-0.9\t<s>"), "different n-grams; its head says"),
    ]:
        assert change[0] in text
        file.write_text(text.replace(*change))
        with pytest.raises(ValueError, match=message):
            jaxctc.NGram.from_arpa(file, VOCABULARY)
    with pytest.raises(ValueError, match="it must have"):
        jaxctc.NGram({("a",): (0.0, 0.0), ("b", "a"): (0.0, 0.0)}, ["a"])


@pytest.mark.parametrize("word", ["\u3000", "\xa0", "\u2028"], ids=ascii)
def test_other_spaces_are_words_and_a_byte_order_mark_is_not(tmp_path, word, model):
    text = (DATA / "small.arpa").read_text().replace("\ta", f"\t{word}").replace(" a", f" {word}")
    (tmp_path / "spaces.arpa").write_text("\ufeff" + text, encoding="utf-8")
    vocabulary = [word if w == "a" else w for w in VOCABULARY]
    spaces = jaxctc.NGram.from_arpa(tmp_path / "spaces.arpa", vocabulary)
    for sentence in sequences("abc", 3):
        same = [word if w == "a" else w for w in sentence]
        assert spaces.log10_probability(same) == model.log10_probability(sentence)


def test_grammar_allows_what_its_templates_allow():
    letters, digits = {1, 2, 3}, {3, 4}
    templates = [[letters, digits], [digits, letters, digits], [letters]]
    automaton = jaxctc.Grammar(templates, classes=5).automaton()
    for labels in sequences(range(5), 4):
        allowed = any(
            len(t) == len(labels) and all(c in s for c, s in zip(labels, t, strict=True))
            for t in templates
        )
        assert automaton.score_sequence(labels) == (0 if allowed else -math.inf)


def test_lexicon_allows_words_with_separators_between():
    words = [(1,), (1, 2), (2, 1, 2)]
    one = jaxctc.Lexicon(words, classes=4).automaton()
    many = jaxctc.Lexicon(words, classes=4, separator=3).automaton()
    for labels in sequences(range(4), 6):
        text = "".join(map(str, labels))
        assert one.score_sequence(labels) == (0 if labels in words else -math.inf)
        known = all(w in ("1", "12", "212") for w in text.split("3")) or not labels
        assert many.score_sequence(labels) == (0 if known else -math.inf)
    with pytest.raises(ValueError, match="must not be empty, repeated"):
        jaxctc.Lexicon([[1], [1]], classes=4).automaton()
    with pytest.raises(ValueError, match="label is 4; it must be a class"):
        jaxctc.Lexicon([[4]], classes=4).automaton()


def test_lexicon_with_a_model_of_words(model):
    spelling = {"a": (1,), "c": (1, 2), "zzz": (2, 2)}
    words = jaxctc.NGram(model.ngrams, list(spelling))
    automaton = jaxctc.Lexicon(list(spelling.values()), 4, 3, words.automaton()).automaton()
    for sentence in sequences(spelling, 3):
        labels = [c for w in sentence for c in (*spelling[w], 3)][:-1]
        want = model.log10_probability(sentence) * math.log(10)
        assert automaton.score_sequence(labels) == pytest.approx(want, abs=1e-5)


def test_hotwords_give_their_boosts_wherever_they_occur():
    words = {(1, 2): 3.0, (2, 1, 2): 1.5, (1,): 0.25, (2, 2, 3): -1.0}
    automaton = jaxctc.Hotwords(words, classes=4).automaton()
    for labels in sequences(range(1, 4), 6):
        want = sum(
            boost
            for word, boost in words.items()
            for i in range(len(labels))
            if labels[i : i + len(word)] == word
        )
        assert automaton.score_sequence(labels) == pytest.approx(want, abs=1e-5)


def test_combined_scores_are_weighted_sums(model):
    grammar = jaxctc.Grammar([[{1, 2}] * n for n in range(4)], classes=6).automaton()
    hot = jaxctc.Hotwords({(1, 2): 2.0}, classes=6).automaton()
    parts, weights = [model.automaton(), grammar, hot], [0.5, 0.0, 1.5]
    both = jaxctc.combine(parts, weights=weights)
    for labels in sequences(range(1, 4), 4):
        scores = [part.score_sequence(labels) for part in parts]
        want = sum(w * s for w, s in zip(weights, scores, strict=True) if w)
        want = want if scores[1] == 0 else -math.inf  # forbidden, whatever the weight
        assert both.score_sequence(labels) == pytest.approx(want, abs=1e-5)
    with pytest.raises(ValueError, match="weights has length 2"):
        jaxctc.combine([hot], weights=[1, 2])
    with pytest.raises(ValueError, match="automata read 4 and 6 classes"):
        jaxctc.combine([hot, jaxctc.Hotwords({}, classes=4).automaton()])


def test_a_score_ends_at_the_padding_of_hypotheses(model):
    automaton = model.automaton()
    assert automaton.score_sequence([1, 2, -1, -1]) == automaton.score_sequence([1, 2])
    with pytest.raises(ValueError, match="label is 6; it must be a class, in 0…5"):
        automaton.score_sequence([1, 6])


A_WORD = {("a",): (-1.0, 0.0)}


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
            lambda: jaxctc.Lexicon([[1]], 4, language_model=jaxctc.NGram(A_WORD, ["a"])),
            TypeError,
            "language_model has type NGram; it must be an Automaton",
        ),
        (
            lambda: jaxctc.Lexicon(
                [[1]], 4, language_model=jaxctc.NGram(A_WORD, ["<blank>", "a"]).automaton()
            ),
            ValueError,
            "language_model reads 2 classes; it must be 1",
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
    ],
)
def test_errors_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make().automaton()


def test_errors_of_combine_name_the_argument():
    grammar = jaxctc.Grammar([[{1}]], 4)
    with pytest.raises(TypeError, match=r"automata\[1\] has type Grammar; it must be an Automaton"):
        jaxctc.combine([grammar.automaton(), grammar])
    with pytest.raises(ValueError, match="weights has the value nan; it must be finite"):
        jaxctc.combine([grammar.automaton()], weights=[math.nan])


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
            automaton=jaxctc.combine(parts),
            automaton_weight=weight,
        )

    def text(found):
        return "".join(symbols[c] for c in found.labels[0, : found.lengths[0]].tolist())

    scorer = jaxctc.combine([model.automaton(), one_each], weights=[0.5, 1.5])
    found = read(jaxctc.Lexicon(spelling, 8, 0, scorer).automaton())
    want = case["expected"]
    assert text(found) == want["decoded_text"]
    np.testing.assert_allclose(found.scores[0], want["logit_score"], atol=1e-5)
    total = found.scores[0] + found.automaton_scores[0]
    np.testing.assert_allclose(total, want["lm_score"], atol=1e-5)

    # test_decoder and test_hotwords of the same file; hotwords are whole words there
    words = jaxctc.Lexicon(spelling, 8, 0).automaton()
    assert text(read(words)) == "bunny bunny"
    hot = jaxctc.Hotwords({tuple(spelling[0]): 10.0}, classes=8).automaton()
    assert text(read(words, hot)) == "bugs bunny"


def test_automata_are_arguments_of_a_compiled_search():
    logits = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    search = jax.jit(lambda x, a: jaxctc.ctc_beam_search(x, beam_width=4, automaton=a))
    for labels in ({1, 2}, {2, 3}):
        automaton = jaxctc.Grammar([[labels] * 2], classes=4).automaton()
        found = search(logits, automaton)
        np.testing.assert_array_equal(found.lengths[:, 0], 2)
        assert set(np.asarray(found.labels[:, 0, :2]).reshape(-1).tolist()) <= labels
    assert search._cache_size() == 1


def test_without_an_allowed_sequence_there_is_no_hypothesis():
    automaton = jaxctc.Grammar([[{1}] * 4], classes=3).automaton()
    found = jaxctc.ctc_beam_search(np.zeros((4, 3), np.float32), beam_width=2, automaton=automaton)
    assert (found.scores == -np.inf).all()
    assert (found.lengths == 0).all()
    assert (found.labels == -1).all()
