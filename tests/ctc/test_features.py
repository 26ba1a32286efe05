"""The CTC loss from features, against that of all logits; its memory is far less than theirs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc
from jaxctc.core import shares

B, T, D, C, S = 5, 11, 6, 9, 3
LABELS = np.array([[1, 2, 3], [4, 4, 4], [5, 0, 0], [6, 7, 0], [0, 0, 0]], np.int32)
FRAMES = np.array([11, 4, 7, 9, 0], np.int32)  # of the second, three equal labels need five
LENGTHS = np.array([3, 3, 0, 2, 0], np.int32)
PAIR = (LABELS, FRAMES, LENGTHS)


def arrays(dtype=np.float32, shape=(B, T)):
    """Features, and the kernel and the bias of a head."""
    generator = np.random.default_rng(0)
    shapes = ((*shape, D), (D, C), (1, 1, C))
    return tuple(jnp.asarray(generator.standard_normal(s), dtype) for s in shapes)


def from_features(features, kernel, bias, *pair, **options):
    def head(x):
        return x @ kernel + bias

    return jaxctc.ctc_loss_from_features(head, features, *pair, **options)


def of_logits(features, kernel, bias, *pair, **options):
    bias = bias.reshape((1,) * (features.ndim - 1) + (C,))
    return jaxctc.ctc_loss(features @ kernel + bias, *pair, **options)


def loss_and_gradients(loss, *floats, pair=PAIR, **options):
    def run(*floats):
        losses, pullback = jax.vjp(lambda *floats: loss(*floats, *pair, **options), *floats)
        return losses, pullback(
            jnp.cos(jnp.arange(losses.size, dtype=losses.dtype) + 1).reshape(losses.shape)
        )

    return jax.jit(run)(*floats)


@pytest.fixture
def small_blocks(monkeypatch):
    """Shares of gradients in several blocks, as those of large heads are."""
    monkeypatch.setattr(shares, "BLOCK", 2 * C)


def assert_close(found, wanted, **tolerance):
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, **tolerance)


@pytest.mark.parametrize("frames_per_chunk", [1, 4, 11, 100, None])
def test_losses_and_gradients_are_those_of_the_logits(small_blocks, frames_per_chunk):
    found = loss_and_gradients(from_features, *arrays(), frames_per_chunk=frames_per_chunk)
    wanted = loss_and_gradients(of_logits, *arrays())
    assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    losses, (features, *_) = found
    assert np.isinf(losses[1])
    assert losses[4] == 0
    assert not np.any(features[1])


def test_against_float64(small_blocks, compile_fully):
    with jax.enable_x64(True):
        exact = loss_and_gradients(of_logits, *arrays(np.float64))
        same = loss_and_gradients(from_features, *arrays(np.float64), frames_per_chunk=4)
    assert same[0].dtype == np.float64
    assert_close(same, exact, rtol=1e-12, atol=1e-13)
    single = loss_and_gradients(from_features, *arrays(), frames_per_chunk=4)
    assert_close(single, exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_padding_is_never_read(poison):
    features, *head = arrays()
    outside = np.arange(T)[None] >= FRAMES[:, None]
    broken = jnp.where(outside[:, :, None], poison, features)
    found = loss_and_gradients(from_features, broken, *head, frames_per_chunk=4)
    assert_close(found, loss_and_gradients(from_features, features, *head, frames_per_chunk=4))
    assert np.isfinite(found[1][1]).all()
    assert not np.any(found[1][0][outside])


def test_nan_in_a_sequence_is_seen_in_its_loss_only():
    features, *head = arrays()
    losses = jax.jit(lambda x: from_features(x, *head, *PAIR))(features.at[3, 8, 0].set(np.nan))
    assert np.isnan(losses).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("blank", [0, 8])
def test_batch_axes_the_blank_and_no_lengths(blank):
    labels = np.array([[[1, 2], [3, 3]], [[4, 5], [6, 7]], [[5, 5], [1, 3]]], np.int32)
    floats = arrays(shape=(3, 2, T))
    options = dict(pair=(labels,), blank_id=blank)
    found = loss_and_gradients(from_features, *floats, frames_per_chunk=3, **options)
    assert found[0].shape == (3, 2)
    assert_close(found, loss_and_gradients(of_logits, *floats, **options), rtol=1e-5, atol=1e-6)
    one = jax.jit(from_features, static_argnames="blank_id")(
        floats[0][0, 0], *floats[1:], labels[0, 0], blank_id=blank
    )
    assert one.shape == ()
    wanted = jaxctc.ctc_loss(
        floats[0][0, 0] @ floats[1] + floats[2][0], labels[0, 0], blank_id=blank
    )
    np.testing.assert_allclose(one, wanted, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 4, 0), (0, 4, 3)])
def test_no_frames_no_labels_no_sequences(shape):
    sequences, frames, spoken = shape
    pair = (np.ones((sequences, spoken), np.int32),)
    floats = arrays(shape=(sequences, frames))
    found = loss_and_gradients(from_features, *floats, pair=pair)
    assert_close(found, loss_and_gradients(of_logits, *floats, pair=pair), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_half_precision(small_blocks, half):
    """The head's gradient is added up in float32 and rounded last, as that of all logits is."""
    found = loss_and_gradients(from_features, *arrays(half), frames_per_chunk=1)
    wanted = loss_and_gradients(of_logits, *arrays(half))
    exact = loss_and_gradients(of_logits, *(x.astype(jnp.float32) for x in arrays(half)))
    assert found[0].dtype == jnp.float32
    assert [x.dtype for x in found[1]] == [half] * 3
    for got, want, right in zip(found[1], wanted[1], exact[1], strict=True):
        errors = [abs(np.asarray(x, np.float32) - right).max() for x in (got, want)]
        assert errors[0] <= 2 * errors[1] + 1e-6


