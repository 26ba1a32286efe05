"""How frequent provinces are, by EM, and what that makes of readings, against brute force."""

import itertools

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2")

import jax.numpy as jnp  # noqa: E402

import jaxctc  # noqa: E402
from plates import provinces  # noqa: E402
from plates.calibration import text_losses  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")


def chances_of_texts(logits):
    """Returns the probability of each text of one plate, by the sum over all paths."""
    frames, classes = logits.shape
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chances = {}
    for path in itertools.product(range(classes), repeat=frames):
        text = tuple(c for c, _ in itertools.groupby(path) if c != classes - 1)
        chance = np.prod(softmax[range(frames), path])
        chances[text] = chances.get(text, 0) + chance
    return chances


def test_frequencies_are_the_most_probable_ones():
    rng = np.random.default_rng(0)
    true, count = np.array([0.7, 0.1, 0.2]), 4000
    kinds = rng.choice(3, count, p=true)
    seen = rng.normal(np.eye(3)[kinds])  # each kind with its mean, and much noise
    probabilities = np.exp(seen)  # their likelihoods, up to a factor of the plate
    found = provinces.frequencies(probabilities)
    np.testing.assert_allclose(found, true, atol=0.03)
    few = probabilities[:9]
    found = provinces.frequencies(few)
    assert found.sum() == pytest.approx(1)
    # The posterior, with Dirichlet's prior of one plate, has no other maximum.
    objective = lambda p: np.log(few @ p).sum() + np.log(p).sum() / 3  # noqa: E731
    for change in ([1, -1, 0], [0, 1, -1], [1, 0, -1]):
        for step in (-1e-3, 1e-3):
            assert objective(found + step * np.array(change)) < objective(found)


def test_provinces_that_are_frequent_are_read_more_often():
    charset = "1皖苏"  # classes 1 and 2 are provinces, 3 is the blank
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(2, 40, 3, 4)).astype(np.float32)
    logits[..., 1] += 1
    frequent = provinces.estimate(logits, charset)
    weights = np.exp(frequent.log_weights)
    assert weights[0] > 1.2 > 0.8 > weights[1]
    assert weights.mean() == pytest.approx(1)

    read = jaxctc.ctc_greedy_decode(logits, blank_id=3)
    given, lengths = np.asarray(read.labels), np.tile(read.lengths, (2, 1))
    labels, change = map(
        np.asarray, provinces.reweighted(frequent, jnp.asarray(logits), read.labels)
    )
    np.testing.assert_array_equal(labels[:2], given)
    np.testing.assert_array_equal(labels[2:, :, 1:], given[..., 1:])
    losses = [text_losses(logits, *each, 1.0) for each in zip(labels, lengths, strict=True)]

    begins = lambda text: (*text, 0)[0]  # noqa: E731
    weight = {0: 1.0, 1: weights[0], 2: weights[1]}
    for row in range(40):
        plates = [chances_of_texts(logits[view, row]) for view in range(2)]
        plates = [{text: p * weight[begins(text)] for text, p in one.items()} for one in plates]
        firsts = [
            np.prod([sum(p for text, p in one.items() if begins(text) == k) for one in plates])
            for k in (1, 2)
        ]
        best = 1 + int(np.argmax(firsts))
        before = given[:, row, 0]
        np.testing.assert_array_equal(labels[2:, row, 0], np.where(before > 0, best, before))
        for i in range(4):
            text = tuple(labels[i, row, : lengths[i, row]].tolist())
            if all(text in one for one in plates):
                expected = np.mean([-np.log(one[text] / sum(one.values())) for one in plates])
                found = losses[i][row] + change[i, row]
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            else:  # with the other province it is too long
                assert np.isinf(losses[i][row])
    assert (labels[2:, :, 0] != given[..., 0]).sum() > 3


def test_characters_without_provinces_are_refused():
    with pytest.raises(SystemExit, match="no provinces"):
        provinces.estimate(np.zeros((1, 1, 3, 4), np.float32), "123")
