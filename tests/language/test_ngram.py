"""Language models against kenlm."""

import gzip
import json
import math

import numpy as np
import pytest
from oracles import scores_of, sequences
from published import DATA, VOCABULARY

import jaxctc


@pytest.fixture(scope="module")
def kenlm_cases():
    return json.loads((DATA / "small_arpa_scores.json").read_text())["cases"]


def test_probabilities_equal_kenlm(model, kenlm_cases):
    for case in kenlm_cases:
        words = case["words"]
        assert model.log10_probability(words) == pytest.approx(case["log10"], abs=2e-6)
        without_ends = model.log10_probability(words, start=False, end=False)
        assert without_ends == pytest.approx(case["log10_without_ends"], abs=2e-6)


def test_the_scorer_gives_the_models_probabilities(model, kenlm_cases):
    labels = [[VOCABULARY.index(word) for word in case["words"]] for case in kenlm_cases]
    for scorer, key in (
        (model.scorer(), "log10"),
        (model.scorer(start=False, end=False), "log10_without_ends"),
    ):
        log10 = np.array(scores_of(scorer, labels)) / math.log(10)
        np.testing.assert_allclose(log10, [case[key] for case in kenlm_cases], rtol=1e-6, atol=4e-6)


def test_the_scorer_gives_the_models_probabilities_exhaustively(model):
    every = [*sequences(range(1, 6), 4)]
    got = np.array(scores_of(model.scorer(), every)) / math.log(10)
    want = [model.log10_probability([VOCABULARY[c] for c in labels]) for labels in every]
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-6)
    # and as tables, which a search reads faster
    tables = jaxctc.tabulate(model.scorer())
    np.testing.assert_allclose(np.array(scores_of(tables, every)) / math.log(10), want, rtol=1e-5)


def test_a_model_without_unknown_words_has_kenlms_number_for_them():
    model = jaxctc.NGram({("a",): (-0.5, 0.0)}, ["", "a", "b"])
    assert model.log10_probability(["a", "b"]) == -100.5
    model = jaxctc.NGram({("a",): (-0.5, 0.0)}, ["", "a", "b"], unknown_log10=-math.inf)
    assert jaxctc.score_sequence(model.scorer(), [1, 2]) == -math.inf


def test_files_are_checked(tmp_path, model):
    text = (DATA / "small.arpa").read_text()
    with gzip.open(tmp_path / "small.arpa.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    again = jaxctc.NGram.from_arpa(tmp_path / "small.arpa.gz", VOCABULARY)
    for mine, theirs in zip(again.tables, model.tables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    file = tmp_path / "bad.arpa"
    for change, message in [
        (("ngram 3=10", "ngram 3=11"), "its header says"),
        (("\\end\\", ""), "must be a whole ARPA file"),
        (("-0.9\t</s>", "nine\t</s>"), "line 9: 'nine"),
        (("\ta b\t", "\ta b c d\t"), "is not a line of an ARPA file"),
        (("\\data\\", ""), "must be a whole ARPA file"),
        (("-0.9\t</s>", "0.9\t</s>"), "line 9: '0.9"),
        (("-0.9\t</s>", "nan\t</s>"), "line 9: 'nan"),
        (("-0.9\t</s>", "-0.9\t<s>"), "has a word twice; its n-grams must differ"),
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
