"""Functions with the arguments of the CTC loss, against all alignments of tiny cases in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from ctc_cases import case

import jaxctc

PRIORS = np.log([0.6, 0.2, 0.15, 0.05])


def alignments(logits, labels, blank_id):
    """Log-probability and path of every alignment."""
    log_probs = oracles.log_softmax(logits)
    frames, classes = log_probs.shape
    for path in itertools.product(range(classes), repeat=frames):
        if oracles.collapse(path, blank_id) == tuple(labels):
            yield log_probs[np.arange(frames), path].sum(), path


def plain_entropy(logits, labels, blank_id):
    scores = np.array([s for s, _ in alignments(logits, labels, blank_id)])
    log_p = scores - np.logaddexp.reduce(scores)
    return -(np.exp(log_p) * log_p).sum()


def plain_prior_loss(logits, labels, blank_id):
    scores = [
        s - 0.4 * sum(PRIORS[c] for c in path) for s, path in alignments(logits, labels, blank_id)
    ]
    return -np.logaddexp.reduce(scores)


def prior_loss(*arguments, **options):
    return jaxctc.ctc_prior_loss(
        *arguments, log_priors=jnp.asarray(PRIORS), prior_weight=0.4, **options
    )


def two_layers(logits, *arguments, **options):
    layers = jnp.stack([0.5 * logits, logits**2])
    return jaxctc.intermediate_ctc_loss(logits, layers, *arguments, **options)


def focal(*arguments, **options):
    return jaxctc.focal_loss(jaxctc.ctc_loss(*arguments, **options))


# Each as a function of ctc_loss's arguments, and its value for an infeasible pair.
LIKE_CTC = {
    "entropy": (jaxctc.ctc_entropy, 0.0),
    "prior": (prior_loss, np.inf),
    "intermediate": (two_layers, np.inf),
    "focal": (focal, np.inf),
}


like_ctc = pytest.mark.parametrize("name", LIKE_CTC)


@pytest.mark.parametrize(("labels", "blank_id"), [([1, 2], 0), ([1, 1], 0), ([0, 3], 2), ([], 1)])
@pytest.mark.parametrize(
    ("ours", "plain"), [(jaxctc.ctc_entropy, plain_entropy), (prior_loss, plain_prior_loss)]
)
def test_equal_to_enumeration(x64, ours, plain, labels, blank_id):
    logits = np.random.default_rng(1).normal(size=(4, 4))
    value, gradient = jax.value_and_grad(
        lambda x: ours(x, jnp.array(labels, jnp.int32), blank_id=blank_id)
    )(jnp.asarray(logits))
    np.testing.assert_allclose(value, plain(logits, labels, blank_id), atol=1e-10)
    want = oracles.numeric_gradient(lambda x: plain(x, labels, blank_id), logits)
    np.testing.assert_allclose(gradient, want, atol=1e-8)


def value_and_gradient(function, arguments, **options):
    def total(logits):
        values = function(logits, *arguments[1:], **options)
        return jnp.where(jnp.isfinite(values), values, 0).sum(), values

    gradient, values = jax.grad(total, has_aux=True)(arguments[0])
    return values, gradient


@like_ctc
def test_float32_is_float64_for_longer_inputs(name):
    function, _ = LIKE_CTC[name]
    got = value_and_gradient(function, case())
    with jax.enable_x64(True):
        want = value_and_gradient(function, (case()[0].astype(jnp.float64), *case()[1:]))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got[1], want[1], atol=1e-5)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e6), (100.0, 0.0)])
@pytest.mark.parametrize("name", ["entropy", "prior"])
def test_float32_is_float64_for_large_logits(name, scale, offset):
    function, _ = LIKE_CTC[name]
    logits, *rest = case()
    logits = jnp.round(16 * scale * logits) / 16 + offset  # no rounding in float32
    got = value_and_gradient(function, (logits, *rest))
    with jax.enable_x64(True):
        want = value_and_gradient(function, (logits.astype(jnp.float64), *rest))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got[1], want[1], atol=1e-5)


@like_ctc
def test_padding_is_never_read(name):
    function, _ = LIKE_CTC[name]
    logits, labels, logit_lengths, label_lengths = case()
    want = value_and_gradient(function, case())
    outside = np.arange(60) >= np.asarray(logit_lengths)[:, None]
    logits = jnp.where(outside[..., None], jnp.nan, logits)
    labels = jnp.where(np.arange(4) >= np.asarray(label_lengths)[:, None], -5, labels)
    got = value_and_gradient(function, (logits, labels, logit_lengths, label_lengths))
    np.testing.assert_array_equal(got[0], want[0])
    if name != "intermediate":  # there the test itself squares the padding
        np.testing.assert_array_equal(got[1], want[1])
        assert not np.any(np.asarray(got[1])[outside])


@like_ctc
def test_jit_vmap_and_half_precision(name):
    function, _ = LIKE_CTC[name]
    want = function(*case())
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(*case()), want, rtol=1e-5)
    values, gradient = value_and_gradient(function, case(jnp.bfloat16))
    assert (values.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    assert np.all(np.isfinite(gradient.astype(jnp.float32)))


@like_ctc
@pytest.mark.parametrize("labels", [[1, 1], [1, 9], [0, 1]])
def test_infeasible_has_its_value_and_no_gradient(name, labels):
    function, value = LIKE_CTC[name]
    arguments = jnp.ones((1, 2, 4)), jnp.array([labels]), None, None
    got, gradient = value_and_gradient(function, arguments)
    assert got == value
    assert not np.any(gradient)


@like_ctc
def test_masked_classes_are_legal_and_nan_is_seen(name):
    function, _ = LIKE_CTC[name]
    logits, labels, *lengths = case()
    masked = logits.at[:, :, 0].set(jnp.where(jnp.arange(60) % 3 == 0, -jnp.inf, logits[:, :, 0]))
    if name != "intermediate":  # there the test itself squares the infinity
        values, gradient = value_and_gradient(function, (masked, labels, *lengths))
        assert np.all(np.isfinite(values))
        assert np.all(np.isfinite(gradient))
    broken = logits.at[0, 3, 2].set(jnp.nan)
    np.testing.assert_array_equal(
        np.isnan(function(broken, labels, *lengths)), [True, False, False]
    )


def test_entropy_of_one_alignment_is_zero():
    assert jaxctc.ctc_entropy(jnp.ones((3, 2)), jnp.array([1, 1])) == 0
    assert jaxctc.ctc_entropy(jnp.ones((0, 2)), jnp.array([], jnp.int32)) == 0


def test_descent_on_entropy_spreads_alignments():
    labels = jnp.array([1])
    logits = 4 * jax.nn.one_hot(jnp.array([0, 0, 1, 0, 0]), 2)
    peak = jaxctc.ctc_posteriors(logits, labels).labels.max()
    for _ in range(20):
        logits = logits + jax.grad(jaxctc.ctc_entropy)(logits, labels)
    assert jaxctc.ctc_posteriors(logits, labels).labels.max() < peak


def test_priors_are_mean_probabilities():
    logits, _, lengths, _ = case()
    probabilities = np.exp(oracles.log_softmax(logits))
    inside = np.arange(60) < np.asarray(lengths)[:, None]
    want = np.log(probabilities[inside].mean(0))
    poisoned = jnp.where(inside[..., None], logits, jnp.nan)
    np.testing.assert_allclose(jaxctc.ctc_label_priors(poisoned, lengths), want, atol=1e-6)
    nothing = jaxctc.ctc_label_priors(jnp.zeros((2, 0, 4)))
    np.testing.assert_allclose(jnp.exp(nothing), 0.25)


def test_without_weight_priors_change_nothing_and_are_constants():
    loss = jaxctc.ctc_loss(*case())
    got = jaxctc.ctc_prior_loss(*case(), log_priors=jnp.asarray(PRIORS), prior_weight=0.0)
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    gradient = jax.grad(lambda p: jaxctc.ctc_prior_loss(*case(), log_priors=p).sum())(
        jnp.asarray(PRIORS, jnp.float32)
    )
    assert not np.any(gradient)
