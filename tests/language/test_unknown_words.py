"""What models of words do at a word that a lexicon does not list, against plain Python."""

import itertools
import math

import numpy as np
import pytest
from oracles import scores_of, sequences

import jaxctc

SEPARATOR, WEIGHT, UNKNOWN = 3, 0.75, (-3.0, -0.25)
SPELLED = [(1,), (1, 2), (2, 2)]
HOT = {(0, 1): 4.0, (1,): -0.5, (1, 0, 2): 1.5}
TEMPLATES = [[{0, 1}], [{1}, {0, 2}], [{0}, {0}, {0}]]
EVERY = [*sequences(range(1, 4), 6)]


def hotwords():
    return jaxctc.Hotwords(HOT, classes=3, blank_id=None).scorer()


def grammar():
    return jaxctc.Grammar(TEMPLATES, classes=3, blank_id=None).scorer()


def counter():
    """A user's automaton without an answer for words that are not in the list."""
    return jaxctc.Automaton(np.zeros((1, 3), np.int32), np.ones((1, 3), np.float32), np.zeros(1))


def boosts(words):
    return sum(
        HOT.get(tuple(words[i:j]), 0.0) for i, j in itertools.combinations(range(len(words) + 1), 2)
    )


def allowed(words):
    fits = any(
        len(words) == len(t) and all(w in s for w, s in zip(words, t, strict=True))
        for t in TEMPLATES
    )
    return 0.0 if fits else -math.inf


def scorer_of(model):
    lexicon = jaxctc.Lexicon(SPELLED, 4, SEPARATOR)
    return lexicon.scorer(language_model=model, weight=WEIGHT, unknown=UNKNOWN)


def wanted(model_score):
    """The score of every label sequence; a word that is not in the list is None to the model."""
    scores = []
    for labels in EVERY:
        text = "".join(map(str, labels)).split(str(SEPARATOR)) if labels else []
        if "" in text:
            scores.append(-math.inf)
            continue
        said = [tuple(map(int, word)) for word in text]
        words = [SPELLED.index(word) if word in SPELLED else None for word in said]
        strange = [word for word in said if word not in SPELLED]
        extra = sum(UNKNOWN[0] + UNKNOWN[1] * len(word) for word in strange)
        scores.append(extra + WEIGHT * model_score(words))
    return scores


def test_hotwords_begin_anew_and_a_grammar_forbids_it():
    tabulated = jaxctc.tabulate(jaxctc.combine([hotwords()]), unknown=True)
    for model in (hotwords(), jaxctc.combine([hotwords()]), tabulated):
        np.testing.assert_allclose(scores_of(scorer_of(model), EVERY), wanted(boosts), atol=1e-5)
    both = jaxctc.combine([hotwords(), grammar()], weights=[2, 1])
    tabulated = jaxctc.tabulate(both, unknown=True)
    want = wanted(lambda words: 2 * boosts(words) + allowed(words))
    assert np.isfinite(want).sum() == 5
    for model in (both, tabulated):
        np.testing.assert_allclose(scores_of(scorer_of(model), EVERY), want, atol=1e-5)


def test_an_automaton_without_an_answer_is_refused():
    sentence = "an Automaton has no unknown_transition or unknown_score; for a Lexicon with"
    for model in (counter(), jaxctc.combine([hotwords(), counter()])):
        with pytest.raises(ValueError, match=sentence):
            scorer_of(model)
    with pytest.raises(ValueError, match=sentence):
        jaxctc.tabulate(counter(), unknown=True)
    parts = counter().transition, counter().score, counter().final_score
    with pytest.raises(ValueError, match=r"unknown_score has shape \(2,\); it must be \[1\]"):
        scorer_of(jaxctc.Automaton(*parts, np.zeros(1, np.int32), np.zeros(2)))
    counting = jaxctc.Automaton(*parts, np.zeros(1, np.int32), np.full(1, 2.0))
    score = jaxctc.score_sequence(scorer_of(counting), [1, 3, 2])
    assert score == WEIGHT * (1 + 2) + UNKNOWN[0] + UNKNOWN[1]


def test_a_search_takes_the_boost_back():
    """Of "a x c", x unknown, nothing of the boost of "a c" is left."""
    sure = 9.0 * np.eye(4, dtype=np.float32)[[1, 3, 2, 3, 1, 2]]
    hot = jaxctc.Hotwords({(0, 1): 50.0}, classes=3, blank_id=None).scorer()
    found = jaxctc.ctc_beam_search(sure, beam_width=8, scorer=scorer_of(hot), scorer_weight=0.1)
    (place,) = [n for n in range(8) if found.labels[n].tolist() == [1, 3, 2, 3, 1, 2]]
    np.testing.assert_allclose(found.scorer_scores[place], UNKNOWN[0] + UNKNOWN[1], atol=1e-4)
