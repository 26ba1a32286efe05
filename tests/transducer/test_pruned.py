"""Pruned transducer training: the simple loss, the ranges, and the loss within them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import log_softmax

import jaxctc

GENERATOR = np.random.default_rng(5)
ENCODER = 2 * GENERATOR.standard_normal((3, 7, 6)).astype(np.float32)
PREDICTOR = 2 * GENERATOR.standard_normal((3, 5, 6)).astype(np.float32)
LABELS = np.array([[1, 2, 2, 3], [5, 4, 3, 9], [1, 1, -1, -1]], np.int32)
FRAMES, LENGTHS = np.array([7, 4, 5], np.int32), np.array([4, 3, 0], np.int32)


def poisoned():
    """The same inputs with NaN in everything past a length."""
    encoder, predictor = ENCODER.copy(), PREDICTOR.copy()
    for b in range(3):
        encoder[b, FRAMES[b] :] = np.nan
        predictor[b, LENGTHS[b] + 1 :] = np.nan
    return encoder, predictor


@jax.jit
def simple_and_full(encoder, predictor):
    """Losses and gradients of the simple loss, and of the full one of the same sums."""

    def simple(encoder, predictor):
        return jaxctc.rnnt_loss_simple(encoder, predictor, LABELS, FRAMES, LENGTHS)

    def full(encoder, predictor):
        encoder, predictor = jnp.nan_to_num(encoder), jnp.nan_to_num(predictor)
        logits = encoder[:, :, None] + predictor[:, None]
        return jaxctc.rnnt_loss(logits, LABELS, FRAMES, LENGTHS)

    return tuple(
        (f(encoder, predictor), jax.grad(lambda *x, f=f: f(*x).sum(), (0, 1))(encoder, predictor))
        for f in (simple, full)
    )


@pytest.mark.parametrize("scale", [1, 100], ids=["as they are", "where products underflow"])
def test_simple_equals_full_of_the_summed_logits(scale):
    encoder, predictor = (scale * x for x in poisoned())
    simple, full = simple_and_full(encoder, predictor)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=3e-6), simple, full)


def test_masked_classes_are_probability_zero():
    encoder, predictor = poisoned()
    encoder[..., 5] = -np.inf
    (losses, gradients), _ = simple_and_full(encoder, predictor)
    np.testing.assert_array_equal(np.isinf(losses), [False, True, False])
    assert all(np.isfinite(g).all() for g in gradients)


def test_smoothing_mixes_the_log_probabilities_of_each_alone():
    scales = {"lm_only_scale": 0.25, "am_only_scale": 0.125}
    arcs = jaxctc.rnnt_simple_log_probs(*poisoned(), LABELS, FRAMES, LENGTHS, **scales)
    for b, (frames, spoken) in enumerate(zip(FRAMES, LENGTHS, strict=True)):
        encoder, predictor = ENCODER[b, :frames], PREDICTOR[b, : spoken + 1]
        unigram = np.log(np.exp(log_softmax(predictor)).mean(0))
        mixed = (
            0.625 * log_softmax(encoder[:, None] + predictor)
            + 0.25 * log_softmax(predictor)
            + 0.125 * log_softmax(encoder + unigram)[:, None]
        )
        np.testing.assert_allclose(arcs.blank[b, :frames, : spoken + 1], mixed[..., 0], rtol=1e-5)
        for u, y in enumerate(LABELS[b, :spoken]):
            np.testing.assert_allclose(arcs.label[b, :frames, u], mixed[:, u, y], rtol=1e-5)

    def loss(encoder, predictor):
        losses = jaxctc.rnnt_loss_simple(encoder, predictor, LABELS, FRAMES, LENGTHS, **scales)
        return losses.sum()

    for gradient, given_ in zip(jax.grad(loss, (0, 1))(*poisoned()), poisoned(), strict=True):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(np.asarray(gradient)[np.isnan(given_)], 0)


def losses_and_gradients(encoder, predictor, **scales):
    losses, pullback = jax.vjp(
        lambda *x: jaxctc.rnnt_loss_simple(*x, LABELS, FRAMES, LENGTHS, **scales),
        encoder,
        predictor,
    )
    return np.asarray(losses), pullback(jnp.ones_like(losses))


@pytest.mark.parametrize("scales", [{}, {"lm_only_scale": 0.25, "am_only_scale": 0.125}])
def test_nan_logits_of_any_class_give_nan(scales):
    for value in (np.nan, np.inf):
        for which, place in ((0, (0, 1, 5)), (1, (0, 1, 4))):  # no label, and not the blank
            given_ = poisoned()
            given_[which][place] = value
            losses, _ = losses_and_gradients(*given_, **scales)
            np.testing.assert_array_equal(np.isnan(losses), [True, False, False])


@pytest.mark.parametrize("scales", [{}, {"lm_only_scale": 0.25, "am_only_scale": 0.125}])
def test_a_frame_without_possible_classes_has_no_path(scales):
    encoder, predictor = poisoned()
    predictor[0, 2] = -np.inf
    losses, gradients = losses_and_gradients(encoder, predictor, **scales)
    np.testing.assert_array_equal(np.isinf(losses), [True, False, False])
    assert all(np.isfinite(g).all() for g in gradients)


def test_the_mean_of_tiny_probabilities_does_not_underflow():
    encoder, predictor = poisoned()
    predictor[..., 3] -= 300  # its probability is no float32
    predictor[..., 4] = -np.inf
    losses, gradients = losses_and_gradients(encoder, predictor, am_only_scale=0.5)
    np.testing.assert_array_equal(np.isinf(losses), [False, True, False])
    assert losses[0] > 300
    assert all(np.isfinite(g).all() for g in gradients)


@settings(max_examples=60)
@given(data=st.data())
def test_ranges_are_monotone_and_cover_the_ends(data):
    s_range = data.draw(st.integers(1, 5), "s_range")
    frames = data.draw(st.integers(1, 9), "frames")
    spoken = data.draw(st.integers(0, 8), "labels")
    generator = np.random.default_rng(data.draw(st.integers(0, 2**16), "seed"))
    visits = generator.random((9, 9)) ** 4
    ranges = jaxctc.rnnt_prune_ranges(
        visits, np.zeros((9, 8)), np.array(frames), np.array(spoken), s_range=s_range
    )
    assert ranges.shape == (9, s_range)
    np.testing.assert_array_equal(np.diff(ranges, axis=1), 1)
    begins = np.asarray(ranges[:, 0])
    assert begins[0] == 0
    assert begins[-1] + s_range <= 9
    steps = np.diff(begins)
    assert (steps >= 0).all()
    assert (steps <= max(s_range - 1, 0)).all()
    if spoken + 1 - s_range <= (s_range - 1) * (frames - 1):  # else no ranges reach the end
        assert begins[frames - 1] == max(spoken + 1 - s_range, 0)


@pytest.mark.parametrize("emission", [{"monotonic": True}, {"max_symbols": 1}], ids=str)
def test_ranges_of_few_labels_a_frame_leave_a_path(emission):
    generator = np.random.default_rng(2)
    blank = np.float32(generator.standard_normal((1000, 40, 21)))
    label = np.float32(generator.standard_normal((1000, 40, 20)))
    frames, lengths = generator.integers(20, 41, 1000), np.full(1000, 20)
    posteriors = jaxctc.rnnt_posteriors(blank, label, frames, lengths, **emission)
    ranges = jaxctc.rnnt_prune_ranges(*posteriors, frames, lengths, s_range=3, **emission)
    begins = np.asarray(ranges[..., 0])
    steps = np.diff(begins, axis=1)
    assert ((steps == 0) | (steps == 1)).all()
    np.testing.assert_array_equal(begins[:, 0], 0)
    np.testing.assert_array_equal(begins[np.arange(1000), frames - 1], 18)
    logits = np.zeros((1000, 40, 3, 2), np.float32)
    losses = jaxctc.rnnt_loss_pruned(
        logits, np.ones((1000, 20), int), ranges, frames, lengths, **emission
    )
    assert np.isfinite(losses).all()


def test_ranges_follow_the_posteriors():
    begins = np.array([0, 0, 1, 1, 3, 4, 4])
    blank, label = np.zeros((7, 7)), np.zeros((7, 6))
    for t, b in enumerate(begins):
        label[t, b : b + 2] = blank[t, b + 2] = 1
    ranges = jaxctc.rnnt_prune_ranges(blank, label, s_range=3)
    assert ranges[-1, -1] == 6
    np.testing.assert_array_equal(ranges[:-1, 0], [0, 0, 1, 1, 3, 4])


def ranges_of_k2(blank, label, s_range):
    """k2's rule: of each frame alone, the window within which most probability passes it."""
    frames, spaces = blank.shape
    starts = spaces - s_range + 1
    entering = np.pad(label, ((0, 0), (1, 0)))
    within = [blank[:, s : s + s_range].sum(axis=1) - entering[:, s] for s in range(starts)]
    begins, step = np.argmax(within, axis=0), s_range - 1
    for t in range(frames):
        begins[t] = max(begins[t], starts - 1 - step * (frames - 1 - t), *begins[:t])
    for t in range(frames):
        begins[t] = min(begins[t], begins[t - 1] + step) if t else 0
    return begins[:, None] + np.arange(s_range)


