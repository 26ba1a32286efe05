"""Kernels, interpreted on a CPU, against the scan and float64; and which programs have them.

`conformance.KernelConformance` compares them with all paths.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import INTERPRETERS
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src import callback, effects  # no public name
from oracles import ctc_by_recursion

import jaxctc
from jaxctc.core import recursion
from jaxctc.core.kernels import choice, dispatch, tpu
from jaxctc.core.semirings import LOG, PROBABILITY
from jaxctc.ctc.lattice import lattice

# "kernel" is the scan on a CPU, but with the derivatives and the mapped axes of kernels.
WAYS = ["kernel", *INTERPRETERS]
NEEDS_GPU_KERNELS = pytest.mark.skipif(not dispatch.GPU, reason="jax is older than 0.11")


def by(way):
    return jaxctc.kernels.use(way) if way in ("scan", "kernel") else choice.interpreted(way)


def batch(seed, sequences, frames, classes, labels, sharp=1.0):
    """Logits, labels and lengths; frames and labels past a length are poison."""
    generator = np.random.default_rng(seed)
    logits = sharp * generator.standard_normal((sequences, frames, classes), np.float32)
    logit_lengths = generator.integers(max(frames - 5, 0), frames + 1, sequences)
    label_lengths = generator.integers(max(labels - 3, 0), labels + 1, sequences)
    padded = generator.integers(1, classes, (sequences, labels))
    logits[np.arange(frames) >= logit_lengths[:, None]] = np.nan
    padded[np.arange(labels) >= label_lengths[:, None]] = -7
    return jnp.array(logits), jnp.array(padded), jnp.array(logit_lengths), jnp.array(label_lengths)


@jax.jit
def loss_and_gradient(logits, *pair):
    losses, pullback = jax.vjp(lambda x: jaxctc.ctc_loss(x, *pair), logits)
    return losses, pullback(jnp.ones_like(losses))[0]


def has_kernel(function, *arguments):
    return "jaxctc_recursion" in str(jax.make_jaxpr(function)(*arguments))


def test_the_choice_is_part_of_what_is_compiled():
    arguments = batch(0, 2, 4, 3, 2)
    traced = []

    @jax.jit
    def loss(logits, *pair):
        traced.append(choice.current())
        return jaxctc.ctc_loss(logits, *pair)

    for way in ("auto", "scan", "kernel", "auto", "kernel", "scan"):
        with jaxctc.kernels.use(way):
            loss(*arguments)
            assert has_kernel(loss, *arguments) == (way == "kernel")
            assert has_kernel(jaxctc.ctc_loss, *arguments) == (way == "kernel")
    assert len(traced) == 3
    assert not has_kernel(jaxctc.ctc_loss, *arguments)


def lowered(function, platform, *arguments):
    """The text of a program for a platform, which need not be that of this machine."""
    traced = jax.jit(lambda *arguments: function(*arguments)).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("proven", ["tpu", pytest.param("gpu", marks=NEEDS_GPU_KERNELS)])
def test_automatic_choice_takes_the_kernel_only_where_it_is_proven(monkeypatch, proven):
    """It depends on the platform of the program, not on that of this machine."""
    arguments = batch(0, 2, 4, 3, 2)
    assert not choice.PROVEN  # no kernel has run on a chip yet
    monkeypatch.setattr(choice, "PROVEN", frozenset({proven}))
    jax.clear_caches()
    for platform, name in {"tpu": "tpu", "cuda": "gpu", "cpu": "cpu"}.items():
        text = lowered(jaxctc.ctc_loss, platform, *arguments)
        assert ("tpu_custom_call" in text or "mosaic_gpu" in text) == (name == proven), platform
    with jaxctc.kernels.use("scan"):
        assert not has_kernel(jaxctc.ctc_loss, *arguments)
    jax.clear_caches()


def test_a_wrong_choice():
    with pytest.raises(ValueError, match="which is 'gpu'; it must be one of"):
        jaxctc.kernels.use("gpu")


def test_what_has_no_kernel_is_a_scan(x64):
    """Double precision, other semirings, no frames, and lattices too large for a chip's memory."""
    arguments = batch(0, 2, 4, 3, 2)
    with jaxctc.kernels.use("kernel"):
        assert has_kernel(jaxctc.ctc_loss, *arguments)
        assert not has_kernel(jaxctc.ctc_loss, arguments[0].astype(jnp.float64), *arguments[1:])
        assert has_kernel(jaxctc.forced_align, *arguments)
        made = lattice(*arguments, 0)
        assert has_kernel(recursion.best_path, made.topology, made.scores)
        in_logs = functools.partial(recursion.log_partition, semiring=LOG)
        assert not has_kernel(in_logs, made.topology, made.scores)
    logits, _, *lengths = batch(0, 2, 100, 3, 2)
    fits = []
    for labels in (2_000, 200_000):
        shape = jax.ShapeDtypeStruct((2, labels), jnp.int32)
        made = jax.eval_shape(lambda *a: lattice(*a, 0), logits, shape, *lengths)
        fits.append(tpu.plan(made.topology, made.scores, PROBABILITY) is not None)
    assert fits == [True, False]


