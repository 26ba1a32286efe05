"""The CTC loss, its gradient and posteriors against all alignments, and against float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import loss_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import ctc_by_enumeration, ctc_by_recursion, log_softmax

import jaxctc


# Every tiny case in one shape: T = 6, C = 4, S = 4, all of them padded from what was drawn.
@settings(max_examples=60)
@given(data=st.data())
def test_losses_gradients_and_posteriors_are_those_of_all_alignments(data):
    blank = data.draw(st.integers(0, 3), "blank")
    classes = data.draw(st.integers(max(2, blank + 1), 4), "classes")
    frames = data.draw(st.integers(0, 6 if classes < 4 else 5), "frames")
    labels = data.draw(
        st.lists(st.sampled_from([c for c in range(classes) if c != blank]), max_size=4), "labels"
    )
    seed = data.draw(st.integers(0, 2**16), "seed")
    generator = np.random.default_rng(seed)
    logits = np.full((1, 6, 4), np.nan, np.float32)  # poison
    logits[0, :frames] = -np.inf  # classes not in use are masked out
    logits[0, :frames, :classes] = 3 * generator.standard_normal((frames, classes))
    padded = np.full((1, 4), data.draw(st.sampled_from([-1, 0, 3, 99]), "padding"))
    padded[0, : len(labels)] = labels
    lengths = np.array([frames]), np.array([len(labels)])

    log_probs = log_softmax(logits[0, :frames])
    want, posterior = ctc_by_enumeration(log_probs, labels, blank)
    losses, gradient = loss_and_gradient(logits, padded, *lengths, blank)
    np.testing.assert_allclose(losses[0], want, rtol=1e-5, atol=1e-6)
    want_gradient = np.exp(log_probs) - posterior if np.isfinite(want) else 0 * posterior
    np.testing.assert_allclose(gradient[0, :frames], want_gradient, atol=2e-6)
    np.testing.assert_array_equal(gradient[0, frames:], 0)
    feasible = jaxctc.is_feasible(padded, *lengths, blank_id=blank, num_classes=classes)
    assert feasible[0] == np.isfinite(want)

    by_label, by_blank = jaxctc.ctc_posteriors(logits, padded, *lengths, blank_id=blank)
    assert by_label.shape == (1, 6, 4)
    assert by_blank.shape == (1, 6)
    np.testing.assert_allclose(by_blank[0, :frames], posterior[:, blank], atol=2e-6)
    by_class = np.zeros((frames, 4))
    for s, c in enumerate(labels):
        by_class[:, c] += by_label[0, :frames, s]
    np.testing.assert_allclose(by_class, np.where(np.arange(4) == blank, 0, posterior), atol=2e-6)
    np.testing.assert_array_equal(by_label[0, frames:], 0)
    np.testing.assert_array_equal(by_blank[0, frames:], 0)
    np.testing.assert_array_equal(by_label[0, :, len(labels) :], 0)


@pytest.mark.usefixtures("compile_fully")
@pytest.mark.parametrize(
    ("frames", "spoken", "classes", "blank"),
    [(18, 7, 68, 67), (200, 30, 32, 0), (1500, 250, 32, 5), (5000, 800, 32, 0)],
)
@pytest.mark.parametrize("kind", ["random", "peaky", "flat"])
def test_float32_is_as_exact_as_float64_at_any_length(frames, spoken, classes, blank, kind):
    generator = np.random.default_rng(frames)
    labels = generator.integers(1, classes, spoken) + blank
    labels = np.where(labels >= classes, labels - classes, labels)
    labels[spoken // 2] = labels[spoken // 2 - 1]
    logits = {
        "random": 2 * generator.standard_normal((frames, classes)),
        "peaky": np.log(
            0.999 * (np.arange(classes) == generator.integers(0, classes, (frames, 1)))
            + 1e-3 / classes
        ),
        "flat": np.zeros((frames, classes)),
    }[kind].astype(np.float32)
    want, want_gradient = ctc_by_recursion(logits, labels, blank)
    losses, gradient = loss_and_gradient(logits[None], labels[None], None, None, blank)
    np.testing.assert_allclose(losses[0], want, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], want_gradient, atol=2e-5)
    np.testing.assert_allclose(gradient[0].sum(axis=-1), 0, atol=2e-5)
    posteriors = jaxctc.ctc_posteriors(logits, labels, blank_id=blank)
    np.testing.assert_allclose(posteriors.labels.sum(-1) + posteriors.blank, 1, atol=2e-5)


def test_a_confident_loss_is_not_negative_and_its_gradient_is_kept():
    logits = jnp.array([[0.0, 17.0], [0.0, 17.0]])  # the true loss is 1.7e-15
    assert 0 <= jaxctc.ctc_loss(logits, jnp.array([1])) < 1e-7
    # Where float32 rounds the probability above 1, a clamp would make the gradient 0.
    generator = np.random.default_rng(0)
    logits = jnp.asarray(generator.uniform(6, 9, (200, 2, 1)) * [[[0, 1.0]]], jnp.float32)
    labels = jnp.ones((200, 1), int)
    losses, gradient = loss_and_gradient(logits, labels)
    assert losses.min() >= 0
    for b in range(0, 200, 20):
        np.testing.assert_allclose(gradient[b], ctc_by_recursion(logits[b], [1], 0)[1], atol=1e-7)
    assert (np.abs(gradient[losses == 0]).max(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits(size):
    generator = np.random.default_rng(2)
    logits = (size * generator.choice([-1, 0, 1], (8, 12, 5))).astype(np.float32)
    labels = generator.integers(1, 5, (8, 4))
    losses, gradient = loss_and_gradient(logits, labels)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-5)
    for b in range(8):
        want, want_gradient = ctc_by_recursion(logits[b].astype(np.float64), labels[b], 0)
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        if size < 1e10:  # beyond, float64 does not know how many best paths there are
            np.testing.assert_allclose(gradient[b], want_gradient, atol=1e-5)