def test_the_rule_loses_less_than_that_of_k2_on_random_models():
    generator, size = np.random.default_rng(0), 100
    encoder = generator.standard_normal((size, 30, 20)).astype(np.float32)
    predictor = generator.standard_normal((size, 11, 20)).astype(np.float32)
    labels = generator.integers(1, 20, (size, 10))
    posteriors = jaxctc.rnnt_posteriors(*jaxctc.rnnt_simple_log_probs(encoder, predictor, labels))

    @jax.jit
    def loss(ranges):
        pruned = jaxctc.rnnt_prune(encoder, predictor, ranges)
        return jaxctc.rnnt_loss_pruned(pruned.encoder + pruned.predictor, labels, ranges).mean()

    ours = loss(jaxctc.rnnt_prune_ranges(*posteriors, s_range=3))
    arrays = zip(*map(np.asarray, posteriors), strict=True)
    theirs = loss(np.stack([ranges_of_k2(blank, label, 3) for blank, label in arrays]))
    assert np.isfinite(theirs)
    assert ours < theirs


@pytest.mark.parametrize("monotonic", [False, True])
def test_with_all_positions_pruned_equals_full(monotonic):
    logits = GENERATOR.standard_normal((3, 7, 5, 6)).astype(np.float32)
    ranges = np.broadcast_to(np.arange(5), (3, 7, 5))
    arguments = {"monotonic": monotonic, "blank_id": 2}

    def pruned(logits):
        return jaxctc.rnnt_loss_pruned(logits, LABELS, ranges, FRAMES, LENGTHS, **arguments)

    def full(logits):
        return jaxctc.rnnt_loss(logits, LABELS, FRAMES, LENGTHS, **arguments)

    np.testing.assert_array_equal(pruned(logits), full(logits))
    for f, g in [(pruned, full)]:
        np.testing.assert_array_equal(
            jax.grad(lambda x, f=f: f(x)[1:].sum())(logits),
            jax.grad(lambda x, g=g: g(x)[1:].sum())(logits),
        )


