"""Confidence, temperature, and what is accepted, against brute force."""

import itertools

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2")

import jax  # noqa: E402
from scipy import stats  # noqa: E402

from plates import calibration  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def sampled():
    """Logits of one view, and texts drawn from what they say at temperature 2."""
    rng = np.random.default_rng(0)
    count, frames, classes = 300, 5, 4
    logits = 3 * rng.normal(size=(1, count, frames, classes)).astype(np.float32)
    chances = np.asarray(jax.nn.softmax(logits[0] / 2))
    labels, lengths = np.zeros((count, frames), np.int32), np.zeros(count, np.int32)
    for i in range(count):
        path = [rng.choice(classes, p=p / p.sum()) for p in chances[i].astype(float)]
        text = [c for c, _ in itertools.groupby(path) if c != classes - 1]
        labels[i, : len(text)], lengths[i] = text, len(text)
    return logits, labels, lengths


def test_the_temperature_is_that_of_the_texts_and_the_best(sampled):
    found = calibration.fit_temperature(*sampled)
    assert 1.6 < found < 2.4
    prior = lambda t: 0.5 * (np.log(t) / calibration.DEVIATION) ** 2  # noqa: E731
    cost = lambda t: float(calibration.text_losses(*sampled, t).sum()) + prior(t)  # noqa: E731
    assert cost(found) <= min(cost(t) for t in np.geomspace(0.5, 8, 33)) + 3e-4


def test_texts_that_are_all_right_do_not_make_the_temperature_0(sampled):
    logits, labels, lengths = sampled
    sure = logits.copy()
    sure[..., -1] = 12.0  # all blank, and the texts are empty
    assert 0.5 < calibration.fit_temperature(sure, labels, 0 * lengths) < 1


def test_a_plate_has_no_part_in_its_own_temperature(sampled):
    logits, labels, lengths = sampled
    first = calibration.cross_validated(logits, (labels, lengths), (labels, lengths))
    other = lengths.copy()
    fold = np.arange(len(lengths)) % 5 == 0
    other[fold] = 0
    second = calibration.cross_validated(logits, (labels, other), (labels, lengths))
    np.testing.assert_allclose(first[fold], second[fold], rtol=1e-5)
    assert (first[~fold] != second[~fold]).all()
    assert ((first > 0) & (first < 1)).all()


def test_views_count_as_their_geometric_mean(sampled):
    logits, labels, lengths = sampled
    two = np.concatenate([logits, logits[:, ::-1]])
    alone = [calibration.text_losses(view[None], labels, lengths, 1.5) for view in two]
    together = calibration.text_losses(two, labels, lengths, 1.5)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-5)


def test_reliability_and_its_error():
    confidences = np.array([0.9, 0.2, 0.6, 1.0])
    right = np.array([True, False, False, True])
    bins = calibration.reliability(confidences, right, 2)
    assert bins == [(0.4, 0.0, 2), (0.95, 1.0, 2)]
    assert calibration.calibration_error(confidences, right, 2) == pytest.approx(0.225)
    # More bins than plates: one each.
    error = np.abs(confidences - right).mean()
    assert calibration.calibration_error(confidences, right, 9) == pytest.approx(error)


def test_what_is_accepted_is_the_most_that_is_right_enough():
    rng = np.random.default_rng(0)
    for target in (0.5, 0.8, 1.0):
        for _ in range(50):
            confidences, right = rng.integers(0, 6, 12) / 5, rng.random(12) < 0.8
            found = calibration.acceptance(confidences, right, target)
            best = 0.0
            for threshold in np.unique(confidences):
                accepted = confidences >= threshold
                if right[accepted].mean() >= target:
                    best = max(best, accepted.mean())
            assert found.share == pytest.approx(best)
            accepted = confidences >= found.threshold
            assert accepted.mean() == pytest.approx(best)
            if best:
                assert found.right == pytest.approx(right[accepted].mean())


@pytest.mark.parametrize(("right", "count"), [(239, 250), (150, 150), (0, 7), (3, 10)])
def test_wilson_is_that_of_scipy(right, count):
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(calibration.wilson(right, count), expected, atol=1e-4)
