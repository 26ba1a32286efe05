"""Posteriors and alignments with durations against the enumeration of all paths."""

import jax
import numpy as np
import pytest
from oracles import duration_paths, log_softmax

import jaxctc

DURATIONS, T, U, C, BLANK = (2, 0, 1), 5, 3, 4, 1
RNG = np.random.default_rng(0)
TOKENS = (2 * RNG.normal(size=(6, T, U + 1, C))).astype(np.float32)
LASTING = (2 * RNG.normal(size=(6, T, U + 1, 3))).astype(np.float32)
LABELS = np.array([[0, 2, 2], [3, 0, 2], [2, 3, 0], [3, 3, 3], [0, 0, 2], [2, 2, 2]])
FRAMES, LENGTHS = np.array([5, 4, 3, 0, 5, 1]), np.array([3, 2, 1, 1, 0, 3])
ARGS = TOKENS, LASTING, LABELS, FRAMES, LENGTHS
OPTIONS = {"durations": DURATIONS, "blank_id": BLANK, "max_symbols": 2}


def enumerated(b):
    """All paths of a sequence, with their log-probabilities."""
    tokens, lasting = log_softmax(TOKENS[b]), log_softmax(LASTING[b])
    paths = []
    for path in duration_paths(FRAMES[b], LENGTHS[b], DURATIONS, 2):
        score = 0.0
        for t, u, is_label, d in path:
            label = LABELS[b, u] if is_label else BLANK
            score += tokens[t, u, label] + lasting[t, u, DURATIONS.index(d)]
        paths.append((score, path))
    return tokens, paths


def test_posteriors_are_those_of_all_paths():
    found = jax.tree.map(np.asarray, jaxctc.tdt_posteriors(*ARGS, **OPTIONS))
    for b in range(len(LABELS)):
        want = [np.zeros(x.shape[1:]) for x in found]
        paths = enumerated(b)[1]
        total = np.logaddexp.reduce([-np.inf, *(score for score, _ in paths)])
        for score, path in paths:
            for t, u, is_label, d in path:
                want[is_label][t, u, DURATIONS.index(d)] += np.exp(score - total)
        for got, expected in zip(found, want, strict=True):
            np.testing.assert_allclose(got[b], expected, atol=1e-5)
    assert found.label[0].sum() == pytest.approx(3, rel=1e-5)


def test_the_alignment_is_the_best_path():
    found = jax.tree.map(np.asarray, jaxctc.tdt_align(*ARGS, **OPTIONS))
    for b, n in enumerate(LENGTHS):
        tokens, paths = enumerated(b)
        score, path = max(paths, default=(-np.inf, None))
        np.testing.assert_allclose(found.score[b], score, rtol=1e-5)
        emitted = [(t, u, d) for t, u, is_label, d in path or () if is_label]
        frames, durations, scores = np.full(U, -1), np.zeros(U, int), np.zeros(U)
        scores[:n] = -np.inf
        for t, u, d in emitted:
            frames[u], durations[u], scores[u] = t, d, tokens[t, u, LABELS[b, u]]
        np.testing.assert_array_equal(found.frames[b], frames)
        np.testing.assert_array_equal(found.durations[b], durations)
        np.testing.assert_allclose(found.scores[b], scores, rtol=1e-5)


def test_nan_stays_in_its_sequence():
    broken = LASTING.copy()
    broken[0, 2, 1, 0] = np.nan
    broken[1, 4] = np.nan  # padding
    found = jaxctc.tdt_align(TOKENS, broken, *ARGS[2:], **OPTIONS)
    assert np.isnan([found.score[0], *found.scores[0]]).all()
    assert (found.frames[0] == -1).all()
    assert np.isfinite(found.score[1])
    posteriors = jaxctc.tdt_posteriors(TOKENS, broken, *ARGS[2:], **OPTIONS)
    assert np.isnan(posteriors.label[0]).all()
    assert not np.isnan(posteriors.blank[1:]).any()
