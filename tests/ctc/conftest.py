"""Batches that several files take."""

import numpy as np
import pytest
from ctc_searches import BATCH, C, T

import jaxctc


@pytest.fixture(scope="module")
def logits():
    return (1.5 * np.random.default_rng(0).normal(size=(BATCH, T, C))).astype(np.float32)


@pytest.fixture(scope="module")
def lengths():
    return np.array([T, 1, 0, 5, 9, T, 2, 3, 7, 11, 13, T])


@pytest.fixture(scope="module")
def random_scorer():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(6, C)).astype(np.float32)
    score[rng.random((6, C)) < 0.2] = -np.inf
    final = rng.normal(size=6).astype(np.float32)
    final[1] = -np.inf
    return jaxctc.Automaton(rng.integers(0, 6, (6, C)).astype(np.int32), score, final)


@pytest.fixture(scope="module")
def ragged():
    """A batch with ordinary, empty, zero-frame and infeasible pairs, and where it is feasible."""
    generator = np.random.default_rng(1)
    logits = generator.standard_normal((6, 9, 5)).astype(np.float32)
    labels = generator.integers(1, 5, (6, 4))
    labels[3] = 2  # four equal labels need seven frames
    frames = np.array([9, 7, 5, 6, 0, 0])
    lengths = np.array([4, 2, 0, 4, 0, 1])
    return logits, labels, frames, lengths, np.array([1, 1, 1, 0, 1, 0], bool)
