"""How the CTC loss treats padding, lengths, masked classes, dtypes and broken logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import loss_and_gradient
from oracles import ctc_by_recursion

import jaxctc


def test_ragged_batches_equal_single_pairs(ragged):
    logits, labels, frames, lengths, feasible = ragged
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    np.testing.assert_array_equal(np.isfinite(losses), feasible)
    np.testing.assert_array_equal(jaxctc.is_feasible(labels, frames, lengths), feasible)
    for b in range(6):
        want, want_gradient = ctc_by_recursion(logits[b, : frames[b]], labels[b, : lengths[b]], 0)
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        np.testing.assert_allclose(gradient[b, : frames[b]], want_gradient, atol=1e-6)
        np.testing.assert_array_equal(gradient[b, frames[b] :], 0)
    assert losses[4] == 0  # no frames, no labels: certain
    np.testing.assert_array_equal(gradient[~feasible], 0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_padding_changes_no_bit(ragged, poison):
    logits, labels, frames, lengths, _ = ragged
    outside = np.arange(9)[:, None] >= frames[:, None, None]
    poisoned = np.where(outside, np.float32(poison), logits)
    other = np.where(np.arange(4) >= lengths[:, None], -7, labels)
    for got, want in zip(
        loss_and_gradient(poisoned, other, frames, lengths),
        loss_and_gradient(logits, labels, frames, lengths),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
    posteriors = jaxctc.ctc_posteriors(logits, labels, frames, lengths)
    poisoned = jaxctc.ctc_posteriors(poisoned, other, frames, lengths)
    jax.tree.map(np.testing.assert_array_equal, posteriors, poisoned)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(ragged, dtype):
    logits, labels, frames, lengths, _ = ragged
    half = jnp.asarray(logits, dtype)
    losses, gradient = loss_and_gradient(half, labels, frames, lengths)
    want, want_gradient = loss_and_gradient(half.astype(jnp.float32), labels, frames, lengths)
    assert losses.dtype == np.float32
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(losses, want)
    np.testing.assert_array_equal(gradient, want_gradient.astype(dtype))


def test_float64(ragged):
    logits, labels, frames, lengths, feasible = ragged
    with jax.enable_x64(True):
        loss = jax.value_and_grad(
            lambda x: jaxctc.ctc_loss(x, labels, frames, lengths).sum(where=feasible)
        )
        total, gradient = loss(logits.astype(np.float64))
    assert gradient.dtype == np.float64
    pairs = [
        ctc_by_recursion(logits[b, : frames[b]], labels[b, : lengths[b]], 0)
        for b in np.flatnonzero(feasible)
    ]
    np.testing.assert_allclose(total, math.fsum(p[0] for p in pairs), rtol=1e-13)
    np.testing.assert_allclose(gradient[1, :7], pairs[1][1], atol=1e-13)


def test_a_masked_class_has_no_probability_and_no_gradient(ragged):
    logits, labels, *_ = ragged
    masked = np.array(logits)
    masked[..., 3] = -np.inf
    masked[2, 4] = -np.inf  # a frame of nothing: no path
    labels = np.where(labels == 3, 1, labels)
    labels[1, 0] = 3  # can't be read
    losses, gradient = loss_and_gradient(masked, labels)
    np.testing.assert_array_equal(np.isfinite(losses), [1, 0, 0, 1, 1, 1])
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[..., 3], 0)
    np.testing.assert_array_equal(gradient[[1, 2]], 0)
    want, want_gradient = ctc_by_recursion(masked[0], labels[0], 0)
    np.testing.assert_allclose(losses[0], want, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], want_gradient, atol=1e-6)


def test_log_probabilities_and_logits_are_the_same(ragged):
    logits, labels, frames, lengths, _ = ragged
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    again, same = loss_and_gradient(log_probs, labels, frames, lengths)
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    np.testing.assert_allclose(same, gradient, atol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 5, 0])
def test_a_label_that_is_not_a_class_or_is_the_blank_is_infeasible(ragged, wrong):
    logits, labels, *_ = ragged
    labels = np.array(labels)
    labels[0, 2] = wrong
    lengths = np.full(6, 4)  # without them, a negative label would be the end
    losses, gradient = loss_and_gradient(logits, labels, None, lengths)
    assert losses[0] == np.inf
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(losses[1])
    assert not jaxctc.is_feasible(labels, np.full(6, 9), lengths, num_classes=5)[0]


def test_traced_lengths_out_of_range_are_infeasible(ragged):
    logits, labels, *_ = ragged
    frames, lengths = np.array([10, -1, 9, 9, 9, 9]), np.array([4, 4, 5, -1, 4, 4])
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    assert not np.isfinite(losses[:4]).any()
    np.testing.assert_array_equal(gradient[:4], 0)
    assert np.isfinite(losses[4])
    posteriors = jax.jit(jaxctc.ctc_posteriors)(logits, labels, frames, lengths)
    np.testing.assert_array_equal(posteriors.labels[:4], 0)
    np.testing.assert_array_equal(posteriors.blank[:4], 0)
    feasible = jax.jit(jaxctc.is_feasible)(labels, frames, lengths)
    np.testing.assert_array_equal(feasible[1:4], False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_inside_a_sequence_makes_its_loss_nan(ragged, bad):
    logits, labels, frames, lengths, feasible = ragged
    broken = np.array(logits)
    broken[1, 2, 3] = bad
    losses, gradient = loss_and_gradient(broken + 100, labels, frames, lengths)
    np.testing.assert_array_equal(np.isnan(losses), np.arange(6) == 1)
    assert np.isfinite(gradient[feasible & (np.arange(6) != 1)]).all()
    posteriors = jaxctc.ctc_posteriors(broken, labels, frames, lengths)
    inside = np.arange(broken.shape[1]) < np.array(frames)[:, None]
    np.testing.assert_array_equal(np.isnan(posteriors.blank), inside & (np.arange(6) == 1)[:, None])