@pytest.mark.parametrize(
    ("versions", "too_old"), [(["9.0", "10.0"], False), (["9.0", "8.6"], True), ([None], False)]
)
def test_the_age_of_a_gpu(versions, too_old):
    devices = [types.SimpleNamespace(compute_capability=x) for x in versions]
    assert dispatch._too_old(types.SimpleNamespace(devices=lambda: devices)) == too_old
    assert not dispatch._too_old(None)
    assert not dispatch._too_old(jax.devices("cpu")[0].client)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=4)
@given(data=st.data())
def test_random_shapes(way, data):
    """Around the borders of blocks: of 128 states, of 8 and 128 sequences, of 48 frames."""
    wide = data.draw(st.booleans(), "states along the last axis")
    sequences = data.draw(st.sampled_from([1, 2, 8, 9] if wide else [12, 127, 129]), "sequences")
    labels = data.draw(st.sampled_from([126, 127, 128] if wide else [0, 1, 7, 8]), "labels")
    frames = data.draw(st.sampled_from([0, 1, 47, 48, 49, 97]), "frames")
    sharp = data.draw(st.sampled_from([1.0, 30.0]), "scale of logits")
    if way == "gpu":  # that interpreter is slow
        sequences, frames = min(sequences, 2 if wide else 12), frames % 43
    arguments = batch(data.draw(st.integers(0, 99), "seed"), sequences, frames, 5, labels, sharp)
    want = loss_and_gradient(*arguments)
    with by(way):
        got = loss_and_gradient(*arguments)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)


@pytest.mark.parametrize("way", INTERPRETERS)
def test_kernels_are_as_exact_as_float64(way):
    frames = 60 if way == "gpu" else 200  # that interpreter is slow
    logits, labels, *lengths = batch(1, 2, frames, 6, frames // 6, sharp=4.0)
    with by(way):
        losses, gradient = loss_and_gradient(logits, labels, *lengths)
    for b, (frames, count) in enumerate(zip(*np.asarray(lengths), strict=True)):
        want, want_gradient = ctc_by_recursion(logits[b, :frames], labels[b, :count], 0)
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        np.testing.assert_allclose(gradient[b, :frames], want_gradient, atol=2e-6)
        np.testing.assert_array_equal(gradient[b, frames:], 0)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_infeasible_masked_or_no_number(way):
    logits = np.array(batch(2, 6, 5, 4, 3)[0])
    logits[:] = np.random.default_rng(0).standard_normal(logits.shape)
    labels = jnp.array([[1, 1, 1], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 9, 3], [1, 2, 3]])
    frames, lengths = jnp.array([5, 2, 5, 5, 5, 0]), jnp.array([3, 3, 3, 0, 3, 0])
    logits[2, 1, 2] = -np.inf
    logits[3, 2] = np.nan
    want = loss_and_gradient(logits, labels, frames, lengths)
    with by(way):
        got = loss_and_gradient(logits, labels, frames, lengths)
    np.testing.assert_array_equal(np.isfinite(want[0]), [True, False, True, False, False, True])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_transformations(way, monkeypatch):
    """Forward mode, reverse mode over a mapped axis, nested ones, and rematerialisation."""
    # The interpreter of GPU kernels has effects, which a GPU has not: JAX refuses to have them
    # again. They read and write the interpreter's own memory.
    allowed = effects.remat_allowed_effects
    types = allowed._effect_types | {callback.OrderedIOEffect}
    monkeypatch.setattr(allowed, "_effect_types", types)
    logits, *pair = batch(3, 3, 6, 4, 2)
    logits, pair[1] = jnp.nan_to_num(logits), jnp.array([6, 5, 6])
    inner = jnp.stack([logits, 2 * logits], axis=1)  # mapped axis 1
    tangent = jnp.cos(logits)

    def loss(x):
        return jaxctc.ctc_loss(x, *pair).sum()

    def everything(x):
        return {
            "forward": jax.jvp(loss, (x,), (tangent,)),
            "of mapped": jax.grad(lambda x: jax.vmap(loss, 1)(x).sum())(inner),
            "mapped": jax.vmap(jax.grad(loss), 1)(inner),
            "mapped twice": jax.vmap(jax.vmap(lambda x: jaxctc.ctc_loss(x, pair[0][0])))(inner),
            "remat": jax.grad(jax.checkpoint(loss))(x),
        }

    want = jax.jit(everything)(logits)
    with by(way):
        got = jax.jit(everything)(logits)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6, atol=2e-6), got, want)


