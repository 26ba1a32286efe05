"""The drop-ins for Keras against Keras' own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import DATA

from jaxctc.compat import keras

KERAS = dict(np.load(DATA / "keras_ctc.npz"))
OUTPUT, TARGET, WEIGHTS = KERAS["output"], KERAS["target"], KERAS["sample_weight"]
LENGTHS = KERAS["target_length"], KERAS["output_length"]
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


def test_numbers_of_ops():
    losses = keras.ctc_loss(TARGET, OUTPUT, *LENGTHS)
    np.testing.assert_allclose(losses, KERAS["loss"], rtol=2e-6)
    losses = jax.jit(keras.ctc_loss, static_argnums=4)(KERAS["target_mask_2"], OUTPUT, *LENGTHS, 2)
    np.testing.assert_allclose(losses, KERAS["loss_mask_2"], rtol=2e-6)


def test_numbers_of_losses():
    np.testing.assert_allclose(keras.ctc(TARGET, OUTPUT), KERAS["full_loss"], rtol=2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions(reduction):
    loss = keras.CTC(reduction=reduction)
    np.testing.assert_allclose(loss(TARGET, OUTPUT), KERAS[f"reduced.{reduction}"], rtol=2e-6)
    weighted = jax.jit(loss)(TARGET, OUTPUT, sample_weight=WEIGHTS)
    np.testing.assert_allclose(weighted, KERAS[f"weighted.{reduction}"], rtol=2e-6)


def test_labels_are_whole_floats_where_keras_makes_them_so():
    floats = TARGET.astype(np.float32)
    np.testing.assert_array_equal(keras.CTC()(floats, OUTPUT), keras.CTC()(TARGET, OUTPUT))
    np.testing.assert_array_equal(
        jax.jit(keras.ctc_loss)(floats, OUTPUT, *LENGTHS), keras.ctc_loss(TARGET, OUTPUT, *LENGTHS)
    )
    broken = np.where(np.arange(TARGET.shape[1]) == 0, 1.5, floats)
    assert np.isinf(jax.jit(keras.ctc)(broken, OUTPUT)).all()
    with pytest.raises(ValueError, match=r"^y_true has the value 1\.5; it must be whole numbers"):
        keras.ctc(broken, OUTPUT)


def test_what_cannot_be_aligned_is_infinite_and_may_be_left_out():
    target = np.where(np.arange(5)[:, None] == 2, 1, TARGET)  # four ones need seven frames
    short = OUTPUT[:, :6]
    np.testing.assert_array_equal(np.isinf(keras.ctc(target, short)), np.arange(5) == 2)

    def total(output):
        return keras.CTC("sum")(target, output, sample_weight=np.array([1, 1, 0, 1, 1]))

    value, gradient = jax.value_and_grad(total)(jnp.asarray(short))
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient[2], 0)
    assert (np.abs(gradient).max(axis=(1, 2)) > 0).sum() == 4
    assert keras.CTC("mean_with_sample_weight")(TARGET, OUTPUT, np.zeros(5)) == 0
    assert keras.CTC()(TARGET[:0], OUTPUT[:0]).shape == (0,)  # as in Keras


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: keras.ctc(TARGET, OUTPUT[0]),
            r"^y_pred has shape \(12, 6\); it must be \(batch_size, max_length, num_classes\)\.$",
        ),
        (lambda: keras.ctc(TARGET[0], OUTPUT), r"^y_true has shape \(4,\); it must be \[5, S\]\.$"),
        (
            lambda: keras.ctc_loss(TARGET, OUTPUT[0], *LENGTHS),
            r"^output has shape \(12, 6\); it must be \(batch_size, max_output_length, num_cla",
        ),
        (
            lambda: keras.ctc_loss(TARGET, OUTPUT, LENGTHS[0][:1], LENGTHS[1]),
            r"^target_length has shape \(1,\); it must be \(5,\)\.$",
        ),
        (
            lambda: keras.ctc_loss(TARGET, OUTPUT, LENGTHS[0], LENGTHS[1] + 1),
            r"^output_length has the value 13; it must be in 0…12\.$",
        ),
        (
            lambda: keras.ctc_loss(TARGET, OUTPUT, *LENGTHS, mask_index=6),
            r"^mask_index is 6; it must be a class, in 0…5\.$",
        ),
        (lambda: keras.CTC(reduction="avg"), r"^reduction is 'avg'; it must be one of"),
        (
            lambda: keras.CTC()(TARGET, OUTPUT, np.ones(4)),
            r"^sample_weight has shape \(4,\); it must be \(5,\)\.$",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
