"""Scores and best paths of automata: against all their paths, the CTC loss, and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import fsa_by_enumeration

import jaxctc
from jaxctc.core.semirings import LOG, MAX_TROPICAL, PROBABILITY


def random_fsa(generator, states=3, arcs=7, classes=3):
    """Any arcs at all, so that cycles, parallel arcs and dead ends are among them."""
    return jaxctc.Fsa(
        generator.integers(0, states, arcs).astype(np.int32),
        generator.integers(0, states, arcs).astype(np.int32),
        generator.integers(0, classes, arcs).astype(np.int32),
        generator.normal(size=arcs).astype(np.float32),
        np.where(generator.random(states) < 0.7, generator.normal(size=states), -np.inf).astype(
            np.float32
        ),
        np.where(generator.random(states) < 0.7, generator.normal(size=states), -np.inf).astype(
            np.float32
        ),
    )


@jax.jit
def everything(fsa, log_probs):
    def score(log_probs, weight, semiring=PROBABILITY):
        return jaxctc.fsa_score(fsa._replace(weight=weight), log_probs, semiring=semiring)

    total, (classes, arcs) = jax.value_and_grad(score, (0, 1))(log_probs, fsa.weight)
    log_total, (log_classes, log_arcs) = jax.value_and_grad(score, (0, 1))(
        log_probs, fsa.weight, LOG
    )
    best, (best_classes, best_arcs) = jax.value_and_grad(score, (0, 1))(
        log_probs, fsa.weight, MAX_TROPICAL
    )
    path = jaxctc.fsa_best_path(fsa, log_probs)
    return (
        (total, classes, arcs),
        (log_total, log_classes, log_arcs),
        (best, best_classes, best_arcs),
        path,
    )


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.booleans())
def test_tiny_automata_against_all_their_paths(seed, ties):
    generator = np.random.default_rng(seed)
    fsa = random_fsa(generator)
    log_probs = generator.normal(size=(4, 3)).astype(np.float32)
    log_probs[generator.random(log_probs.shape) < 0.1] = -np.inf
    if ties:
        fsa = jaxctc.Fsa(*fsa[:3], *(np.round(x) for x in fsa[3:]))
        log_probs = np.round(log_probs)
    total, classes, arcs, best = fsa_by_enumeration(fsa, log_probs)
    in_probability, in_log, in_tropical, path = everything(fsa, log_probs)
    for found in (in_probability, in_log):
        for x, y in zip(found, (total, classes, arcs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_tropical[0], best, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(path.score, best, rtol=1e-5, atol=1e-5)
    if best == -np.inf:
        assert np.all(path.arcs == -1)
        assert np.all(path.labels == -1)
        assert not in_tropical[1].any()
        return
    # The gradient is one path, also where several are the best.
    taken = np.asarray(path.arcs)
    np.testing.assert_array_equal(path.labels, fsa.label[taken])
    assert np.all(fsa.destination[taken[:-1]] == fsa.source[taken[1:]])
    np.testing.assert_array_equal(in_tropical[1], np.eye(3)[fsa.label[taken]])
    np.testing.assert_array_equal(in_tropical[2], np.bincount(taken, minlength=7))
    weight = fsa.start[fsa.source[taken[0]]] + fsa.final[fsa.destination[taken[-1]]]
    weight += fsa.weight[taken].sum() + log_probs[range(4), fsa.label[taken]].sum()
    np.testing.assert_allclose(weight, best, rtol=1e-5, atol=1e-5)


LABELS = np.array([[1, 2, 2, 4], [3, 0, 0, 0], [4, 1, 4, 0], [0, 0, 0, 0]])


LABEL_LENGTHS = np.array([4, 1, 3, 0])


FRAMES = np.array([12, 9, 12, 4])


BATCH = jaxctc.Fsa.stack(
    [jaxctc.ctc_fsa(y[:n]) for y, n in zip(LABELS, LABEL_LENGTHS, strict=True)]
)


LOGITS = 2 * np.random.default_rng(0).standard_normal((4, 12, 5)).astype(np.float32)


@jax.jit
def score_and_gradient(fsa, log_probs, lengths):
    scores, pullback = jax.vjp(
        lambda x, w: jaxctc.fsa_score(fsa._replace(weight=w), x, lengths), log_probs, fsa.weight
    )
    return scores, *pullback(jnp.ones_like(scores))


def test_ctc_is_the_ctc_loss():
    def by_fsa(logits):
        return -jaxctc.fsa_score(BATCH, jax.nn.log_softmax(logits), FRAMES)

    def by_loss(logits):
        return jaxctc.ctc_loss(logits, LABELS, FRAMES, LABEL_LENGTHS)

    @jax.jit
    def both(logits):
        found = []
        for function in (by_fsa, by_loss):
            losses, pullback = jax.vjp(function, logits)
            found.append((losses, pullback(jnp.ones_like(losses))[0]))
        return found

    for x, y in zip(*both(LOGITS), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("compile_fully")
def test_float32_is_exact_on_long_input():
    generator = np.random.default_rng(1)
    logits = 3 * generator.standard_normal((2, 1000, 20))
    labels = generator.integers(1, 20, 150)
    arcs = np.stack([*random_fsa(generator, 60, 600, 20)[:4]], axis=1).astype(np.float64)
    general = jaxctc.Fsa.from_arcs(arcs, start=range(60), final=range(60))
    fsa = jaxctc.Fsa.stack([jaxctc.ctc_fsa(labels), general])
    log_probs = np.asarray(jax.nn.log_softmax(logits.astype(np.float32)))
    lengths = np.array([1000, 900])
    narrow = score_and_gradient(fsa, log_probs, lengths)
    with jax.enable_x64(True):
        doubled = {k: getattr(fsa, k).astype(np.float64) for k in ("weight", "start", "final")}
        wide = score_and_gradient(fsa._replace(**doubled), log_probs.astype(np.float64), lengths)
        wide = [np.asarray(x) for x in wide]
    assert wide[0].dtype == np.float64
    np.testing.assert_allclose(narrow[0], wide[0], rtol=1e-6)
    np.testing.assert_allclose(narrow[1], wide[1], atol=2e-5)
    np.testing.assert_allclose(narrow[2], wide[2], rtol=1e-5, atol=2e-5)


def test_padding_is_never_read():
    clean = score_and_gradient(BATCH, LOGITS, FRAMES)
    poisoned = LOGITS.copy()
    for b, n in enumerate(FRAMES):
        poisoned[b, n:] = np.nan
    padded = BATCH.label < 0
    assert padded.any()
    fsa = BATCH._replace(
        source=np.where(padded, 10**6, BATCH.source),
        destination=np.where(padded, -7, BATCH.destination),
        weight=np.where(padded, np.nan, BATCH.weight),
    )
    for x, y in zip(score_and_gradient(fsa, poisoned, FRAMES), clean, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.any([np.any(clean[1][b, n:]) for b, n in enumerate(FRAMES)])


def test_no_path_is_minus_infinity_with_no_gradient():
    lengths = np.array([4, 0, 3, 0])  # 1 2 2 4 needs five
    scores, by_frame, by_arc = score_and_gradient(BATCH, LOGITS, lengths)
    np.testing.assert_array_equal(scores[:2], -np.inf)
    assert np.isfinite(scores[2])
    assert scores[3] == 0  # no frames, no labels
    assert not by_frame[:2].any()
    assert not by_arc[:2].any()
    path = jaxctc.fsa_best_path(BATCH, LOGITS, lengths)
    np.testing.assert_array_equal(path.score[:2], -np.inf)
    assert np.all(path.arcs[:2] == -1)
    assert path.score[3] == 0


def test_a_masked_class_and_nan():
    masked = LOGITS.copy()
    masked[0, :, 4] = -np.inf  # a label of the first, not of the second
    masked[1, :, 4] = -np.inf
    masked[2, 3, 0] = np.nan
    masked[3, 0, 0] = np.inf
    scores, gradient, by_arc = score_and_gradient(BATCH, masked, FRAMES)
    np.testing.assert_array_equal(np.isnan(scores), [False, False, True, True])
    assert scores[0] == -np.inf
    assert not gradient[0].any()
    assert np.isfinite(scores[1])
    assert np.isfinite(gradient[:2]).all()
    assert np.isfinite(by_arc[:2]).all()


def test_an_automaton_without_frames_arcs_or_sequences():
    fsa = jaxctc.Fsa.from_arcs([], start={0: 0.5}, final={0: 0.25})
    scores, gradient, _ = score_and_gradient(fsa, np.zeros((2, 3, 4)), np.array([0, 2]))
    np.testing.assert_allclose(scores, [0.75, -np.inf], rtol=1e-6)
    assert not gradient.any()
    np.testing.assert_allclose(jaxctc.fsa_score(fsa, np.zeros((0, 4))), 0.75, rtol=1e-6)
    assert jax.eval_shape(lambda: jaxctc.fsa_score(fsa, np.zeros((0, 3, 4)))).shape == (0,)


def test_batch_axes_vmap_and_half_precision():
    scores = np.asarray(score_and_gradient(BATCH, LOGITS, FRAMES)[0])
    square = jaxctc.Fsa(*(x.reshape(2, 2, -1) for x in BATCH))
    frames = FRAMES.reshape(2, 2)
    # Mapped over one batch axis, with the other inside.
    shaped = jax.vmap(jaxctc.fsa_score)(square, LOGITS.reshape(2, 2, 12, 5), frames)
    np.testing.assert_allclose(shaped.reshape(-1), scores, rtol=1e-6)
    one = jaxctc.Fsa(*(x[0] for x in BATCH))
    shared = jaxctc.fsa_score(one, LOGITS.reshape(2, 2, 12, 5), frames)
    same = jaxctc.Fsa.stack([one] * 4)
    np.testing.assert_allclose(
        shared.reshape(-1), score_and_gradient(same, LOGITS, FRAMES)[0], rtol=1e-6
    )
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    scores, gradient, _ = score_and_gradient(BATCH, half, FRAMES)
    assert scores.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    want = score_and_gradient(BATCH, half.astype(jnp.float32), FRAMES)
    np.testing.assert_array_equal(scores, want[0])
    np.testing.assert_array_equal(gradient, want[1].astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [np.int8, np.uint32])
def test_indices_of_any_integer_type(dtype):
    fsa = jaxctc.ctc_fsa([1, 2])
    narrow = fsa._replace(**{k: getattr(fsa, k).astype(dtype) for k in ("source", "label")})
    log_probs = np.zeros((4, 300), np.float32)  # more classes than int8 has numbers
    got = jaxctc.fsa_best_path(narrow, log_probs, 3)
    jax.tree.map(np.testing.assert_array_equal, got, jaxctc.fsa_best_path(fsa, log_probs, 3))
    assert got.labels.dtype == jnp.int32


def test_derivatives_with_respect_to_weights_forward_and_reverse():
    fsa = random_fsa(np.random.default_rng(5))
    fsa = fsa._replace(start=np.zeros(3, np.float32), final=np.zeros(3, np.float32))

    def score(weight):
        return jaxctc.fsa_score(fsa._replace(weight=weight), LOGITS[..., :3]).sum()

    gradient = jax.jit(jax.grad(score))(fsa.weight)
    np.testing.assert_allclose(gradient.sum(), LOGITS.shape[0] * LOGITS.shape[1], rtol=1e-5)
    along = jax.jit(lambda w, d: jax.jvp(score, [w], [d])[1])(fsa.weight, np.cos(fsa.weight))
    np.testing.assert_allclose(along, gradient @ np.cos(fsa.weight), rtol=1e-5)
