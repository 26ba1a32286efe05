"""Error messages of malformed calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc
from jaxctc.core import checks

LOGITS = np.zeros((2, 5, 4), np.float32)
LABELS = np.array([[1, 2], [3, 1]])
SHARED = [
    (
        TypeError,
        {"logits": np.zeros((2, 5, 4), int)},
        r"logits has dtype int\d+; it must be floating",
    ),
    (
        TypeError,
        {"logits": LOGITS.astype(complex)},
        r"logits has dtype complex\d+; it must be float",
    ),
    (TypeError, {"logits": None}, r"logits has dtype object; it must be floating-point"),
    (TypeError, {"logits": "logits"}, r"logits has dtype <U6; it must be floating-point"),
    (
        ValueError,
        {"logits": [LOGITS[0], LOGITS[1, :4]]},
        r"logits has rows of different lengths; they must have one",
    ),
    (
        ValueError,
        {"logits": LOGITS[0, 0]},
        r"logits has shape \(4,\); it must be \[\*batch, T, C\]",
    ),
    (
        ValueError,
        {"logits": LOGITS[..., :0]},
        r"logits has shape \(2, 5, 0\); there must be at least",
    ),
    (TypeError, {"labels": LABELS * 1.0}, r"labels has dtype float64; it must be an integer type"),
    (TypeError, {"labels": LABELS > 1}, r"labels has dtype bool; it must be an integer type"),
    (TypeError, {"labels": None}, r"labels has dtype object; it must be an integer type"),
    (
        ValueError,
        {"labels": [[1, 2], [3]]},
        r"labels has rows of different lengths; they must have one",
    ),
    (
        ValueError,
        {"labels": [*LABELS, LABELS[0]]},
        r"labels has the batch axes \(3,\); they must broadcast with \(2,\)",
    ),
    (ValueError, {"labels": np.array(1)}, r"labels has shape \(\); it must be \[\*batch, S\]"),
    (
        TypeError,
        {"logit_lengths": [5.0, 5.0]},
        r"logit_lengths has dtype float64; it must be an int",
    ),
    (
        ValueError,
        {"logit_lengths": [[5], [5, 5]]},
        r"logit_lengths has rows of different lengths; they must have one",
    ),
    (
        ValueError,
        {"logit_lengths": [5, 5, 5]},
        r"logit_lengths has the batch axes \(3,\); they must broadcast with \(2,\)",
    ),
    (ValueError, {"logit_lengths": [5, 6]}, r"logit_lengths has the value 6; it must be in 0…5"),
    (ValueError, {"logit_lengths": [-1, 5]}, r"logit_lengths has the value -1; it must be in 0…5"),
    (ValueError, {"label_lengths": [2, 3]}, r"label_lengths has the value 3; it must be in 0…2"),
    (
        ValueError,
        {"label_lengths": [[2, 2, 2]]},
        r"label_lengths has the batch axes \(1, 3\); they must broadcast with \(2,\)",
    ),
    (ValueError, {"blank_id": 4}, r"blank_id is 4; it must be a class, in 0…3"),
    (ValueError, {"blank_id": -1}, r"blank_id is -1; it must be a class, in 0…3"),
    (
        TypeError,
        {"blank_id": 0.0},
        r"blank_id has type float; it must be an int known while tracing",
    ),
]


@pytest.mark.parametrize("function", [jaxctc.ctc_loss, jaxctc.ctc_posteriors])
@pytest.mark.parametrize(("error", "change", "message"), SHARED)
def test_logits_and_labels(function, error, change, message):
    with pytest.raises(error, match=f"^{message}.*\\.$"):
        function(**{"logits": LOGITS, "labels": LABELS, **change})


def test_feasibility():
    with pytest.raises(
        TypeError, match=r"^labels has dtype float64; it must be an integer type\.$"
    ):
        jaxctc.is_feasible([[1.0]], [3])
    with pytest.raises(ValueError, match=r"^logit_lengths has the batch axes \(2,\); they must br"):
        jaxctc.is_feasible([[1]] * 3, [3, 3])
    with pytest.raises(ValueError, match=r"^label_lengths has the value 2; it must be in 0…1\.$"):
        jaxctc.is_feasible([[1]], [3], [2])


@pytest.mark.parametrize("change", [{"blank_id": -1}, {"blank_id": 4}, {"num_classes": 0}])
def test_feasibility_of_no_classes(change):
    with pytest.raises(ValueError, match=r"^(blank_id|num_classes) is (-1|4|0); it must be"):
        jaxctc.is_feasible(**{"labels": [[1]], "logit_lengths": [3], "num_classes": 4, **change})
    with pytest.raises(TypeError, match=r"^logit_lengths is None; it must be an integer array"):
        jaxctc.is_feasible([[1]], None)


def test_concrete_lengths_are_checked_inside_another_jit():
    with pytest.raises(ValueError, match=r"^logit_lengths has the value 6; it must be in 0…5\."):
        jax.jit(lambda x: jaxctc.ctc_loss(x, LABELS, np.array([5, 6])))(LOGITS)


def test_integers_beyond_int32_are_not_wrapped():
    """2**32 + 1 must not become the class 1."""
    labels = np.array([[2**32 + 1, 2], [3, 1]])
    assert jaxctc.ctc_loss(LOGITS, labels)[0] == jnp.inf
    with jax.enable_x64(True):
        assert jaxctc.ctc_loss(LOGITS, jnp.asarray(labels))[0] == jnp.inf


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32, np.int64, np.uint64])
def test_integers_of_any_type_become_the_nearest_int32(dtype, x64):
    limits = np.iinfo(dtype)
    given = np.array([limits.min, 5, limits.max], dtype)
    for array in (given, jnp.asarray(given)):
        found = checks.integer_array("labels", array)
        assert found.dtype == np.int32
        assert found.tolist() == [max(limits.min, -(2**31)), 5, min(limits.max, 2**31 - 1)]