def test_pruned_equals_full_without_arcs_out_of_range():
    encoder, predictor = ENCODER.copy(), PREDICTOR.copy()
    arcs = jaxctc.rnnt_simple_log_probs(encoder, predictor, LABELS, FRAMES, LENGTHS)
    posteriors = jaxctc.rnnt_posteriors(*arcs, FRAMES, LENGTHS)
    ranges = jaxctc.rnnt_prune_ranges(*posteriors, FRAMES, LENGTHS, s_range=3)
    weights = GENERATOR.standard_normal((6, 6)).astype(np.float32)
    logits = np.tanh(encoder[:, :, None] + predictor[:, None]) @ weights

    def pruned(weights, encoder, predictor):
        kept = jaxctc.rnnt_prune(encoder, predictor, ranges, FRAMES, LENGTHS)
        logits = jnp.tanh(kept.encoder + kept.predictor) @ weights
        return jaxctc.rnnt_loss_pruned(logits, LABELS, ranges, FRAMES, LENGTHS)

    full = jaxctc.rnnt_log_probs(logits, LABELS, FRAMES, LENGTHS)
    covered = (np.asarray(ranges)[..., None] == np.arange(5)).any(-2)
    kept = (
        np.where(covered, full.blank, -np.inf),
        np.where(covered[..., :-1], full.label, -np.inf),
    )
    want = jaxctc.rnnt_loss_from_log_probs(*kept, FRAMES, LENGTHS)
    losses = pruned(weights, encoder, predictor)
    np.testing.assert_allclose(losses, want, rtol=1e-6)
    assert (losses >= jaxctc.rnnt_loss(logits, LABELS, FRAMES, LENGTHS) - 1e-5).all()
    gradients = jax.jit(jax.grad(lambda *x: pruned(*x).sum(), (0, 1, 2)))(weights, *poisoned())
    assert all(np.isfinite(g).all() for g in gradients)
    for gradient, given_ in zip(gradients[1:], poisoned(), strict=True):
        np.testing.assert_array_equal(np.asarray(gradient)[np.isnan(given_)], 0)