def test_logits_in_float32_of_features_in_bfloat16():
    features, kernel, bias = arrays(jnp.bfloat16)

    def head(x):
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + bias.astype(jnp.float32)

    found = jax.jit(lambda x: jaxctc.ctc_loss_from_features(head, x, *PAIR))(features)
    wanted = jax.jit(lambda x: jaxctc.ctc_loss(head(x), *PAIR))(features)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_forward_mode_and_second_derivatives(small_blocks):
    with jax.enable_x64(True):
        floats = arrays(np.float64)
        along = tuple(jnp.sin(x) for x in floats)

        def both(loss, **options):
            def total(*floats):
                return loss(*floats, *PAIR, **options).sum(where=np.arange(B) != 1)

            def run(*floats):
                gradient = jax.grad(total, argnums=(0, 1, 2))
                ahead = jax.jvp(gradient, floats, along)
                back = jax.grad(
                    lambda *x: sum((g * v).sum() for g, v in zip(gradient(*x), along, strict=True)),
                    argnums=(0, 1, 2),
                )(*floats)
                return jax.jvp(total, floats, along), ahead, back

            return jax.jit(run)(*floats)

        found = both(from_features, frames_per_chunk=4)
        assert_close(found, both(of_logits), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("axes", [(0, None, None), (0, 0, None), (None, 0, 0), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("outside", [False, True], ids=["gradient of vmap", "vmap of gradient"])
def test_vmap_with_one_head_and_with_many(small_blocks, axes, outside):
    floats = [
        x if axis is None else jnp.stack([x, 2 * x]) for x, axis in zip(arrays(), axes, strict=True)
    ]

    def run(loss):
        def losses(*floats):
            return loss(*floats, *PAIR)

        def total(*floats):
            return losses(*floats).sum(where=np.arange(B) != 1)

        if outside:
            return jax.jit(jax.vmap(jax.grad(total, (0, 1, 2)), axes))(*floats)
        return jax.jit(jax.grad(lambda *x: jax.vmap(total, axes)(*x).sum(), (0, 1, 2)))(*floats)

    found = run(lambda *a: from_features(*a, frames_per_chunk=4))
    assert_close(found, run(of_logits), rtol=1e-4, atol=1e-5)


def memory(loss, shape, argnums=(0, 1, 2)):
    sequences, frames, features, classes = shape

    def total(x, kernel, bias, labels):
        return loss(lambda x: x @ kernel + bias, x, labels).sum()

    structs = [
        *[
            jax.ShapeDtypeStruct(s, jnp.float32)
            for s in ((sequences, frames, features), (features, classes), (1, 1, classes))
        ],
        jax.ShapeDtypeStruct((sequences, 30), jnp.int32),
    ]
    program = jax.jit(jax.value_and_grad(total, argnums)).lower(*structs).compile()
    return program.memory_analysis().temp_size_in_bytes


def all_logits(head, features, labels):
    return jaxctc.ctc_loss(head(features), labels)


def test_memory_does_not_grow_with_frames_times_classes(compile_fully):
    """At the larger shape of the benchmark, and at twice as many frames."""
    used, twice = (
        memory(jaxctc.ctc_loss_from_features, (2, frames, 512, 128000)) for frames in (1500, 3000)
    )
    logits = 4 * 2 * 1500 * 128000
    assert used < memory(all_logits, (2, 1500, 512, 128000)) / 10
    assert twice - used < logits / 50


def test_memory_of_the_head_s_gradient_is_that_of_the_answer(compile_fully):
    """The head is larger than a chunk of logits; its gradient is not in memory twice."""
    shape = (1, 64, 2048, 32000)
    head = 4 * 2048 * 32000
    assert memory(jaxctc.ctc_loss_from_features, shape) < head / 2


def test_what_a_head_must_return():
    features, *_ = arrays()
    with pytest.raises(TypeError, match="head has type int; it must be a function"):
        jaxctc.ctc_loss_from_features(3, features, LABELS)
    with pytest.raises(
        TypeError, match=r"head returned type tuple; it must be an array \[5, 1, C\]"
    ):
        jaxctc.ctc_loss_from_features(lambda x: (x, x), features, LABELS)
    with pytest.raises(TypeError, match="head returned dtype int32; it must be floating-point"):
        jaxctc.ctc_loss_from_features(lambda x: x.astype(int), features, LABELS)
    with pytest.raises(ValueError, match=r"head returned shape \(5, 6\); it must be \[5, 1, C\]"):
        jaxctc.ctc_loss_from_features(lambda x: x[:, 0], features, LABELS)
    with pytest.raises(ValueError, match="blank_id is 6; it must be a class, in 0…5"):
        jaxctc.ctc_loss_from_features(lambda x: x, features, LABELS, blank_id=6)
    with pytest.raises(ValueError, match="frames_per_chunk is 0; it must be at least 1"):
        jaxctc.ctc_loss_from_features(lambda x: x, features, LABELS, frames_per_chunk=0)
    with pytest.raises(ValueError, match="logit_lengths has the value 12; it must be in 0…11"):
        jaxctc.ctc_loss_from_features(lambda x: x, features, LABELS, [12, 1, 1, 1, 1])
