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


@pytest.mark.parametrize("kept", [1, 2])
def test_backoffs_count_where_no_longer_ngrams_are_kept(kept):
    """Those of the highest orders have words that are not in the vocabulary."""
    listed = {("a",): (-0.5, -0.25), ("b",): (-0.75, -0.5), ("x",): (-1.0, -0.125)}
    listed |= {("a", "x"): (-0.25, -2.0), ("a", "x", "b"): (-0.125, 0.0)}
    if kept == 2:
        listed |= {("b", "a"): (-0.0625, -1.0)}

    def log10(context, word):
        if (*context, word) in listed:
            return listed[*context, word][0]
        return listed.get(context, (0, 0))[1] + log10(context[1:], word)

    model = jaxctc.NGram(listed, ["", "a", "b"])
    every = [*sequences([1, 2], 4)]
    texts = [[model.vocabulary[label] for label in labels] for labels in every]
    want = [
        sum(log10(tuple(text[max(i - 2, 0) : i]), text[i]) for i in range(len(text)))
        for text in texts
    ]
    np.testing.assert_allclose([model.log10_probability(text) for text in texts], want)
    got = np.array(scores_of(model.scorer(), every)) / math.log(10)
    np.testing.assert_allclose(got, want, atol=1e-6)


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
        (("\\2-grams:", "\\3-grams:"), r"section .3-grams: is out of order; it must be .2-grams:"),
        (("\\1-grams:", "\\2-grams:"), r"section .2-grams: is out of order; it must be .1-grams:"),
        (("-0.3261\td\t-0.4191", "-0.3261\td\tinf"), "line 13: '-0.3261"),
        (("-0.3261\td\t-0.4191", "-0.3261\td\t-inf"), "line 13: '-0.3261"),
        (("-0.3261\td\t-0.4191", "-0.3261\td\tsome"), "line 13: '-0.3261"),
        ((text[text.index("\\1-grams") :], "\\end\\"), "has {} n-grams; its header says"),
        ((text, "\\data\\\n\\end\\"), "has no n-grams; it must have words"),
        (
            (text, "\\data\\\nngram 1=0\n\n\\1-grams:\n\n\\end\\"),
            "has no n-grams; it must have words",
        ),
    ]:
        assert change[0] in text
        file.write_text(text.replace(*change))
        with pytest.raises(ValueError, match=message):
            jaxctc.NGram.from_arpa(file, VOCABULARY)
    whole = (tmp_path / "small.arpa.gz").read_bytes()
    cut = tmp_path / "cut.arpa.gz"
    for damaged in (whole[:-40], whole[:60] + b"?" + whole[61:], text.encode()):
        cut.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged .*; it must be a whole gzip file"):
            jaxctc.NGram.from_arpa(cut, VOCABULARY)
    file.write_bytes(text.replace("<unk>", "caf\xe9").encode("latin-1"))
    with pytest.raises(ValueError, match=r"has b'caf.xe9'; it must be UTF-8"):
        jaxctc.NGram.from_arpa(file, VOCABULARY)


def test_a_section_may_be_empty(tmp_path):
    """Its order counts all the same, with the back-offs below it."""
    text = "\\data\\\nngram 1=2\nngram 2=0\n\n\\1-grams:\n-0.5\ta\t-0.25\n-1\tb\t-2\n\n"
    for section in ("\\2-grams:\n\n", "\\2-grams:\n", ""):
        (tmp_path / "empty.arpa").write_text(text + section + "\\end\\\n")
        model = jaxctc.NGram.from_arpa(tmp_path / "empty.arpa", ["a", "b"])
        assert model.order == 2
        assert model.log10_probability(["a", "b"]) == -1.75


def test_a_saved_vocabulary_is_the_same(tmp_path):
    for vocabulary in ([], [""], ["a", ""], ["", "é", "a b"]):
        jaxctc.NGram({("a",): (-0.5, 0.0)}, vocabulary).save(tmp_path / "words.npz")
        assert jaxctc.NGram.load(tmp_path / "words.npz").vocabulary == vocabulary


A, B = ("a",), ("b",)


