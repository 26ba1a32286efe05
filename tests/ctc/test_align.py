"""Alignments against enumeration and a plain Viterbi with the contract on ties."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import INTERPRETERS
from oracles import collapse, log_softmax, viterbi

import jaxctc
from jaxctc.core.kernels import choice

BATCH, T, S, C = 96, 7, 3, 4


@pytest.fixture(scope="module")
def random_batch():
    """Logits that are whole numbers, so that paths tie; ragged; some pairs are infeasible."""
    rng = np.random.default_rng(3)
    logits = rng.integers(-2, 3, (BATCH, T, C)).astype(np.float32)
    logits[rng.random((BATCH, T, C)) < 0.05] = -np.inf
    labels = rng.integers(0, C - 1, (BATCH, S))  # the blank is C - 1
    return logits, labels, rng.integers(1, T + 1, BATCH), rng.integers(0, S + 1, BATCH)


def test_paths_are_the_best_and_ties_follow_the_contract(random_batch):
    found = jax.tree.map(np.asarray, jaxctc.forced_align(*random_batch, blank_id=C - 1))
    feasible = 0
    for b, (logits, labels, frames, length) in enumerate(zip(*random_batch, strict=True)):
        logits, labels = logits[:frames], labels[:length]
        want_score, want = viterbi(logits, labels, C - 1)
        got = jax.tree.map(lambda x, b=b: x[b], found)
        if want is None:
            assert got.score == -np.inf
            assert (got.path == -1).all()
            assert (got.starts == -1).all()
            assert (got.ends == -1).all()
            continue
        feasible += 1
        np.testing.assert_array_equal(got.path[:frames], want)
        assert (got.path[frames:] == -1).all()
        assert (got.scores[frames:] == 0).all()
        log_probs = log_softmax(logits)
        scores = log_probs[np.arange(frames), want]
        np.testing.assert_allclose(got.scores[:frames], scores, atol=1e-6)
        np.testing.assert_allclose(got.score, scores.sum(), rtol=1e-6, atol=1e-6)
        shift = (logits.max(-1) - log_probs.max(-1)).sum()
        np.testing.assert_allclose(got.score, want_score - shift, rtol=1e-5)
        spans = [
            (c, [t for t, _ in run])
            for c, run in itertools.groupby(enumerate(want), key=lambda x: x[1])
            if c != C - 1
        ]
        assert [c for c, _ in spans] == list(labels)
        for s, (_, run) in enumerate(spans):
            assert (got.starts[s], got.ends[s]) == (run[0], run[-1] + 1)
            np.testing.assert_allclose(got.label_scores[s], scores[run].mean(), atol=1e-6)
        assert (got.starts[length:] == -1).all()
        assert (got.label_scores[length:] == 0).all()
    assert BATCH / 3 < feasible < BATCH


@pytest.mark.parametrize("way", INTERPRETERS)
@pytest.mark.parametrize("count", [8, 3], ids=["many", "few"])  # for each axis of the states
def test_kernels_find_the_same_paths_also_if_some_tie(random_batch, way, count):
    pairs = [x[:count] for x in random_batch]
    want = jaxctc.forced_align(*pairs, blank_id=C - 1, wildcard_id=9)
    with choice.interpreted(way):
        got = jaxctc.forced_align(*pairs, blank_id=C - 1, wildcard_id=9)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_score_is_the_best_of_all_alignments():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    log_probs = log_softmax(logits)
    paths = [p for p in itertools.product(range(3), repeat=5) if collapse(p, 0) == (2, 2)]
    best = max(paths, key=lambda p: sum(log_probs[t, c] for t, c in enumerate(p)))
    found = jaxctc.forced_align(logits, [2, 2])
    np.testing.assert_array_equal(found.path, best)
    np.testing.assert_allclose(found.score, log_probs[np.arange(5), best].sum(), rtol=1e-6)


def test_padding_is_never_read(random_batch):
    logits, labels, frames, lengths = (x.copy() for x in random_batch)
    want = jaxctc.forced_align(*random_batch, blank_id=C - 1)
    logits[np.arange(T) >= frames[:, None]] = np.nan
    labels[np.arange(S) >= lengths[:, None]] = 99
    got = jaxctc.forced_align(logits, labels, frames, lengths, blank_id=C - 1)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_batch_axes_jit_vmap_and_half_precision_change_nothing(random_batch):
    want = jaxctc.forced_align(*random_batch, blank_id=C - 1)
    align = lambda *x: jaxctc.forced_align(*x, blank_id=C - 1)  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, jax.vmap(align)(*random_batch), want)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(align)(*random_batch), want)
    nested = align(*(x.reshape(2, BATCH // 2, *x.shape[1:]) for x in random_batch))
    assert nested.path.shape == (2, BATCH // 2, T)
    np.testing.assert_array_equal(nested.path.reshape(want.path.shape), want.path)
    half = align(jnp.asarray(random_batch[0], jnp.bfloat16), *random_batch[1:])  # exact in it
    assert half.score.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, half, want)


def test_long_inputs_keep_the_best_path_in_bounded_memory():
    shapes = [
        jax.ShapeDtypeStruct((20_000, 32), np.float32),
        jax.ShapeDtypeStruct((2_000,), np.int32),
    ]
    memory = jax.jit(jaxctc.forced_align).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 20_000 * 2_000  # a byte for each pair of frame and label

    rng = np.random.default_rng(1)
    labels = rng.integers(1, 32, 100)
    path = np.repeat(np.stack([labels, 0 * labels], 1).reshape(-1), 5)
    logits = 4 * rng.normal(size=(1000, 32)) + 9 * np.eye(32)[path]
    single = jaxctc.forced_align(logits.astype(np.float32), labels)
    with jax.enable_x64(True):
        double = jaxctc.forced_align(logits, labels)
    np.testing.assert_array_equal(single.path, double.path)


@pytest.mark.parametrize("seed", range(3))
def test_the_alignment_of_an_argmax_path_is_that_path(seed):
    logits = np.random.default_rng(seed).normal(size=(30, 6)).astype(np.float32)
    path = logits.argmax(-1)
    labels = np.array(collapse(path, 0))
    padded = np.pad(labels, (0, 30 - len(labels)))
    found = jaxctc.forced_align(logits, padded, label_lengths=len(labels))
    np.testing.assert_array_equal(found.path, path)
    greedy = jaxctc.ctc_greedy_decode(logits)
    np.testing.assert_array_equal(found.starts, greedy.frames)
    np.testing.assert_allclose(found.score, greedy.scores, rtol=1e-6)


def test_posteriors_are_highest_within_the_spans_on_confident_input():
    path = np.array([0, 3, 3, 0, 0, 1, 2, 2, 2, 0, 2, 0])
    noise = np.random.default_rng(0).normal(size=(12, 5))
    logits = (noise + 12 * np.eye(5)[path]).astype(np.float32)
    labels = collapse(path, 0)
    found = jaxctc.forced_align(logits, labels)
    most = jaxctc.ctc_posteriors(logits, labels).labels.argmax(0)
    assert (found.starts <= most).all()
    assert (most < found.ends).all()


def test_a_wildcard_scores_as_the_best_class_of_each_frame():
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(16, 9, 5)).astype(np.float32)
    labels = np.tile([1, 7, 2], (16, 1))  # 7 is not a class
    found = jaxctc.forced_align(logits, labels, wildcard_id=7)
    with_best = np.concatenate([logits, logits.max(-1, keepdims=True)], -1)
    for b in range(16):
        _, path = viterbi(with_best[b], [1, 5, 2], 0)
        np.testing.assert_array_equal(found.path[b], np.where(np.equal(path, 5), 7, path))
        log_probs = log_softmax(with_best[b]) + np.log1p(
            np.exp(with_best[b, :, 5]) / np.exp(logits[b]).sum(-1)
        ).reshape(-1, 1)
        np.testing.assert_allclose(found.scores[b], log_probs[np.arange(9), path], atol=1e-5)
    # Without the wildcard named, 7 is no class.
    assert (jaxctc.forced_align(logits, labels).score == -np.inf).all()


def test_text_missing_from_the_transcript():
    logits = 9 * np.eye(6, dtype=np.float32)[[0, 3, 0, 4, 4, 5, 0, 1, 2]]
    whole = jaxctc.forced_align(logits, [3, 4, 5, 1, 2])
    part = jaxctc.forced_align(logits, [3, 6, 1, 2], wildcard_id=6)
    np.testing.assert_array_equal(
        part.starts[jnp.array([0, 2, 3])], whole.starts[jnp.array([0, 3, 4])]
    )
    np.testing.assert_allclose(part.score, whole.score, rtol=1e-5)


def test_scores_are_differentiable():
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = jaxctc.forced_align(logits, [2, 1])
    gradient = jax.grad(lambda x: jaxctc.forced_align(x, jnp.array([2, 1])).score)(logits)
    want = np.eye(4)[np.asarray(found.path)] - np.exp(log_softmax(logits))
    np.testing.assert_allclose(gradient, want, atol=1e-6)


def test_infeasible_is_flagged():
    logits = np.zeros((2, 3), np.float32)
    for labels in ([1, 1], [1, 2, 1], [3], [0], [-1]):
        found = jaxctc.forced_align(logits, labels, label_lengths=len(labels))
        assert found.score == -np.inf
        assert (found.scores == -np.inf).all()
        assert (found.label_scores == -np.inf).all()
        assert (found.path == -1).all()
        assert (found.starts == -1).all()
        assert (found.ends == -1).all()
    masked = np.where(np.arange(3) == 1, -np.inf, logits)
    assert jaxctc.forced_align(masked.astype(np.float32), [1]).score == -np.inf


def test_infeasible_has_gradient_0():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    closed = np.where(np.arange(4)[:, None] == 2, -np.inf, logits).astype(np.float32)
    for x, labels in ((logits, [1, 1, 1]), (closed, [1, 2])):
        gradient = jax.grad(lambda x, y=labels: jaxctc.forced_align(x, jnp.array(y)).score)(x)
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 1, 0), (0, 1, 1), (0, 1, 2)])
def test_nan_logits_give_nan_scores(value, place):
    logits = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    want = jaxctc.forced_align(logits, [[1], [2]])
    logits[place] = value
    found = jaxctc.forced_align(logits, [[1], [2]])
    for x in (found.score, found.scores, found.label_scores):
        assert np.isnan(x[0]).all()
    for x in (found.path, found.starts, found.ends):
        assert (x[0] == -1).all()
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y[1]), found, want)


def test_empty_axes():
    nothing = jaxctc.forced_align(np.zeros((0, 3), np.float32), [])
    assert nothing.score == 0
    assert nothing.path.shape == (0,)
    assert nothing.starts.shape == (0,)
    assert jaxctc.forced_align(np.zeros((0, 3), np.float32), [1]).score == -np.inf
    np.testing.assert_array_equal(jaxctc.forced_align(np.zeros((2, 3)), []).path, [0, 0])
    assert jaxctc.forced_align(np.zeros((0, 2, 3)), np.zeros((0, 1), int)).path.shape == (0, 2)


def test_errors_name_the_argument():
    logits = np.zeros((4, 3), np.float32)
    with pytest.raises(TypeError, match="logits has dtype int"):
        jaxctc.forced_align(logits.astype(int), [1])
    with pytest.raises(TypeError, match="labels has dtype float"):
        jaxctc.forced_align(logits, [1.5])
    with pytest.raises(ValueError, match="logit_lengths has the value 5"):
        jaxctc.forced_align(logits, [1], 5)
    with pytest.raises(ValueError, match="blank_id is 3"):
        jaxctc.forced_align(logits, [1], blank_id=3)
    with pytest.raises(ValueError, match="wildcard_id is 0"):
        jaxctc.forced_align(logits, [1], wildcard_id=0)
