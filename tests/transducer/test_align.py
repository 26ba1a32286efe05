"""Posteriors and alignments of arcs that are broken or of two dtypes."""

import jax
import numpy as np
import pytest
from conformance import INTERPRETERS

import jaxctc
from jaxctc.core.kernels import choice


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_arcs_give_nan(value):
    blank, label = np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 2), np.float32)
    label[0, 1, 1] = value
    losses = jaxctc.rnnt_loss_from_log_probs(blank, label)
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
    found = jaxctc.rnnt_align(blank, label)
    for scores in (found.score, found.scores[:, 0], found.scores[:, 1]):
        np.testing.assert_array_equal(np.isnan(scores), [True, False])
    np.testing.assert_array_equal(found.frames[0], -1)


@pytest.mark.parametrize("blank_dtype", [np.float32, np.float64])
def test_arcs_of_two_dtypes(blank_dtype):
    label_dtype = np.float64 if blank_dtype == np.float32 else np.float32
    with jax.enable_x64(True):
        arcs = np.zeros((3, 3), blank_dtype), np.zeros((3, 2), label_dtype)
        assert jaxctc.rnnt_loss_from_log_probs(*arcs).dtype == np.float64
        posteriors = jaxctc.rnnt_posteriors(*arcs)
        assert [x.dtype for x in posteriors] == [blank_dtype, label_dtype]
        assert jaxctc.rnnt_prune_ranges(*posteriors, s_range=2).dtype == np.int32
        found = jaxctc.rnnt_align(*arcs)
        assert found.frames.dtype == np.int32
        assert found.scores.dtype == label_dtype


def test_nan_logits_give_nan_posteriors_but_not_in_padding():
    logits = np.zeros((2, 5, 3, 4), np.float32)
    logits[0, 2, 1, 3] = np.nan
    lengths = np.array([4, 5]), np.array([1, 2])
    arcs = jaxctc.rnnt_log_probs(logits, np.array([[1, 2], [1, 2]]), *lengths)
    blank, label = jaxctc.rnnt_posteriors(*arcs, *lengths)
    inside = (np.arange(5) < 4)[:, None] & (np.arange(3) <= 1)
    np.testing.assert_array_equal(np.isnan(blank[0]), inside)
    np.testing.assert_array_equal(np.isnan(label[0]), inside[:, 1:])
    assert not blank[0][~inside].any()
    assert np.isfinite(blank[1]).all()
    assert np.isfinite(label[1]).all()


@pytest.mark.parametrize("way", INTERPRETERS)
def test_kernels_find_the_same_paths_also_if_some_tie(way):
    generator = np.random.default_rng(0)
    blank = generator.integers(-3, 1, (3, 6, 4)).astype(np.float32)
    label = generator.integers(-3, 1, (3, 6, 3)).astype(np.float32)
    lengths = np.array([6, 4, 1]), np.array([3, 2, 3])
    want = jaxctc.rnnt_align(blank, label, *lengths)
    with choice.interpreted(way):
        got = jaxctc.rnnt_align(blank, label, *lengths)
    jax.tree.map(np.testing.assert_array_equal, got, want)
