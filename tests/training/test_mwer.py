"""Minimum word error rate training against plain formulas and all label sequences of tiny cases."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from published import DATA

import jaxctc


def plain_mwer(scores, errors):
    """Value, and gradient with respect to the scores, of one list."""
    exists = np.isfinite(scores)
    p = np.exp(scores - np.logaddexp.reduce(scores[exists]))
    above = np.where(exists, errors, 0) - errors[exists].mean()
    return (p * np.where(exists, above, 0)).sum(), p * np.where(
        exists, errors - (p * np.where(exists, errors, 0)).sum(), 0
    )


def test_numbers_of_k2():
    data = json.loads((DATA / "fsa.json").read_text())["cases"]
    case = next(c for c in data if c["type"] == "mwer")
    want = case["expected"]
    paths = jnp.array(want["paths"])
    for reference, errors, loss in zip(
        case["inputs"]["refs"], want["wers"], want["loss_per_utt"], strict=True
    ):
        references = jnp.broadcast_to(jnp.array(reference), (len(paths), len(reference)))
        found = jaxctc.edit_distance(paths, references)
        np.testing.assert_array_equal(found, errors)
        got = jaxctc.mwer_loss(jnp.log(jnp.array(want["path_probs"])), found)
        # The published value does not subtract the mean of the list.
        np.testing.assert_allclose(got + np.mean(errors), loss, rtol=1e-5)


@pytest.mark.parametrize("missing", [(), (3,), (0, 2), (1, 2, 3)])
def test_value_and_gradient_are_those_of_the_formula(x64, missing):
    rng = np.random.default_rng(0)
    scores, errors = 5 * rng.normal(size=(3, 4)) - 300, rng.integers(0, 5, (3, 4))
    scores[:, list(missing)] = -np.inf
    want = [plain_mwer(s, e) for s, e in zip(scores, errors, strict=True)]
    np.testing.assert_allclose(jaxctc.mwer_loss(scores, errors), [w[0] for w in want], atol=1e-12)
    gradient = jax.grad(lambda s: jaxctc.mwer_loss(s, errors).sum())(scores)
    np.testing.assert_allclose(gradient, [w[1] for w in want], atol=1e-12)
    assert np.all(np.asarray(gradient)[:, list(missing)] == 0)


def test_errors_of_missing_hypotheses_are_not_read():
    scores = jnp.array([-1.0, -jnp.inf, -2.0])
    value = jax.value_and_grad(jaxctc.mwer_loss)
    want = value(scores, jnp.array([1.0, 0.0, 3.0]))
    got = value(scores, jnp.array([1.0, jnp.nan, 3.0]))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("scores", [[], [-3.0], [-np.inf], [-np.inf, -np.inf]])
def test_fewer_than_two_hypotheses_give_zero(scores):
    scores = jnp.asarray(scores, jnp.float32)
    value, gradient = jax.value_and_grad(jaxctc.mwer_loss)(scores, jnp.ones(scores.shape))
    assert value == 0
    assert not np.any(gradient)


def test_nan_scores_give_nan_and_half_precision_is_widened():
    assert np.isnan(jaxctc.mwer_loss(jnp.array([jnp.nan, 0.0]), [0, 1]))
    scores = jnp.array([-1.0, -2.0], jnp.bfloat16)
    loss, gradient = jax.value_and_grad(jaxctc.mwer_loss)(scores, jnp.array([0, 1]))
    assert (loss.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)


def by_enumeration(logits, labels, blank_id):
    """Expected errors minus their mean, from every sequence that has an alignment."""
    frames, classes = logits.shape
    log_probs = oracles.log_softmax(logits)
    total = {}
    for path in itertools.product(range(classes), repeat=frames):
        y = oracles.collapse(path, blank_id)
        total[y] = total.get(y, 0) + np.exp(log_probs[np.arange(frames), path].sum())
    errors = {y: _edits(y, tuple(labels)) for y in total}
    mean = np.mean(list(errors.values()))
    return sum(p * (errors[y] - mean) for y, p in total.items()) / sum(total.values()), len(total)


def _edits(a, b):
    if not a or not b:
        return len(a) + len(b)
    change = _edits(a[:-1], b[:-1]) + (a[-1] != b[-1])
    return min(change, _edits(a[:-1], b) + 1, _edits(a, b[:-1]) + 1)


@pytest.mark.parametrize(
    ("labels", "blank_id", "frames"), [([0, 1], 2, 3), ([1, 1], 0, 3), ([], 1, 2)]
)
def test_a_beam_that_holds_everything_gives_the_exact_gradient(x64, labels, blank_id, frames):
    logits = np.random.default_rng(frames).normal(size=(frames, 3))
    want, count = by_enumeration(logits, labels, blank_id)

    def loss(logits):
        return jaxctc.ctc_mwer_loss(
            logits,
            jnp.array(labels, jnp.int32),
            beam_width=count + 3,  # empty places change nothing
            max_labels=frames,
            ctc_weight=0.0,
            blank_id=blank_id,
        )

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits))
    np.testing.assert_allclose(value, want, atol=1e-10)
    step, numeric = 1e-5, np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        change = np.zeros_like(logits)
        change[place] = step
        above, below = (by_enumeration(logits + s * change, labels, blank_id)[0] for s in (1, -1))
        numeric[place] = (above - below) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)


def case(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    logits = 2 * jax.random.normal(keys[0], (3, 9, 5), dtype)
    labels = jax.random.randint(keys[1], (3, 3), 1, 5)
    return logits, labels, jnp.array([9, 6, 0]), jnp.array([3, 2, 0])


def value_and_gradient(arguments, **options):
    def total(logits):
        losses = jaxctc.ctc_mwer_loss(logits, *arguments[1:], **options)
        return jnp.where(jnp.isfinite(losses), losses, 0).sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(arguments[0])
    return losses, gradient


def test_the_ctc_loss_is_added():
    without, _ = value_and_gradient(case(), ctc_weight=0.0)
    added, _ = value_and_gradient(case(), ctc_weight=0.5)
    np.testing.assert_allclose(added, without + 0.5 * jaxctc.ctc_loss(*case()), rtol=1e-6)


def test_padding_is_never_read():
    logits, labels, logit_lengths, label_lengths = case()
    want = value_and_gradient(case())
    outside = np.arange(9) >= np.asarray(logit_lengths)[:, None]
    logits = jnp.where(outside[..., None], jnp.nan, logits)
    labels = jnp.where(np.arange(3) >= np.asarray(label_lengths)[:, None], 77, labels)
    got = value_and_gradient((logits, labels, logit_lengths, label_lengths))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert not np.any(np.asarray(got[1])[outside])


def test_jit_batches_and_vmap_change_nothing():
    want = jaxctc.ctc_mwer_loss(*case())
    nested = [x[None] for x in case()]
    np.testing.assert_allclose(jaxctc.ctc_mwer_loss(*nested)[0], want, rtol=1e-6)
    got = jax.jit(jax.vmap(jaxctc.ctc_mwer_loss))(*case())
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.1])
@pytest.mark.parametrize("labels", [[1, 1, 1], [1, 9, 1], [1, 0, 1]])
def test_infeasible_is_inf_with_no_gradient(labels, ctc_weight):
    arguments = jnp.zeros((1, 3, 4)), jnp.array([labels]), None, None
    losses, gradient = value_and_gradient(arguments, ctc_weight=ctc_weight)
    assert losses == jnp.inf
    assert not np.any(gradient)


def test_masked_classes_and_half_precision():
    logits, *rest = case(jnp.bfloat16)
    logits = logits.at[:, :, 4].set(-jnp.inf)
    losses, gradient = value_and_gradient((logits, jnp.minimum(rest[0], 3), *rest[1:]))
    assert np.all(np.isfinite(losses))
    assert np.all(np.isfinite(gradient))
    assert (losses.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    assert not np.any(gradient[:, :, 4])


def test_descent_reduces_errors():
    """A confident mistake is unlearnt although the right labels are never forced by CTC."""
    labels = jnp.array([1, 2, 3])
    logits = 2.0 * jax.nn.one_hot(jnp.array([1, 0, 2, 0, 2, 0]), 4)

    def loss(x):
        return jaxctc.ctc_mwer_loss(x, labels, beam_width=8, ctc_weight=0.0)

    for _ in range(40):
        logits = logits - jax.grad(loss)(logits)
    best = jaxctc.ctc_beam_search(logits, beam_width=8)
    np.testing.assert_array_equal(best.labels[0, :3], labels)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="hypothesis_errors has shape"):
        jaxctc.mwer_loss(jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(TypeError, match="hypothesis_scores has dtype int"):
        jaxctc.mwer_loss(jnp.zeros(3, int), jnp.zeros(3))
    with pytest.raises(TypeError, match="hypothesis_errors has dtype bool"):
        jaxctc.mwer_loss(jnp.zeros(3), jnp.zeros(3, bool))
    with pytest.raises(ValueError, match="beam_width is 0"):
        jaxctc.ctc_mwer_loss(jnp.zeros((3, 2)), jnp.array([1]), beam_width=0)
    with pytest.raises(TypeError, match="ctc_weight is"):
        jaxctc.ctc_mwer_loss(jnp.zeros((3, 2)), jnp.array([1]), ctc_weight="much")
