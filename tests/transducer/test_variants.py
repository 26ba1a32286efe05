"""What holds for every loss of a transducer's kind: transformations, precision, broken logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc

B, T, U, C = 3, 6, 3, 5
LOGITS = np.random.default_rng(5).standard_normal((B, T, U + 1, C))
LABELS, FRAMES, LENGTHS = np.array([[1, 2, 2], [4, 3, 9], [1, 9, 9]]), [6, 4, 3], [3, 2, 1]
PAIR = tuple(map(np.array, (LABELS, FRAMES, LENGTHS)))


def hat(x, labels, frames, lengths):
    arcs = jaxctc.hat_log_probs(x, labels, frames, lengths)
    return jaxctc.rnnt_loss_from_log_probs(*arcs, frames, lengths)


def from_joint(x, *pair):
    encoder, predictor = x[..., 0, :], x[..., 0, :, :]
    return jaxctc.rnnt_loss_from_joint(jnp.add, encoder, predictor, *pair, frames_per_chunk=4)


def simple(x, *pair):
    return jaxctc.rnnt_loss_simple(x[..., 0, :], x[..., 0, :, :], *pair, lm_only_scale=0.2)


def pruned(x, *pair):
    ranges = jnp.minimum(jnp.arange(T)[:, None] // 2 + jnp.arange(2)[None], U)
    ranges = jnp.broadcast_to(ranges, (*x.shape[:-3], T, 2))
    kept = jnp.take_along_axis(x, ranges[..., None], axis=-2)
    return jaxctc.rnnt_loss_pruned(kept, pair[0], ranges, *pair[1:], delay_penalty=0.1)


def tdt(x, *pair):
    return jaxctc.tdt_loss(x, x[..., :3], *pair, durations=(2, 0, 1), delay_penalty=0.1)


monotonic = functools.partial(jaxctc.rnnt_loss, monotonic=True)
LOSSES = {f.__name__: f for f in (hat, from_joint, simple, pruned, tdt)} | {"monotonic": monotonic}
every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every
def test_forward_mode_second_derivatives_vmap_and_precision(loss):
    @jax.jit
    def losses_and_gradient(x):
        losses, pullback = jax.vjp(lambda x: loss(x, *PAIR), x)
        return losses, pullback(jnp.ones_like(losses))[0]

    with jax.enable_x64(True):
        direction = np.cos(LOGITS)
        along = jax.jit(lambda x: jax.jvp(losses_and_gradient, [x], [direction]))
        (losses, gradient), (slope, product) = along(LOGITS)
        np.testing.assert_allclose(slope.sum(), (gradient * direction).sum(), rtol=1e-10)
        ahead, behind = (losses_and_gradient(LOGITS + s * direction)[1] for s in (1e-6, -1e-6))
        np.testing.assert_allclose(product, (ahead - behind) / 2e-6, atol=1e-7)

    single, its_gradient = losses_and_gradient(jnp.asarray(LOGITS, jnp.float32))
    np.testing.assert_allclose(single, losses, rtol=1e-5)
    np.testing.assert_allclose(its_gradient, gradient, atol=2e-6)
    apart = jax.jit(jax.vmap(loss))(jnp.asarray(LOGITS, jnp.float32), *PAIR)
    np.testing.assert_allclose(apart, single, rtol=1e-6)

    half, its_gradient = losses_and_gradient(jnp.asarray(LOGITS, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert its_gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(half, losses, rtol=2e-2)
    np.testing.assert_allclose(np.asarray(its_gradient, np.float64), gradient, atol=3e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("spoken", [0, 1])
def test_nan_in_any_class_makes_the_hat_loss_nan(spoken, value):
    shape = 2, spoken + 1, 3
    broken = np.zeros((np.prod(shape), *shape), np.float32)
    for batch, place in enumerate(np.ndindex(shape)):
        broken[batch][place] = value
    labels = np.ones((len(broken), spoken), int)
    losses = jax.jit(lambda x: hat(x, labels, None, None))(broken)
    assert np.isnan(losses).all()


@pytest.mark.parametrize(("batch", "frames", "spoken"), [((2,), 3, 0), ((2,), 0, 1), ((0,), 3, 0)])
def test_other_losses_take_empty_axes(batch, frames, spoken):
    encoder, predictor = jnp.zeros((*batch, frames, 5)), jnp.zeros((*batch, spoken + 1, 5))
    labels = np.ones((*batch, spoken), int)
    logits = encoder[..., None, :] + predictor[..., None, :, :]
    losses = {
        "joint": lambda x: jaxctc.rnnt_loss_from_joint(lambda e, p: e + p, x, predictor, labels),
        "durations": lambda x: jaxctc.tdt_loss(x[..., None, :] + logits, logits, labels),
    }
    for loss in losses.values():
        values, pullback = jax.vjp(loss, encoder)
        assert values.shape == batch
        assert (np.isinf(values) == (frames == 0)).all()
        assert np.isfinite(pullback(jnp.ones_like(values))[0]).all()
