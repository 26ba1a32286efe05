"""Automata over labels: their scores, their combinations, and as arguments of a search."""

import math

import jax
import numpy as np
import pytest
from oracles import sequences

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")


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


def test_errors_of_combine_name_the_argument():
    grammar = jaxctc.Grammar([[{1}]], 4)
    with pytest.raises(TypeError, match=r"automata\[1\] has type Grammar; it must be an Automaton"):
        jaxctc.combine([grammar.automaton(), grammar])
    with pytest.raises(ValueError, match="weights has the value nan; it must be finite"):
        jaxctc.combine([grammar.automaton()], weights=[math.nan])


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
