"""Arcs of a factorised blank, and losses of a joint network in chunks of frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import log_softmax
from transducer_cases import BATCH

import jaxctc


def test_hat_sums_to_one_and_follows_its_formula():
    logits, labels, frames, lengths = BATCH
    blank_id = 2
    poisoned = logits.copy()
    poisoned[1, 4:], poisoned[1, :, 3:], poisoned[2, 5:], poisoned[2, :, 1:] = [np.nan] * 4
    arcs = jaxctc.hat_log_probs(poisoned, labels, frames, lengths, blank_id=blank_id)
    blank = 1 / (1 + np.exp(-logits[0, :, :, blank_id]))
    np.testing.assert_allclose(np.exp(arcs.blank[0]), blank, rtol=1e-5)
    others = np.delete(log_softmax(np.where(np.arange(7) == blank_id, -np.inf, logits[0])), 2, -1)
    np.testing.assert_allclose(np.exp(others).sum(-1), 1, rtol=1e-6)
    label = np.log(1 - blank[:, 3]) + log_softmax(np.delete(logits[0], 2, -1))[:, 3, 2]
    np.testing.assert_allclose(arcs.label[0, :, 3], label, rtol=1e-4)
    assert (arcs.label[0, :, 1:3] == -np.inf).all()  # labels that are the blank

    def loss(logits):
        arcs = jaxctc.hat_log_probs(logits, labels, frames, lengths)
        return jaxctc.rnnt_loss_from_log_probs(*arcs, frames, lengths)[1:].sum()

    gradient = jax.grad(loss)(poisoned)
    assert np.isfinite(gradient).all()
    assert (gradient[1, 4:] == 0).all()
    assert (np.abs(gradient[1, :4, :3]).sum(-1) > 0).all()


@pytest.mark.parametrize("log_probs", [jaxctc.rnnt_log_probs, jaxctc.hat_log_probs])
@pytest.mark.parametrize("frames_per_chunk", [1, 4, 100])
def test_the_joint_in_chunks_equals_the_whole_joint(log_probs, frames_per_chunk):
    generator = np.random.default_rng(3)
    encoder = generator.standard_normal((3, 6, 8)).astype(np.float32)
    predictor = generator.standard_normal((3, 5, 8)).astype(np.float32)
    weights = generator.standard_normal((8, 7)).astype(np.float32)
    encoder[1, 4:], predictor[1, 3:] = np.nan, np.nan
    _, labels, frames, lengths = BATCH

    def joint(weights, encoder, predictor):
        return jnp.tanh(encoder + predictor) @ weights

    def chunked(weights, encoder, predictor):
        return jaxctc.rnnt_loss_from_joint(
            lambda *x: joint(weights, *x),
            encoder,
            predictor,
            labels,
            frames,
            lengths,
            frames_per_chunk=frames_per_chunk,
            log_probs=log_probs,
        )

    def at_once(weights, encoder, predictor):
        encoder, predictor = jnp.nan_to_num(encoder), jnp.nan_to_num(predictor)
        logits = joint(weights, encoder[:, :, None], predictor[:, None])
        arcs = log_probs(logits, labels, frames, lengths)
        return jaxctc.rnnt_loss_from_log_probs(*arcs, frames, lengths)

    arguments = weights, encoder, predictor
    got, want = (
        jax.jit(lambda *x, f=f: (f(*x), jax.grad(lambda *x: f(*x).sum(), (0, 1, 2))(*x)))(
            *arguments
        )
        for f in (chunked, at_once)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), got, want)
    assert (got[1][1][1, 4:] == 0).all()
