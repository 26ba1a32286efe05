"""The transducer loss against all paths and float64; its conventions and transformations."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    arcs_of,
    log_softmax,
    transducer_by_enumeration,
    transducer_by_recursion,
    transducer_gradient,
    transducer_paths,
)
from transducer_cases import BATCH, loss_and_gradient

import jaxctc


# Every tiny case in one shape: T = 4, U = 3, C = 4, all of them padded from what was drawn.
@settings(max_examples=60)
@given(data=st.data())
def test_losses_gradients_and_posteriors_are_those_of_all_paths(data):
    blank = data.draw(st.integers(0, 3), "blank")
    monotonic = data.draw(st.booleans(), "monotonic")
    frames = data.draw(st.integers(0, 4), "frames")
    labels = data.draw(
        st.lists(st.sampled_from([c for c in range(4) if c != blank]), max_size=3), "labels"
    )
    generator = np.random.default_rng(data.draw(st.integers(0, 2**16), "seed"))
    logits = np.full((1, 4, 4, 4), np.nan, np.float32)  # poison
    cells = np.s_[:frames, : len(labels) + 1]
    logits[0][cells] = 3 * generator.standard_normal((frames, len(labels) + 1, 4))
    padded = np.full((1, 3), data.draw(st.sampled_from([-1, 0, 3, 99]), "padding"))
    padded[0, : len(labels)] = labels
    lengths = np.array([frames]), np.array([len(labels)])

    log_probs = log_softmax(logits[0][cells])
    want, *posteriors = transducer_by_enumeration(*arcs_of(log_probs, labels, blank), monotonic)
    losses, gradient = loss_and_gradient(logits, padded, *lengths, blank, monotonic)
    np.testing.assert_allclose(losses[0], want, rtol=1e-5, atol=1e-6)
    want_gradient = transducer_gradient(log_probs, labels, blank, *posteriors)
    np.testing.assert_allclose(gradient[0][cells], want_gradient, atol=2e-6)
    gradient[0][cells] = 0
    np.testing.assert_array_equal(gradient, 0)

    arcs = jaxctc.rnnt_log_probs(logits, padded, *lengths, blank_id=blank)
    again = jaxctc.rnnt_loss_from_log_probs(*arcs, *lengths, monotonic=monotonic)
    np.testing.assert_allclose(again, losses, rtol=1e-6, atol=1e-6)
    poisoned = [np.full_like(x, np.nan) for x in arcs]
    poisoned[0][0][cells] = arcs.blank[0][cells]
    within = np.s_[:frames, : len(labels)]
    poisoned[1][0][within] = arcs.label[0][within]
    got = jaxctc.rnnt_posteriors(*poisoned, *lengths, monotonic=monotonic)
    for x, y, used in zip(got, posteriors, (cells, within), strict=True):
        np.testing.assert_allclose(x[0][used], y, atol=2e-6)
        x = np.array(x)
        x[0][used] = 0
        np.testing.assert_array_equal(x, 0)

    found = jaxctc.rnnt_align(*poisoned, *lengths, monotonic=monotonic)
    scored = {
        path: sum((arcs.label if is_label else arcs.blank)[0, t, u] for t, u, is_label in path)
        for path in transducer_paths(frames, len(labels), monotonic)
    }
    if not scored:
        assert found.score[0] == -np.inf
        np.testing.assert_array_equal(found.frames, -1)
        np.testing.assert_array_equal(found.scores[0, : len(labels)], -np.inf)
        np.testing.assert_array_equal(found.scores[0, len(labels) :], 0)
        return
    assert found.frames.dtype == np.int32
    best = max(scored, key=scored.get)
    np.testing.assert_allclose(found.score[0], scored[best], rtol=1e-5)
    at = [t for t, _, is_label in best if is_label]
    own = [arcs.label[0, t, u] for u, t in enumerate(at)]
    np.testing.assert_array_equal(found.frames[0], at + [-1] * (3 - len(at)))
    np.testing.assert_allclose(found.scores[0, : len(at)], own)


@pytest.mark.usefixtures("compile_fully")
@pytest.mark.parametrize("kind", ["random", "peaky", "flat"])
@pytest.mark.parametrize(("frames", "spoken", "classes"), [(60, 12, 20), (1000, 200, 4)])
def test_float32_is_as_exact_as_float64(frames, spoken, classes, kind):
    generator = np.random.default_rng(frames)
    labels = generator.integers(1, classes, spoken)
    shape = (frames, spoken + 1, classes)
    logits = {
        "random": lambda: 2 * generator.standard_normal(shape),
        "peaky": lambda: np.log(
            0.999 * (np.arange(classes) == generator.integers(0, classes, (*shape[:2], 1)))
            + 1e-3 / classes
        ),
        "flat": lambda: np.zeros(shape),
    }[kind]().astype(np.float32)
    log_probs = log_softmax(logits)
    want, *posteriors = transducer_by_recursion(*arcs_of(log_probs, labels, 0))
    losses, gradient = loss_and_gradient(logits[None], labels[None])
    np.testing.assert_allclose(losses[0], want, rtol=1e-6)
    want_gradient = transducer_gradient(log_probs, labels, 0, *posteriors)
    np.testing.assert_allclose(gradient[0], want_gradient, atol=2e-5)
    np.testing.assert_allclose(gradient[0].sum(-1), 0, atol=2e-5)


def test_a_batch_is_its_sequences_under_vmap_jit_and_leading_axes():
    losses, gradient = loss_and_gradient(*BATCH)
    one = jax.jit(jax.value_and_grad(lambda *x: jaxctc.rnnt_loss(*x)))
    for b in range(3):
        frames, spoken = BATCH[2][b], BATCH[3][b]
        alone, by_itself = one(
            BATCH[0][b, :frames, : spoken + 1], BATCH[1][b, :spoken], *(x[b] for x in BATCH[2:])
        )
        np.testing.assert_allclose(alone, losses[b], rtol=1e-6)
        np.testing.assert_allclose(by_itself, gradient[b, :frames, : spoken + 1], atol=1e-6)
    mapped = jax.vmap(jax.value_and_grad(lambda *x: jaxctc.rnnt_loss(*x)))(*BATCH)
    np.testing.assert_allclose(mapped[0], losses, rtol=1e-6)
    np.testing.assert_allclose(mapped[1], gradient, atol=1e-6)
    last = jax.vmap(jaxctc.rnnt_loss, in_axes=(3, 1, 0, 0), out_axes=0)(
        BATCH[0].transpose(1, 2, 3, 0), BATCH[1].T, *BATCH[2:]
    )
    np.testing.assert_allclose(last, losses, rtol=1e-6)
    nested = jaxctc.rnnt_loss(*(x[None, :, None] for x in BATCH))
    np.testing.assert_allclose(nested[0, :, 0], losses, rtol=1e-6)


def test_forward_mode_and_second_derivatives():
    with jax.enable_x64(True):
        logits = BATCH[0].astype(np.float64)
        direction = np.cos(logits)
        total = lambda x: jaxctc.rnnt_loss(x, *BATCH[1:]).sum()  # noqa: E731
        gradient = jax.jit(jax.grad(total))
        _, along = jax.jvp(total, [logits], [direction])
        np.testing.assert_allclose(along, (gradient(logits) * direction).sum(), rtol=1e-12)
        _, product = jax.jvp(gradient, [logits], [direction])
        step = 1e-6
        ahead, behind = (gradient(logits + s * direction) for s in (step, -step))
        np.testing.assert_allclose(product, (ahead - behind) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_in_and_out(dtype):
    logits = jnp.asarray(BATCH[0], dtype)
    losses, gradient = loss_and_gradient(logits, *BATCH[1:])
    want, want_gradient = loss_and_gradient(logits.astype(jnp.float32), *BATCH[1:])
    assert losses.dtype == jnp.float32
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(losses, want)
    np.testing.assert_allclose(gradient.astype(np.float32), want_gradient, atol=4e-3)


def test_masked_classes_broken_logits_and_impossible_pairs():
    logits, labels, frames, lengths = (x.copy() for x in BATCH)
    logits[..., 6] = -np.inf  # masked out: the second sequence begins with it
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    assert losses[1] == np.inf
    assert np.isfinite(losses[[0, 2]]).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0)
    logits[0, 1, 1, 3] = np.nan
    losses, _ = loss_and_gradient(logits, labels, frames, lengths)
    np.testing.assert_array_equal(np.isnan(losses), [True, False, False])
    for wrong in (7, -1, 0):  # no class, no class, the blank
        odd = labels.copy()
        odd[0, 1] = wrong
        losses, gradient = loss_and_gradient(BATCH[0], odd, frames, lengths)
        assert losses[0] == np.inf
        np.testing.assert_array_equal(gradient[0], 0)
        assert np.isfinite(losses[1:]).all()
    # Under jit lengths are traced: those out of range are infeasible.
    losses, gradient = loss_and_gradient(BATCH[0], labels, [7, 0, 5], [4, 2, 5])
    np.testing.assert_array_equal(losses, np.inf)
    np.testing.assert_array_equal(gradient, 0)


def test_vast_logits_leave_no_nan():
    logits = BATCH[0] * np.float32(1e30)
    losses, gradient = loss_and_gradient(logits, *BATCH[1:])
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()


def test_empty_axes():
    assert jaxctc.rnnt_loss(np.zeros((0, 3, 2, 4)), np.zeros((0, 1), int)).shape == (0,)
    assert jaxctc.rnnt_loss(np.zeros((2, 0, 2, 4)), np.ones((2, 1), int)).tolist() == [np.inf] * 2
    loss = jaxctc.rnnt_loss(np.zeros((3, 1, 4)), np.zeros(0, int))
    np.testing.assert_allclose(loss, 3 * np.log(4), rtol=1e-6)


def test_the_same_bits_twice():
    for first, second in zip(loss_and_gradient(*BATCH), loss_and_gradient(*BATCH), strict=True):
        np.testing.assert_array_equal(first, second)


def test_monotonic_paths_have_one_symbol_a_frame():
    losses, gradient = loss_and_gradient(*BATCH, monotonic=True)
    for b in range(3):
        frames, spoken = BATCH[2][b], BATCH[3][b]
        log_probs = log_softmax(BATCH[0][b, :frames, : spoken + 1])
        want, *posteriors = transducer_by_recursion(
            *arcs_of(log_probs, BATCH[1][b, :spoken], 0), monotonic=True
        )
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        want = transducer_gradient(log_probs, BATCH[1][b, :spoken], 0, *posteriors)
        np.testing.assert_allclose(gradient[b, :frames, : spoken + 1], want, atol=1e-6)


@functools.partial(jax.jit, static_argnums=4)
def bounded(logits, labels, frames, lengths, most):
    """Losses and gradients, posteriors and alignments with at most so many labels a frame."""
    losses, pullback = jax.vjp(
        lambda x: jaxctc.rnnt_loss(x, labels, frames, lengths, max_symbols=most), logits
    )
    arcs = *jaxctc.rnnt_log_probs(logits, labels, frames, lengths), frames, lengths
    return (
        losses,
        pullback(jnp.ones_like(losses))[0],
        jaxctc.rnnt_posteriors(*arcs, max_symbols=most),
        jaxctc.rnnt_align(*arcs, max_symbols=most),
    )


@pytest.mark.parametrize("most", [1, 2])
def test_at_most_so_many_labels_a_frame(most):
    logits, labels, *_ = (x.copy() for x in BATCH)
    frames, lengths = np.array([4, 3, 1], np.int32), np.array([4, 2, 3], np.int32)
    for b in range(3):
        logits[b, frames[b] :] = logits[b, :, lengths[b] + 1 :] = np.nan
    losses, gradient, posteriors, aligned = bounded(logits, labels, frames, lengths, most)
    assert losses[2] == np.inf  # three labels in one frame
    for b in range(3):
        cells = np.s_[b, : frames[b], : lengths[b] + 1]
        log_probs, own = log_softmax(logits[cells]), labels[b, : lengths[b]]
        blank, label = arcs_of(log_probs, own, 0)
        want, *shares = transducer_by_enumeration(blank, label, max_symbols=most)
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        want_gradient = transducer_gradient(log_probs, own, 0, *shares)
        np.testing.assert_allclose(gradient[cells], want_gradient, atol=2e-6)
        rest = np.array(gradient[b])
        rest[cells[1:]] = 0
        np.testing.assert_array_equal(rest, 0)
        np.testing.assert_allclose(posteriors.blank[cells], shares[0], atol=2e-6)
        scores = [
            sum((label if y else blank)[t, u] for t, u, y in path)
            for path in transducer_paths(frames[b], lengths[b], max_symbols=most)
        ]
        np.testing.assert_allclose(aligned.score[b], max(scores, default=-np.inf), rtol=1e-6)
        if most == 1:  # k2's "constrained": a label and the blank after it are one arc
            want, *_ = transducer_by_enumeration(blank, label + blank[:, 1:], monotonic=True)
            np.testing.assert_allclose(losses[b], want, rtol=1e-6)
    np.testing.assert_array_equal(aligned.frames[2], -1)


@pytest.mark.usefixtures("compile_fully")
def test_many_labels_a_frame_do_not_overflow():
    # Where 1 / 91 = 1.41 / 2**7, every mantissa is nearly as large as it can be.
    frames, spoken, most = 100, 250, 3
    logits = np.zeros((1, frames, spoken + 1, 91), np.float32)
    labels = np.ones((1, spoken), int)
    loss = jax.jit(lambda x: jaxctc.rnnt_loss(x, labels, max_symbols=most))(logits)
    count = [1]  # of ways to spread u labels over the frames
    for _ in range(frames):
        ways = [0] * (len(count) + most)
        for u, number in enumerate(count):
            for more in range(most + 1):
                ways[u + more] += number
        count = ways[: spoken + 1]
    want = (frames + spoken) * np.log(91) - float(math.log(count[spoken]))
    np.testing.assert_allclose(loss, want, rtol=1e-6)