def test_ranges_that_lead_nowhere_leave_no_path():
    logits = np.zeros((1, 4, 2, 6), np.float32)
    ranges = np.array([[[0, 1], [2, 3], [3, 4], [3, 4]]])
    losses = jaxctc.rnnt_loss_pruned(logits, LABELS[:1], ranges)
    np.testing.assert_array_equal(losses, np.inf)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: jaxctc.rnnt_loss_simple(ENCODER, PREDICTOR[:, 1:], LABELS),
            ValueError,
            r"predictor_logits has shape \(3, 4, 6\); it must be \(3, 5, 6\)",
        ),
        (
            lambda: jaxctc.rnnt_loss_simple(ENCODER, PREDICTOR, LABELS, lm_only_scale=1.5),
            ValueError,
            r"lm_only_scale is 1.5; it must be in 0…1",
        ),
        (
            lambda: jaxctc.rnnt_loss_simple(
                ENCODER, PREDICTOR, LABELS, lm_only_scale=0.75, am_only_scale=0.75
            ),
            ValueError,
            r"lm_only_scale \+ am_only_scale is 1.5; it must be at most 1",
        ),
        (
            lambda: jaxctc.rnnt_loss_simple(ENCODER, PREDICTOR, LABELS, am_only_scale="a"),
            TypeError,
            r"am_only_scale is 'a'; it must be a number",
        ),
        (
            lambda: jaxctc.rnnt_prune_ranges(ENCODER, ENCODER, s_range=2),
            ValueError,
            r"label_posteriors has shape \(3, 7, 6\); it must be \(3, 7, 5\)",
        ),
        (
            lambda: jaxctc.rnnt_prune_ranges(ENCODER, ENCODER[..., 1:], s_range=0),
            ValueError,
            r"s_range is 0; it must be at least 1",
        ),
        (
            lambda: jaxctc.rnnt_prune(ENCODER, PREDICTOR, np.zeros((3, 7), int)),
            ValueError,
            r"ranges has shape \(3, 7\); it must be \[3, 7, s_range\]",
        ),
        (
            lambda: jaxctc.rnnt_prune(ENCODER, PREDICTOR, np.full((3, 7, 2), 5)),
            ValueError,
            r"ranges has the value 5; it must be in 0…4",
        ),
        (
            lambda: jaxctc.rnnt_prune(ENCODER, PREDICTOR, np.zeros((3, 7, 2))),
            TypeError,
            r"ranges has dtype float64; it must be an integer type",
        ),
        (
            lambda: jaxctc.rnnt_loss_pruned(
                np.zeros((3, 7, 2, 6)), LABELS, np.zeros((3, 7, 3), int)
            ),
            ValueError,
            r"ranges has shape \(3, 7, 3\); it must be \(3, 7, 2\), as logits",
        ),
    ],
)
def test_malformed_calls_have_an_error_message(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
