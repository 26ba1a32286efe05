"""The drop-in for optax against optax itself."""

import jax
import numpy as np
import optax
import pytest

from jaxctc import compat


@pytest.fixture(scope="module")
def optax_batch():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((6, 20, 7)).astype(np.float32)
    labels = generator.integers(1, 7, (6, 5))
    labels[2, 1] = labels[2, 0]
    frames, lengths = np.array([20, 15, 12, 20, 9, 1]), np.array([5, 3, 4, 0, 5, 1])
    logit_paddings = (np.arange(20) >= frames[:, None]).astype(np.float32)
    label_paddings = (np.arange(5) >= lengths[:, None]).astype(np.float32)
    return (logits, logit_paddings, labels, label_paddings), lengths


@pytest.mark.parametrize("blank", [0, 6])
def test_optax_numbers(optax_batch, blank):
    (logits, logit_paddings, labels, label_paddings), lengths = optax_batch
    labels = labels if blank == 0 else labels - 1
    arguments = logits, logit_paddings, labels, label_paddings
    with jax.numpy_rank_promotion("allow"):
        want, want_blank, want_label = optax.ctc_loss_with_forward_probs(*arguments, blank_id=blank)
        want_gradient = jax.grad(lambda x: optax.ctc_loss(x, *arguments[1:], blank_id=blank).sum())(
            logits
        )
    loss, by_blank, by_label = compat.optax.ctc_loss_with_forward_probs(*arguments, blank_id=blank)
    np.testing.assert_allclose(loss, want, rtol=2e-6)
    np.testing.assert_array_equal(compat.optax.ctc_loss(*arguments, blank_id=blank), loss)
    gradient = jax.jit(
        jax.grad(lambda x: compat.optax.ctc_loss(x, *arguments[1:], blank_id=blank).sum())
    )(logits)
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-5)
    assert by_blank.shape == want_blank.shape
    assert by_label.shape == want_label.shape
    for b in range(6):
        for got, expected, states in (
            (by_blank, want_blank, lengths[b] + 1),
            (by_label, want_label, lengths[b]),
        ):
            got, expected = np.asarray(got)[:, b, :states], np.asarray(expected)[:, b, :states]
            # optax counts what can't be reached down from -1e5.
            reached = expected > -9e4
            np.testing.assert_allclose(got[reached], expected[reached], rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(got[~reached], -1e5)


def test_optax_errors(optax_batch):
    (logits, logit_paddings, labels, label_paddings), _ = optax_batch
    with pytest.raises(
        ValueError, match=r"^logit_paddings has shape \(6, 19\); it must be \(6, 20\)"
    ):
        compat.optax.ctc_loss(logits, logit_paddings[:, 1:], labels, label_paddings)
    with pytest.raises(
        ValueError, match=r"^label_paddings has padding before the end; it must come"
    ):
        compat.optax.ctc_loss(logits, logit_paddings, labels, 1 - label_paddings)


def test_padding_elsewhere_is_infinite_under_jit(optax_batch):
    """Where values can't be seen: optax skips such frames, and would give another finite loss."""
    (logits, logit_paddings, labels, label_paddings), _ = optax_batch
    jitted = jax.jit(compat.optax.ctc_loss)
    want = jitted(logits, logit_paddings, labels, label_paddings)
    assert np.isfinite(want).any()
    early = np.asarray(logit_paddings).copy()
    early[0, 0] = 1
    got = jitted(logits, early, labels, label_paddings)
    assert np.isinf(got[0])
    np.testing.assert_array_equal(got[1:], want[1:])
    early = np.asarray(label_paddings).copy()
    early[1] = np.arange(early.shape[1]) == 0
    got = jitted(logits, logit_paddings, labels, early)
    assert np.isinf(got[1])
    np.testing.assert_array_equal(got[2:], want[2:])
