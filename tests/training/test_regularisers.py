"""Regularisers against plain formulas, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from ctc_cases import case

import jaxctc


def plain_divergence(target, log_probs):
    return (np.exp(target) * (target - log_probs)).sum((-2, -1))


def test_consistency_is_half_the_two_divergences(x64):
    one, two = np.random.default_rng(2).normal(size=(2, 3, 5, 4))
    p, q = oracles.log_softmax(one), oracles.log_softmax(two)
    want = (plain_divergence(p, q) + plain_divergence(q, p)) / 2
    np.testing.assert_allclose(jaxctc.consistency_loss(one, two), want, atol=1e-12)
    assert np.all(jaxctc.consistency_loss(one, one) == 0)
    # The target is a constant: only the second argument of a divergence is differentiated.
    gradient = jax.grad(lambda x: jaxctc.consistency_loss(x, two).sum())(jnp.asarray(one))
    np.testing.assert_allclose(gradient, (np.exp(p) - np.exp(q)) / 2, atol=1e-12)


def test_consistency_reads_no_padding_and_takes_masked_classes():
    one, _, lengths, _ = case()
    two = one[::-1]
    outside = np.arange(60) >= np.asarray(lengths)[:, None]
    masked = [x.at[:, :, 1].set(-jnp.inf) for x in (one, two)]
    poisoned = [jnp.where(outside[..., None], jnp.nan, x) for x in masked]

    def both(one, two):
        return jax.value_and_grad(lambda x: jaxctc.consistency_loss(x, two, lengths).sum())(one)

    want, got = both(*masked), both(*poisoned)
    assert np.isfinite(want[0])
    assert np.all(np.isfinite(want[1]))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    half = jaxctc.consistency_loss(one.astype(jnp.float16), two.astype(jnp.float16))
    assert half.dtype == jnp.float32
    assert jaxctc.consistency_loss(masked[0], two)[0] == jnp.inf
    # Also if the other view's probability of the class is too small for a float.
    improbable = jnp.array([[0.0, -200.0]]), jnp.array([[0.0, -jnp.inf]])
    assert jaxctc.consistency_loss(*improbable) == jnp.inf


def test_intermediate_loss_is_the_weighted_mean():
    logits, *rest = case()
    layers = jnp.stack([0.5 * logits, logits**2])
    got = jaxctc.intermediate_ctc_loss(logits, layers, *rest, intermediate_weight=0.4)
    each = [jaxctc.ctc_loss(x, *rest) for x in (logits, *layers)]
    np.testing.assert_allclose(got, 0.6 * each[0] + 0.2 * (each[1] + each[2]), rtol=1e-6)


def test_self_conditioning_adds_projected_probabilities():
    rng = np.random.default_rng(4)
    hidden, logits, projection = (rng.normal(size=s) for s in ((2, 5, 6), (2, 5, 3), (3, 6)))
    want = hidden + np.exp(oracles.log_softmax(logits)) @ projection
    got = jaxctc.self_condition(hidden, logits, projection)
    np.testing.assert_allclose(got, want, atol=1e-5)
    half = jaxctc.self_condition(
        *(jnp.asarray(x, jnp.bfloat16) for x in (hidden, logits, projection))
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), want, atol=0.1)


def test_self_conditioning_reads_no_padding_and_no_impossible_frame():
    logits = np.zeros((2, 3, 2), np.float32)
    logits[0, 1], logits[0, 2] = -np.inf, np.nan
    hidden, lengths = jnp.ones((2, 3, 4)), np.array([2, 3])

    def total(logits, projection):
        return jaxctc.self_condition(hidden, logits, projection, lengths)

    told, pullback = jax.vjp(total, jnp.asarray(logits), jnp.ones((2, 4)))
    np.testing.assert_allclose(told[0], [[2.0] * 4, [1.0] * 4, [1.0] * 4])
    np.testing.assert_allclose(told[1], 2)
    for gradient in pullback(jnp.ones_like(told)):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_weights(x64, gamma):
    losses = np.array([0.0, 1e-9, 0.3, 5.0, 800.0, np.inf])

    def plain(losses):
        return 0.25 * (1 - np.exp(-losses)) ** gamma * losses

    got, gradient = jax.value_and_grad(
        lambda x: jaxctc.focal_loss(x, alpha=0.25, gamma=gamma)[:5].sum()
    )(losses)
    np.testing.assert_allclose(got, plain(losses)[:5].sum(), rtol=1e-7)
    np.testing.assert_allclose(
        gradient[2:5], oracles.numeric_gradient(lambda x: plain(x).sum(), losses[2:5]), rtol=1e-5
    )
    assert np.all(np.isfinite(gradient))
    assert gradient[0] == (0.25 if gamma == 0 else 0)
    assert jaxctc.focal_loss(losses)[5] == np.inf


def test_errors_name_the_argument():
    logits, labels = jnp.zeros((3, 2)), jnp.array([1])
    with pytest.raises(ValueError, match="log_priors has shape"):
        jaxctc.ctc_prior_loss(logits, labels, log_priors=jnp.zeros(3))
    with pytest.raises(ValueError, match="other_logits has shape"):
        jaxctc.consistency_loss(logits, jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match="intermediate_logits has shape"):
        jaxctc.intermediate_ctc_loss(logits, logits, labels)
    with pytest.raises(ValueError, match="projection has shape"):
        jaxctc.self_condition(jnp.zeros((3, 4)), logits, jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="logits has shape"):
        jaxctc.self_condition(jnp.zeros((2, 4)), logits, jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"gamma is -1\.0; it must be finite and at least 0"):
        jaxctc.focal_loss(jnp.ones(3), gamma=-1.0)
    with pytest.raises(TypeError, match="losses has dtype int"):
        jaxctc.focal_loss(jnp.ones(3, int))
