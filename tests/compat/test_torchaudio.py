"""The drop-ins for torchaudio against torchaudio's own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import DATA

from jaxctc.compat import torch

ALIGN, RNNT = (np.load(DATA / f"torchaudio_{name}.npz") for name in ("align", "rnnt"))


def case_of(data, name):
    return {k.split(".")[1]: data[k] for k in data.files if k.startswith(f"{name}.")}


@pytest.mark.parametrize("name", [f"{n:02d}" for n in range(15) if n != 11])
def test_paths_and_scores(name):
    """In case 11 skipping and advancing tie: torchaudio's path is then not the best."""
    case = case_of(ALIGN, name)
    log_probs, targets = case["log_probs"][None], case["targets"][None]
    path, scores = torch.forced_align(log_probs, targets, blank=int(case["blank"]))
    assert path.shape == scores.shape == log_probs.shape[:2]
    np.testing.assert_array_equal(path[0], case["path"])
    # Also where log-probabilities are rounded, and do not add up to 1.
    np.testing.assert_array_equal(scores[0], log_probs[0, np.arange(len(path[0])), path[0]])
    if int(name) % 3 != 2:
        np.testing.assert_allclose(scores[0], case["scores"], atol=1e-6)


LOG_PROBS = np.log(np.full((1, 5, 4), 0.25, np.float32))


def test_lengths_and_what_cannot_be_aligned():
    targets = np.array([[1, 2, 2]])
    want = torch.forced_align(LOG_PROBS, targets)
    for lengths in (([5], [3]), (np.array([5]), jnp.array([3])), (None, [3])):
        got = torch.forced_align(LOG_PROBS, targets, *lengths)
        np.testing.assert_array_equal(got[0], want[0])
    align = jax.jit(torch.forced_align)
    np.testing.assert_array_equal(align(LOG_PROBS, targets, [5], [3])[0], want[0])
    for wrong in ([[1, 0, 2]], [[1, 4, 2]], [[1, -1, 2]], [[1, 1, 1, 1]]):
        path, scores = align(LOG_PROBS, np.array(wrong))
        assert (path == -1).all()
        assert (scores == -np.inf).all()
    masked = np.where(np.arange(4) == 2, -np.inf, LOG_PROBS).astype(np.float32)
    path, scores = torch.forced_align(masked, targets)
    assert (path == -1).all()
    assert (scores == -np.inf).all()


def test_scores_are_differentiable():
    gradient = jax.grad(lambda x: torch.forced_align(x, np.array([[1, 2]]))[1].sum())(LOG_PROBS)
    path = torch.forced_align(LOG_PROBS, np.array([[1, 2]]))[0]
    np.testing.assert_array_equal(gradient, np.eye(4)[np.asarray(path)])


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, (LOG_PROBS[0], [[1]]), r"log_probs has shape \(5, 4\); it must be \(1, T, C"),
        (
            ValueError,
            (np.concatenate([LOG_PROBS] * 2), [[1], [1]]),
            r"log_probs has shape \(2, 5, 4\); it must be \(1, T, C\)\. For a batch, use jaxc",
        ),
        (ValueError, (LOG_PROBS, [1]), r"targets has shape \(1,\); it must be \[1, S\]"),
        (TypeError, (LOG_PROBS, [[1.0]]), r"targets has dtype float64; it must be an integer"),
        (ValueError, (LOG_PROBS, [[1, 0]]), r"targets has the value 0; it must not be the blank"),
        (ValueError, (LOG_PROBS, [[1, 4]]), r"targets has the value 4; it must be a class, in 0…3"),
        (ValueError, (LOG_PROBS, [[1, -1]]), r"targets has the value -1; it must be a class, in"),
        (
            ValueError,
            (LOG_PROBS, [[1, 1, 2, 2]]),
            r"targets need 6 frames, 2 of them for blanks between equal labels; there are 5",
        ),
        (ValueError, (LOG_PROBS, [[1]], [4]), r"input_lengths has the value 4; it must be 5"),
        (ValueError, (LOG_PROBS, [[1]], [5], [2]), r"target_lengths has the value 2; it must be 1"),
        (
            ValueError,
            (LOG_PROBS, [[1]], [5, 5]),
            r"input_lengths has shape \(2,\); it must be \(1,\)",
        ),
        (ValueError, (LOG_PROBS, [[1]], None, None, 4), r"blank is 4; it must be a class, in 0…3"),
    ],
)
def test_errors(error, arguments, message):
    with pytest.raises(error, match=f"^{message}"):
        torch.forced_align(*arguments)


def test_the_class_is_the_function():
    case = case_of(RNNT, "00")
    arguments = [case[k] for k in ("logits", "targets", "logit_lengths", "target_lengths")]
    arguments[0] = arguments[0].astype(np.float32)
    for options in ({}, {"reduction": "none", "blank": 0}, {"reduction": "sum", "clamp": 0.1}):
        got = jax.jit(torch.RNNTLoss(**options))(*arguments)
        np.testing.assert_allclose(got, torch.rnnt_loss(*arguments, **options), rtol=1e-6)
    with pytest.raises(ValueError, match=r"^reduction is 'max'; it must be one of"):
        torch.RNNTLoss(reduction="max")
    with pytest.raises(ValueError, match=r"^clamp is nan; it must be finite"):
        torch.RNNTLoss(clamp=np.nan)
    with pytest.raises(TypeError, match=r"^fused_log_softmax is 1; it must be True or False"):
        torch.RNNTLoss(fused_log_softmax=1)  # type: ignore[arg-type]


def test_lengths_of_transducers_are_one_a_sequence():
    logits, targets = np.zeros((2, 3, 3, 4), np.float32), np.ones((2, 2), int)
    with pytest.raises(ValueError, match=r"^target_lengths has shape \(1,\); it must be \(2,\)\.$"):
        torch.rnnt_loss(logits, targets, [3, 3], [2])
    for reduction in ("none", "mean", "sum"):
        with pytest.raises(
            ValueError, match=r"^logits has shape \(0, 3, 3, 4\); it must not be em"
        ):
            torch.rnnt_loss(logits[:0], targets[:0], [], [], reduction=reduction)
