"""The CTC loss in batches, under jit, vmap and derivatives of any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_cases import loss_and_gradient

import jaxctc


def test_leading_batch_dimensions(ragged):
    logits, labels, frames, lengths, _ = ragged
    flat = jaxctc.ctc_loss(logits, labels, frames, lengths)
    shaped = jaxctc.ctc_loss(
        logits.reshape(2, 3, 9, 5),
        labels.reshape(2, 3, 4),
        frames.reshape(2, 3),
        lengths.reshape(2, 3),
    )
    np.testing.assert_array_equal(shaped, flat.reshape(2, 3))
    one = jaxctc.ctc_loss(logits[0], labels[0], frames[0], lengths[0])
    assert one.shape == ()
    np.testing.assert_allclose(one, flat[0], rtol=1e-6)
    empty = jaxctc.ctc_loss(logits[:0], labels[:0], frames[:0], lengths[:0])
    assert empty.shape == (0,)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmap_in_any_axis(ragged, axis):
    logits, labels, frames, lengths, _ = ragged
    want, want_gradient = loss_and_gradient(logits, labels, frames, lengths)
    moved = jnp.moveaxis(logits, 0, axis)

    def loss(logits, labels, frames, lengths):
        return jaxctc.ctc_loss(logits, labels, frames, lengths)

    got, gradient = jax.jit(
        jax.vmap(jax.value_and_grad(loss), in_axes=(axis, 1, 0, 0), out_axes=(0, axis))
    )(moved, labels.T, frames, lengths)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(jnp.moveaxis(gradient, axis, 0), want_gradient, atol=1e-6)


def test_the_same_bits_every_time(ragged):
    logits, labels, frames, lengths, _ = ragged
    first = loss_and_gradient(logits, labels, frames, lengths)
    second = loss_and_gradient(logits, labels, frames, lengths)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_forward_mode_hessian_and_nesting(ragged):
    logits, labels, frames, lengths, feasible = ragged
    with jax.enable_x64(True):
        logits = jnp.asarray(logits, jnp.float64)

        def loss(x):
            return jaxctc.ctc_loss(x, labels, frames, lengths).sum(where=feasible)

        gradient = jax.jit(jax.grad(loss))
        direction = jnp.cos(1 + jnp.arange(logits.size, dtype=jnp.float64)).reshape(logits.shape)
        _, along = jax.jit(lambda x, v: jax.jvp(loss, [x], [v]))(logits, direction)
        np.testing.assert_allclose(along, (gradient(logits) * direction).sum(), rtol=1e-12)

        _, product = jax.jit(lambda x, v: jax.jvp(jax.grad(loss), [x], [v]))(logits, direction)
        step = 1e-6
        ahead, behind = gradient(logits + step * direction), gradient(logits - step * direction)
        np.testing.assert_allclose(product, (ahead - behind) / (2 * step), atol=1e-8)
        reverse = jax.jit(lambda x, v: jax.grad(lambda x: (jax.grad(loss)(x) * v).sum())(x))(
            logits, direction
        )
        np.testing.assert_allclose(reverse, product, atol=1e-12)

    def small(x):
        return jaxctc.ctc_loss(x, jnp.array([1, 1]))

    hessian = jax.hessian(small)(jnp.asarray(logits[0, :4], jnp.float32)).reshape(20, 20)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-6)
    np.testing.assert_allclose(hessian.sum(axis=0), 0, atol=1e-6)


def test_lengths_may_be_anything_array_like(ragged):
    logits, labels, frames, lengths, _ = ragged
    want = jaxctc.ctc_loss(logits, labels, frames, lengths)
    got = jaxctc.ctc_loss(logits, labels.tolist(), tuple(frames), lengths.astype(np.uint8))
    np.testing.assert_array_equal(got, want)


def test_a_second_call_compiles_nothing(ragged):
    logits, labels, frames, lengths, _ = ragged
    jaxctc.ctc_loss(logits, labels, frames, lengths)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        logged = []
        patch.setattr("logging.Logger.handle", lambda self, record: logged.append(record))
        jaxctc.ctc_loss(logits, labels, frames, lengths)
    assert not [r for r in logged if "Compiling" in r.getMessage()]