@pytest.mark.parametrize(
    ("ngrams", "error", "sentence"),
    [
        ([("a", -1.0)], TypeError, "ngrams has type list; it must be a mapping from n-grams"),
        ({}, ValueError, "ngrams has length 0; it must have at least one n-gram"),
        ({"a": (-1.0, 0.0)}, TypeError, "ngrams has 'a'; an n-gram must be a tuple of words"),
        ({(1,): (-1.0, 0.0)}, TypeError, r"ngrams has \(1,\); an n-gram must be a tuple of words"),
        ({(): (-1.0, 0.0)}, TypeError, r"ngrams has \(\); an n-gram must be a tuple of words"),
        ({A: -1.0}, TypeError, r"ngrams has \('a',\) with -1.0; it must be log10 of a probability"),
        ({A: (-1.0,)}, TypeError, r"ngrams has \('a',\) with \(-1.0,\); it must be log10"),
        (
            {A: (0.5, 0.0)},
            ValueError,
            r"with \(0.5, 0.0\); log10 of a probability must be at most 0",
        ),
        ({A: (math.nan, 0.0)}, ValueError, r"with \(nan, 0.0\); log10 of a probability must be at"),
        ({A: (-1.0, math.inf)}, ValueError, r"with \(-1.0, inf\); .* that of a back-off finite"),
        (
            {A: (0.0, 0.0), B + A: (0.0, 0.0)},
            ValueError,
            r"has \('b', 'a'\); it must have \('b',\) too",
        ),
        (
            {B: (0.0, 0.0), B + A: (0.0, 0.0)},
            ValueError,
            r"has \('b', 'a'\); it must have \('a',\) too",
        ),
    ],
)
def test_ngrams_are_checked(ngrams, error, sentence):
    with pytest.raises(error, match=sentence):
        jaxctc.NGram(ngrams, ["a"])


def test_words_are_checked():
    for make, *given in [
        (jaxctc.NGram, {A: (-1, 0)}),
        (jaxctc.NGram.from_arpa, DATA / "small.arpa"),
    ]:
        with pytest.raises(TypeError, match="vocabulary has type str; it must be a sequence of wo"):
            make(*given, "ab")
        with pytest.raises(TypeError, match="vocabulary has 3; it must have texts"):
            make(*given, ["a", 3])
        with pytest.raises(ValueError, match=r"a word with '.0'; a word must not contain it"):
            make(*given, ["a", "b\0"])
        with pytest.raises(ValueError, match="unknown_log10 is nan; it must be at most 0"):
            make(*given, ["a"], unknown_log10=math.nan)


def test_saved_files_are_checked(tmp_path, model):
    path = tmp_path / "model.npz"
    with pytest.raises(ValueError, match=r"path is .*model.txt'; it must end in .npz"):
        model.save(tmp_path / "model.txt")
    model.save(path)
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)

    def written(**changes):
        np.savez(path, **{name: x for name, x in (arrays | changes).items() if x is not None})

    for write, sentence in [
        (lambda: path.write_bytes(whole[:-30]), "is not a file of arrays; it must be one from"),
        (lambda: path.write_bytes(b"nothing"), "is not a file of arrays; it must be one from"),
        (lambda: np.savez_compressed(path, **arrays), "is compressed; it must be as `save` wrote"),
        (lambda: np.savez(path, logits=np.zeros(3)), "has no vocabulary; it must be a file that"),
        (lambda: written(link=None), "has no link; it must be a file that NGram.save wrote"),
        (lambda: written(word=np.zeros(3)), r"has a wrong array float64\[3\] as word; it must be"),
        (lambda: written(link=arrays["link"][:-1]), r"has link of length 21; it must be 22"),
        (lambda: written(names=arrays["names"][:-2]), r"has unigram of length 7; it must be 6"),
        (lambda: written(offset=arrays["offset"] + 1), r"has offset up to 23; it must be 22"),
    ]:
        write()
        with pytest.raises(ValueError, match=sentence):
            jaxctc.NGram.load(path)
    path.write_bytes(whole)
    assert jaxctc.NGram.load(path).log10_probability(["a"]) == model.log10_probability(["a"])


@pytest.mark.parametrize("word", ["\u3000", "\xa0", "\u2028"], ids=ascii)
def test_other_spaces_are_words_and_a_byte_order_mark_is_not(tmp_path, word, model):
    text = (DATA / "small.arpa").read_text().replace("\ta", f"\t{word}").replace(" a", f" {word}")
    (tmp_path / "spaces.arpa").write_text("\ufeff" + text, encoding="utf-8")
    vocabulary = [word if w == "a" else w for w in VOCABULARY]
    spaces = jaxctc.NGram.from_arpa(tmp_path / "spaces.arpa", vocabulary)
    for sentence in sequences("abc", 3):
        same = [word if w == "a" else w for w in sentence]
        assert spaces.log10_probability(same) == model.log10_probability(sentence)
