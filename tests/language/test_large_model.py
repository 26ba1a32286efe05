"""A word model of real size against kenlm, where the file is there."""

import json
import math
import time

import numpy as np
import pytest
from extras import WORD_MODEL, needs_word_model
from oracles import scores_of
from published import DATA

import jaxctc

pytestmark = [
    needs_word_model,
]
CASES = json.loads((DATA / "en_us_2gram_scores.json").read_text())["cases"]


@pytest.fixture(scope="module")
def vocabulary():
    return sorted({word for text, *_ in CASES for word in text.split()})


@pytest.fixture(scope="module")
def model(vocabulary):
    return jaxctc.NGram.from_arpa(WORD_MODEL, vocabulary)


def test_scores_equal_kenlm(model, vocabulary):
    number = {word: i for i, word in enumerate(vocabulary)}
    labels = [[number[word] for word in text.split()] for text, *_ in CASES]
    for ends, column in ((True, 1), (False, 2)):
        got = np.array(scores_of(model.scorer(start=ends, end=ends), labels)) / math.log(10)
        want = np.array([case[column] for case in CASES])
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=2e-7)


def test_only_ngrams_of_the_vocabulary_are_kept(model, vocabulary):
    assert len(model.tables.unigram) <= len(vocabulary) + 3
    assert len(model.tables.word) < 300_000  # of two million


def test_memory_is_in_proportion_to_ngrams(model):
    scorer = model.scorer()
    ngrams = scorer.unigram.size + scorer.word.size
    arrays = [x for x in (scorer.unigram, scorer.offset, scorer.word, scorer.log_prob)]
    arrays += [scorer.link, scorer.backoff, scorer.label_word]
    assert sum(x.nbytes for x in arrays) <= 24 * ngrams


def test_saved_tables_are_mapped(model, tmp_path):
    model.save(tmp_path / "model.npz")
    begun = time.perf_counter()
    again = jaxctc.NGram.load(tmp_path / "model.npz")
    assert time.perf_counter() - begun < 1  # reading the text takes seconds
    assert isinstance(again.tables.word, np.memmap)
    for mine, theirs in zip(again.tables, model.tables, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.log10_probability(["the", "river"]) == model.log10_probability(["the", "river"])
