"""The public functions of CTC: values, conventions, transformations."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import ctc_by_enumeration, ctc_by_recursion, log_softmax
from published import DATA

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")

PUBLISHED = json.loads((DATA / "ctc_loss.json").read_text())["cases"]


LOSS_AND_GRADIENT = {}


def loss_and_gradient(logits, labels, frames=None, lengths=None, blank=0):
    """Losses [B] and the gradient of their sum; compiled once for each shape."""

    def run(logits, labels, frames, lengths):
        losses, pullback = jax.vjp(
            lambda x: jaxctc.ctc_loss(x, labels, frames, lengths, blank_id=blank), logits
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    compiled = LOSS_AND_GRADIENT.setdefault(blank, jax.jit(run))
    losses, gradient = compiled(logits, labels, frames, lengths)
    return np.asarray(losses), np.asarray(gradient)


# Every tiny case in one shape: T = 6, C = 4, S = 4, all of them padded from what was drawn.


@settings(max_examples=60)
@given(data=st.data())
def test_losses_gradients_and_posteriors_are_those_of_all_alignments(data):
    blank = data.draw(st.integers(0, 3), "blank")
    classes = data.draw(st.integers(max(2, blank + 1), 4), "classes")
    frames = data.draw(st.integers(0, 6 if classes < 4 else 5), "frames")
    labels = data.draw(
        st.lists(st.sampled_from([c for c in range(classes) if c != blank]), max_size=4), "labels"
    )
    seed = data.draw(st.integers(0, 2**16), "seed")
    generator = np.random.default_rng(seed)
    logits = np.full((1, 6, 4), np.nan, np.float32)  # poison
    logits[0, :frames] = -np.inf  # classes not in use are masked out
    logits[0, :frames, :classes] = 3 * generator.standard_normal((frames, classes))
    padded = np.full((1, 4), data.draw(st.sampled_from([-1, 0, 3, 99]), "padding"))
    padded[0, : len(labels)] = labels
    lengths = np.array([frames]), np.array([len(labels)])

    log_probs = log_softmax(logits[0, :frames])
    want, posterior = ctc_by_enumeration(log_probs, labels, blank)
    losses, gradient = loss_and_gradient(logits, padded, *lengths, blank)
    np.testing.assert_allclose(losses[0], want, rtol=1e-5, atol=1e-6)
    want_gradient = np.exp(log_probs) - posterior if np.isfinite(want) else 0 * posterior
    np.testing.assert_allclose(gradient[0, :frames], want_gradient, atol=2e-6)
    np.testing.assert_array_equal(gradient[0, frames:], 0)
    feasible = jaxctc.is_feasible(padded, *lengths, blank_id=blank, num_classes=classes)
    assert feasible[0] == np.isfinite(want)

    by_label, by_blank = jaxctc.ctc_posteriors(logits, padded, *lengths, blank_id=blank)
    assert by_label.shape == (1, 6, 4)
    assert by_blank.shape == (1, 6)
    np.testing.assert_allclose(by_blank[0, :frames], posterior[:, blank], atol=2e-6)
    by_class = np.zeros((frames, 4))
    for s, c in enumerate(labels):
        by_class[:, c] += by_label[0, :frames, s]
    np.testing.assert_allclose(by_class, np.where(np.arange(4) == blank, 0, posterior), atol=2e-6)
    np.testing.assert_array_equal(by_label[0, frames:], 0)
    np.testing.assert_array_equal(by_blank[0, frames:], 0)
    np.testing.assert_array_equal(by_label[0, :, len(labels) :], 0)


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["name"])
def test_published_numbers(case):
    inputs, expected = case["inputs"], case["expected"]

    def numbers(x):
        """JSON has nan and inf as strings."""
        return [numbers(y) for y in x] if isinstance(x, list) else float(x)

    logits = np.array(numbers(inputs["values"]), np.float32)
    if inputs["kind"] == "probs":
        with np.errstate(divide="ignore"):
            logits = np.log(logits)
    longest = max(map(len, inputs["labels"]))
    labels = np.array([x + [-1] * (longest - len(x)) for x in inputs["labels"]])
    lengths = np.array(inputs["label_lengths"])
    frames = np.array(inputs["input_lengths"])
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths, inputs["blank"])
    scale = np.ones(len(losses))
    if expected["reduction"].startswith("mean"):
        scale = 1 / np.maximum(lengths, 1) / len(losses)
    want = np.array(numbers(expected["loss"]))
    got = losses if expected["reduction"] == "none" else (losses * scale).sum()
    # Published digits, six in most; `burn` prints float32 results of its own.
    np.testing.assert_allclose(got, want, rtol=3e-6, atol=3e-6)
    if expected["grad"] is not None:
        np.testing.assert_allclose(
            gradient * scale[:, None, None], numbers(expected["grad"]), atol=2e-6, rtol=1e-4
        )


@pytest.mark.usefixtures("compile_fully")
@pytest.mark.parametrize(
    ("frames", "spoken", "classes", "blank"),
    [(18, 7, 68, 67), (200, 30, 32, 0), (1500, 250, 32, 5), (5000, 800, 32, 0)],
)
@pytest.mark.parametrize("kind", ["random", "peaky", "flat"])
def test_float32_is_as_exact_as_float64_at_any_length(frames, spoken, classes, blank, kind):
    generator = np.random.default_rng(frames)
    labels = generator.integers(1, classes, spoken) + blank
    labels = np.where(labels >= classes, labels - classes, labels)
    labels[spoken // 2] = labels[spoken // 2 - 1]
    logits = {
        "random": 2 * generator.standard_normal((frames, classes)),
        "peaky": np.log(
            0.999 * (np.arange(classes) == generator.integers(0, classes, (frames, 1)))
            + 1e-3 / classes
        ),
        "flat": np.zeros((frames, classes)),
    }[kind].astype(np.float32)
    want, want_gradient = ctc_by_recursion(logits, labels, blank)
    losses, gradient = loss_and_gradient(logits[None], labels[None], None, None, blank)
    np.testing.assert_allclose(losses[0], want, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], want_gradient, atol=2e-5)
    np.testing.assert_allclose(gradient[0].sum(axis=-1), 0, atol=2e-5)
    posteriors = jaxctc.ctc_posteriors(logits, labels, blank_id=blank)
    np.testing.assert_allclose(posteriors.labels.sum(-1) + posteriors.blank, 1, atol=2e-5)


def test_a_confident_loss_is_not_negative_and_its_gradient_is_kept():
    logits = jnp.array([[0.0, 17.0], [0.0, 17.0]])  # the true loss is 1.7e-15
    assert 0 <= jaxctc.ctc_loss(logits, jnp.array([1])) < 1e-7
    # Where float32 rounds the probability above 1, a clamp would make the gradient 0.
    generator = np.random.default_rng(0)
    logits = jnp.asarray(generator.uniform(6, 9, (200, 2, 1)) * [[[0, 1.0]]], jnp.float32)
    labels = jnp.ones((200, 1), int)
    losses, gradient = loss_and_gradient(logits, labels)
    assert losses.min() >= 0
    for b in range(0, 200, 20):
        np.testing.assert_allclose(gradient[b], ctc_by_recursion(logits[b], [1], 0)[1], atol=1e-7)
    assert (np.abs(gradient[losses == 0]).max(axis=(1, 2)) > 0).all()


# Conventions


@pytest.fixture(scope="module")
def ragged():
    """A batch with ordinary, empty, zero-frame and infeasible pairs, and where it is feasible."""
    generator = np.random.default_rng(1)
    logits = generator.standard_normal((6, 9, 5)).astype(np.float32)
    labels = generator.integers(1, 5, (6, 4))
    labels[3] = 2  # four equal labels need seven frames
    frames = np.array([9, 7, 5, 6, 0, 0])
    lengths = np.array([4, 2, 0, 4, 0, 1])
    return logits, labels, frames, lengths, np.array([1, 1, 1, 0, 1, 0], bool)


def test_ragged_batches_are_what_single_pairs_are(ragged):
    logits, labels, frames, lengths, feasible = ragged
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    np.testing.assert_array_equal(np.isfinite(losses), feasible)
    np.testing.assert_array_equal(jaxctc.is_feasible(labels, frames, lengths), feasible)
    for b in range(6):
        want, want_gradient = ctc_by_recursion(logits[b, : frames[b]], labels[b, : lengths[b]], 0)
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        np.testing.assert_allclose(gradient[b, : frames[b]], want_gradient, atol=1e-6)
        np.testing.assert_array_equal(gradient[b, frames[b] :], 0)
    assert losses[4] == 0  # no frames, no labels: certain
    np.testing.assert_array_equal(gradient[~feasible], 0)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_padding_changes_no_bit(ragged, poison):
    logits, labels, frames, lengths, _ = ragged
    outside = np.arange(9)[:, None] >= frames[:, None, None]
    poisoned = np.where(outside, np.float32(poison), logits)
    other = np.where(np.arange(4) >= lengths[:, None], -7, labels)
    for got, want in zip(
        loss_and_gradient(poisoned, other, frames, lengths),
        loss_and_gradient(logits, labels, frames, lengths),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
    posteriors = jaxctc.ctc_posteriors(logits, labels, frames, lengths)
    poisoned = jaxctc.ctc_posteriors(poisoned, other, frames, lengths)
    jax.tree.map(np.testing.assert_array_equal, posteriors, poisoned)


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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(ragged, dtype):
    logits, labels, frames, lengths, _ = ragged
    half = jnp.asarray(logits, dtype)
    losses, gradient = loss_and_gradient(half, labels, frames, lengths)
    want, want_gradient = loss_and_gradient(half.astype(jnp.float32), labels, frames, lengths)
    assert losses.dtype == np.float32
    assert gradient.dtype == dtype
    np.testing.assert_array_equal(losses, want)
    np.testing.assert_array_equal(gradient, want_gradient.astype(dtype))


def test_float64(ragged):
    logits, labels, frames, lengths, feasible = ragged
    with jax.enable_x64(True):
        loss = jax.value_and_grad(
            lambda x: jaxctc.ctc_loss(x, labels, frames, lengths).sum(where=feasible)
        )
        total, gradient = loss(logits.astype(np.float64))
    assert gradient.dtype == np.float64
    pairs = [
        ctc_by_recursion(logits[b, : frames[b]], labels[b, : lengths[b]], 0)
        for b in np.flatnonzero(feasible)
    ]
    np.testing.assert_allclose(total, math.fsum(p[0] for p in pairs), rtol=1e-13)
    np.testing.assert_allclose(gradient[1, :7], pairs[1][1], atol=1e-13)


def test_a_masked_class_has_no_probability_and_no_gradient(ragged):
    logits, labels, *_ = ragged
    masked = np.array(logits)
    masked[..., 3] = -np.inf
    masked[2, 4] = -np.inf  # a frame of nothing: no path
    labels = np.where(labels == 3, 1, labels)
    labels[1, 0] = 3  # can't be read
    losses, gradient = loss_and_gradient(masked, labels)
    np.testing.assert_array_equal(np.isfinite(losses), [1, 0, 0, 1, 1, 1])
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[..., 3], 0)
    np.testing.assert_array_equal(gradient[[1, 2]], 0)
    want, want_gradient = ctc_by_recursion(masked[0], labels[0], 0)
    np.testing.assert_allclose(losses[0], want, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], want_gradient, atol=1e-6)


def test_log_probabilities_and_logits_are_the_same(ragged):
    logits, labels, frames, lengths, _ = ragged
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    again, same = loss_and_gradient(log_probs, labels, frames, lengths)
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    np.testing.assert_allclose(same, gradient, atol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 5, 0])
def test_a_label_that_is_no_class_or_the_blank_is_infeasible(ragged, wrong):
    logits, labels, *_ = ragged
    labels = np.array(labels)
    labels[0, 2] = wrong
    losses, gradient = loss_and_gradient(logits, labels)
    assert losses[0] == np.inf
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(losses[1])
    assert not jaxctc.is_feasible(labels, np.full(6, 9), num_classes=5)[0]


def test_lengths_out_of_range_are_infeasible_where_they_cannot_be_seen(ragged):
    logits, labels, *_ = ragged
    frames, lengths = np.array([10, -1, 9, 9, 9, 9]), np.array([4, 4, 5, -1, 4, 4])
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths)
    assert not np.isfinite(losses[:4]).any()
    np.testing.assert_array_equal(gradient[:4], 0)
    assert np.isfinite(losses[4])
    posteriors = jax.jit(jaxctc.ctc_posteriors)(logits, labels, frames, lengths)
    np.testing.assert_array_equal(posteriors.labels[:4], 0)
    np.testing.assert_array_equal(posteriors.blank[:4], 0)
    feasible = jax.jit(jaxctc.is_feasible)(labels, frames, lengths)
    np.testing.assert_array_equal(feasible[1:4], False)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits(size):
    generator = np.random.default_rng(2)
    logits = (size * generator.choice([-1, 0, 1], (8, 12, 5))).astype(np.float32)
    labels = generator.integers(1, 5, (8, 4))
    losses, gradient = loss_and_gradient(logits, labels)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-5)
    for b in range(8):
        want, want_gradient = ctc_by_recursion(logits[b].astype(np.float64), labels[b], 0)
        np.testing.assert_allclose(losses[b], want, rtol=1e-6)
        if size < 1e10:  # beyond, float64 does not know how many best paths there are
            np.testing.assert_allclose(gradient[b], want_gradient, atol=1e-5)


def test_the_same_bits_every_time(ragged):
    logits, labels, frames, lengths, _ = ragged
    first = loss_and_gradient(logits, labels, frames, lengths)
    second = loss_and_gradient(logits, labels, frames, lengths)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


# Transformations


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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_inside_a_sequence_is_seen(ragged, bad):
    logits, labels, frames, lengths, feasible = ragged
    broken = np.array(logits)
    broken[1, 2, 3] = bad
    losses, gradient = loss_and_gradient(broken + 100, labels, frames, lengths)
    np.testing.assert_array_equal(np.isnan(losses), np.arange(6) == 1)
    assert np.isfinite(gradient[feasible & (np.arange(6) != 1)]).all()
    posteriors = jaxctc.ctc_posteriors(broken, labels, frames, lengths)
    inside = np.arange(broken.shape[1]) < np.array(frames)[:, None]
    np.testing.assert_array_equal(np.isnan(posteriors.blank), inside & (np.arange(6) == 1)[:, None])