@pytest.mark.parametrize("way", WAYS)
def test_second_derivatives(way):
    logits, *pair = batch(4, 1, 4, 3, 2)
    logits, pair[1] = jnp.nan_to_num(logits), jnp.array([4])

    def loss(x):
        return jaxctc.ctc_loss(x, *pair).sum()

    direction = jnp.sin(logits)
    both = lambda x: (  # noqa: E731
        jax.hessian(loss)(x),
        jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), direction))(x),
    )
    want = jax.jit(both)(logits)
    with by(way):
        got = jax.jit(both)(logits)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), got, want)


@pytest.mark.parametrize("monotonic", [False, True])
@pytest.mark.parametrize("way", INTERPRETERS)
def test_transducers(way, monotonic):
    generator = np.random.default_rng(5)
    logits = jnp.array(generator.standard_normal((2, 9, 5, 4)), jnp.float32)
    pair = jnp.array(generator.integers(1, 4, (2, 4))), jnp.array([9, 7]), jnp.array([4, 2])

    def both(x):
        losses, pullback = jax.vjp(lambda x: jaxctc.rnnt_loss(x, *pair, monotonic=monotonic), x)
        return losses, pullback(jnp.ones_like(losses))[0]

    want = jax.jit(both)(logits)
    with by(way):
        got = jax.jit(both)(logits)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), got, want)


def test_posteriors_and_entropy_take_kernels_too():
    logits, *pair = batch(6, 2, 8, 4, 3)
    functions = (jaxctc.ctc_posteriors, jaxctc.ctc_entropy)
    for function in functions:
        want = function(logits, *pair)
        with by("tpu"):
            got = function(logits, *pair)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), got, want)


def test_frames_a_round_change_nothing(monkeypatch):
    """On GPUs the scan's inner loop takes several frames a round; here 5 frames are odd."""
    arguments = batch(7, 2, 5, 4, 2)
    want = loss_and_gradient(*arguments)
    monkeypatch.setattr(recursion, "UNROLL", {jax.default_backend(): recursion.UNROLL["gpu"]})
    jax.clear_caches()
    got = loss_and_gradient(*arguments)
    jax.clear_caches()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), got, want)


def test_no_sequence_is_nothing_to_launch():
    logits, labels = jnp.zeros((0, 3, 9, 5)), jnp.ones((3, 2), jnp.int32)
    with jaxctc.kernels.use("kernel"):
        assert jax.vmap(lambda x: jaxctc.ctc_loss(x, labels))(logits).shape == (0, 3)
        assert jaxctc.ctc_loss(logits[:, 0], labels[:0]).shape == (0,)
    with by("tpu"):
        assert jaxctc.ctc_loss(logits[:, 0], labels[:0]).shape == (0,)
