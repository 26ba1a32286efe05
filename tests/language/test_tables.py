"""Automata over labels: their scores, their combinations, and as arguments of a search."""

import math

import jax
import numpy as np
import pytest
from oracles import scores_of, sequences

import jaxctc


def test_combined_scores_are_weighted_sums(model):
    grammar = jaxctc.Grammar([[{1, 2}] * n for n in range(4)], classes=6).scorer()
    hot = jaxctc.Hotwords({(1, 2): 2.0}, classes=6).scorer()
    parts, weights = [model.scorer(), grammar, hot], [0.5, 0.0, 1.5]
    both = jaxctc.combine(parts, weights=weights)
    every = [*sequences(range(1, 4), 4)]
    rows = zip(*(scores_of(part, every) for part in parts), strict=True)
    for scores, got in zip(rows, scores_of(both, every), strict=True):
        want = sum(w * s for w, s in zip(weights, scores, strict=True) if w)
        want = want if scores[1] == 0 else -math.inf  # forbidden, whatever the weight
        assert got == pytest.approx(want, abs=1e-5)
    with pytest.raises(ValueError, match="weights has length 2"):
        jaxctc.combine([hot], weights=[1, 2])
    with pytest.raises(ValueError, match=r"scorers\[1\] reads 4 classes; it must read 6"):
        jaxctc.combine([hot, jaxctc.Hotwords({}, classes=4).scorer()])


def test_a_score_ends_at_the_padding_of_hypotheses(model):
    scorer = model.scorer()
    padded, plain = (jaxctc.score_sequence(scorer, x) for x in ([1, 2, -1, -1], [1, 2]))
    assert padded == plain
    with pytest.raises(ValueError, match="labels has the value 6; it must be below 6"):
        jaxctc.score_sequence(scorer, [1, 6])


def test_errors_of_combine_name_the_argument():
    grammar = jaxctc.Grammar([[{1}]], 4)
    with pytest.raises(TypeError, match=r"scorers\[1\] has type Grammar; it must be a Scorer"):
        jaxctc.combine([grammar.scorer(), grammar])
    with pytest.raises(ValueError, match=r"weights\[0\] is nan; it must be finite"):
        jaxctc.combine([grammar.scorer()], weights=[math.nan])


def test_scorers_are_arguments_of_a_compiled_search():
    logits = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    search = jax.jit(lambda x, a: jaxctc.ctc_beam_search(x, beam_width=4, scorer=a))
    for labels in ({1, 2}, {2, 3}):
        scorer = jaxctc.Grammar([[labels] * 2], classes=4).scorer()
        found = search(logits, scorer)
        np.testing.assert_array_equal(found.lengths[:, 0], 2)
        assert set(np.asarray(found.labels[:, 0, :2]).reshape(-1).tolist()) <= labels
    assert search._cache_size() == 1


def test_without_an_allowed_sequence_there_are_only_unfinished_hypotheses():
    scorer = jaxctc.Grammar([[{1}] * 4], classes=3).scorer()
    found = jaxctc.ctc_beam_search(np.zeros((4, 3), np.float32), beam_width=2, scorer=scorer)
    assert not found.complete.any()
    np.testing.assert_array_equal(found.labels[:, :3], [[1, -1, -1], [1, 1, -1]])
    assert (found.scorer_scores == 0).all()
