"""FastEmit and the delay penalty: values and gradients of every loss, from all of its paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    arcs_of,
    duration_paths,
    log_softmax,
    transducer_by_enumeration,
    transducer_gradient,
)

import jaxctc

GENERATOR = np.random.default_rng(3)
LABELS = np.array([[1, 2, 2], [3, 1, 9], [1, -1, -1]], np.int32)
FRAMES, LENGTHS = np.array([4, 3, 2], np.int32), np.array([3, 2, 0], np.int32)
ENCODER = GENERATOR.standard_normal((3, 4, 4)).astype(np.float32)
PREDICTOR = GENERATOR.standard_normal((3, 4, 4)).astype(np.float32)
LOGITS = ENCODER[:, :, None] + PREDICTOR[:, None]
DURATIONS = GENERATOR.standard_normal((3, 4, 4, 2)).astype(np.float32)
PAIR = LABELS, FRAMES, LENGTHS
FACTORS = 0.25, 0.5  # of FastEmit and of the delay penalty
ALL = np.broadcast_to(np.arange(4), (3, 4, 4))


def poisoned(logits):
    """The same logits with NaN in everything past a length."""
    logits = logits.copy()
    for b in range(3):
        logits[b, FRAMES[b] :] = logits[b, :, LENGTHS[b] + 1 :] = np.nan
    return logits


def early(b):
    """What the delay penalty adds to a label at each frame, ``[T, 1]``."""
    frames = FRAMES[b]
    return FACTORS[1] * ((frames - 1) / 2 - np.arange(frames))[:, None]


def losses_and_gradients(loss, *arrays, factors=FACTORS):
    @jax.jit
    def run(factors, *arrays):
        penalties = dict(zip(("fastemit_lambda", "delay_penalty"), factors, strict=True))
        losses, pullback = jax.vjp(lambda *x: loss(*x, **penalties), *arrays)
        return losses, pullback(jnp.ones_like(losses))

    return run(factors, *arrays)


@pytest.mark.parametrize("monotonic", [False, True])
def test_logits_get_the_gradient_of_all_paths(monotonic):
    def loss(x, **penalties):
        return jaxctc.rnnt_loss(x, *PAIR, monotonic=monotonic, **penalties)

    losses, (gradient,) = losses_and_gradients(loss, poisoned(LOGITS))
    for b in range(3):
        cells = np.s_[b, : FRAMES[b], : LENGTHS[b] + 1]
        log_probs, labels = log_softmax(LOGITS[cells]), LABELS[b, : LENGTHS[b]]
        blank, label = arcs_of(log_probs, labels, 0)
        want, blanks, emitted = transducer_by_enumeration(blank, label + early(b), monotonic)
        np.testing.assert_allclose(losses[b], want * (1 + FACTORS[0]), rtol=1e-5)
        emitted *= 1 + FACTORS[0]
        want = transducer_gradient(log_probs, labels, 0, blanks, emitted)
        np.testing.assert_allclose(gradient[cells], want, atol=2e-6)
        rest = np.array(gradient[b])
        rest[cells[1:]] = 0
        np.testing.assert_array_equal(rest, 0)


def test_all_losses_of_a_joint_that_adds_are_one():
    def full(x, y, **penalties):
        return jaxctc.rnnt_loss(x[:, :, None] + y[:, None], *PAIR, **penalties)

    def from_joint(x, y, **penalties):
        return jaxctc.rnnt_loss_from_joint(jnp.add, x, y, *PAIR, frames_per_chunk=3, **penalties)

    def simple(x, y, **penalties):
        return jaxctc.rnnt_loss_simple(x, y, *PAIR, **penalties)

    def pruned(x, y, **penalties):
        logits = x[:, :, None] + y[:, None]
        return jaxctc.rnnt_loss_pruned(logits, LABELS, ALL, *PAIR[1:], **penalties)

    def from_pruned_arcs(x, y, **penalties):
        arcs = jaxctc.rnnt_pruned_log_probs(x[:, :, None] + y[:, None], LABELS, ALL, *PAIR[1:])
        return jaxctc.rnnt_loss_from_log_probs(*arcs, *PAIR[1:], **penalties)

    factors = 0.25, 8.0
    want = losses_and_gradients(full, ENCODER, PREDICTOR, factors=factors)
    assert (want[0] < 0).any()  # and so the losses are not clipped
    for loss in (from_joint, simple, pruned, from_pruned_arcs):
        got = losses_and_gradients(loss, ENCODER, PREDICTOR, factors=factors)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=3e-6), got, want)


def test_arcs_get_their_posteriors():
    arcs = jaxctc.rnnt_log_probs(LOGITS, *PAIR)

    def loss(blank, label, **penalties):
        return jaxctc.rnnt_loss_from_log_probs(blank, label, FRAMES, LENGTHS, **penalties)

    losses, gradients = losses_and_gradients(loss, *arcs)
    blank, label = jaxctc.rnnt_posteriors(*arcs, FRAMES, LENGTHS, delay_penalty=FACTORS[1])
    np.testing.assert_allclose(gradients[0], -blank, atol=1e-6)
    np.testing.assert_allclose(gradients[1], -(1 + FACTORS[0]) * label, atol=1e-6)
    # Factors that are no arrays, and only one of them.
    alone = jaxctc.rnnt_loss(LOGITS, *PAIR, delay_penalty=FACTORS[1])
    np.testing.assert_allclose(losses, alone * (1 + FACTORS[0]), rtol=1e-6)
    # The penalties of the posteriors are those of a lattice with other scores.
    scored = arcs.label + np.stack([np.resize(early(b), (4, 1)) for b in range(3)])
    want = jaxctc.rnnt_posteriors(arcs.blank, scored, FRAMES, LENGTHS)
    np.testing.assert_allclose(blank, want.blank, atol=1e-6)


def test_durations():
    def loss(x, y, **penalties):
        return jaxctc.tdt_loss(x, y, *PAIR, durations=(0, 2), **penalties)

    losses, gradients = losses_and_gradients(loss, poisoned(LOGITS), poisoned(DURATIONS))
    for b in range(3):
        cells = np.s_[b, : FRAMES[b], : LENGTHS[b] + 1]
        tokens, lasting = log_softmax(LOGITS[cells]), log_softmax(DURATIONS[cells])
        total, of_tokens, of_durations = 0, np.zeros(tokens.shape), np.zeros(lasting.shape)
        for path in duration_paths(FRAMES[b], LENGTHS[b], (0, 2)):
            used = [(t, u, LABELS[b, u] if y else 0, d // 2, y) for t, u, y, d in path]
            score = sum(
                tokens[t, u, c] + lasting[t, u, d] + (early(b)[t, 0] if y else 0)
                for t, u, c, d, y in used
            )
            total += np.exp(score)
            for t, u, c, d, y in used:
                of_tokens[t, u, c] += np.exp(score) * (1 + FACTORS[0] * y)
                of_durations[t, u, d] += np.exp(score)
        if not total:  # an odd number of frames
            assert losses[b] == np.inf
        else:
            np.testing.assert_allclose(losses[b], -np.log(total) * (1 + FACTORS[0]), rtol=1e-5)
            of_tokens, of_durations = of_tokens / total, of_durations / total
        for gradient, used, log_probs in zip(
            gradients, (of_tokens, of_durations), (tokens, lasting), strict=True
        ):
            want = np.exp(log_probs) * used.sum(-1, keepdims=True) - used
            np.testing.assert_allclose(gradient[cells], want, atol=2e-6)
            rest = np.array(gradient[b])
            rest[cells[1:]] = 0
            np.testing.assert_array_equal(rest, 0)


def test_second_derivatives_are_those_of_the_gradient():
    with jax.enable_x64(True):
        logits = LOGITS.astype(np.float64)
        direction = np.cos(logits)

        def loss(x):
            return jaxctc.rnnt_loss(x, *PAIR, fastemit_lambda=0.25, delay_penalty=0.5).sum()

        gradient = jax.jit(jax.grad(loss))
        _, along = jax.jvp(loss, [logits], [direction])
        np.testing.assert_allclose(along, (gradient(logits) * direction).sum(), rtol=1e-12)
        _, product = jax.jvp(gradient, [logits], [direction])
        ahead, behind = (gradient(logits + s * direction) for s in (1e-6, -1e-6))
        np.testing.assert_allclose(product, (ahead - behind) / 2e-6, atol=1e-8)


def test_an_infeasible_pair_has_no_gradient_and_half_precision_stays_half():
    def loss(x, **penalties):
        return jaxctc.rnnt_loss(x, LABELS, [0, 3, 4], LENGTHS, monotonic=True, **penalties)

    losses, (gradient,) = losses_and_gradients(loss, jnp.asarray(LOGITS, jnp.bfloat16))
    np.testing.assert_array_equal(np.isinf(losses), [True, False, False])
    assert (losses.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(gradient.astype(np.float32)).all()
    # Traced factors of 0 change nothing.
    nothing, _ = losses_and_gradients(loss, jnp.asarray(LOGITS, jnp.bfloat16), factors=(0.0, 0.0))
    np.testing.assert_allclose(nothing, loss(jnp.asarray(LOGITS, jnp.bfloat16)), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"fastemit_lambda": -1}, ValueError, "^fastemit_lambda is -1; it must be finite and at"),
        ({"fastemit_lambda": "a"}, TypeError, "^fastemit_lambda is 'a'; it must be a number"),
        ({"delay_penalty": np.nan}, ValueError, "^delay_penalty is nan; it must be finite"),
    ],
)
def test_factors_that_are_no_factors(arguments, error, sentence):
    for call in (
        lambda: jaxctc.rnnt_loss(LOGITS, LABELS, **arguments),
        lambda: jaxctc.rnnt_loss_simple(ENCODER, PREDICTOR, LABELS, **arguments),
        lambda: jaxctc.rnnt_loss_pruned(LOGITS, LABELS, ALL, **arguments),
        lambda: jaxctc.tdt_loss(LOGITS, DURATIONS, LABELS, durations=(0, 2), **arguments),
    ):
        with pytest.raises(error, match=sentence):
            call()
