"""The public functions of transducers: values, conventions, transformations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    log_softmax,
    transducer_by_enumeration,
    transducer_by_recursion,
    transducer_gradient,
    transducer_paths,
)
from published import DATA

import jaxctc
from jaxctc.compat import torch

pytestmark = pytest.mark.usefixtures("compile_quickly")

PUBLISHED = {c["name"]: c for c in json.loads((DATA / "rnnt_loss.json").read_text())["cases"]}
LOSS_AND_GRADIENT = {}


def loss_and_gradient(logits, labels, frames=None, lengths=None, blank=0, monotonic=False):
    """Losses [B] and the gradient of their sum; compiled once for each shape."""

    def run(logits, labels, frames, lengths):
        losses, pullback = jax.vjp(
            lambda x: jaxctc.rnnt_loss(
                x, labels, frames, lengths, blank_id=blank, monotonic=monotonic
            ),
            logits,
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    compiled = LOSS_AND_GRADIENT.setdefault((blank, monotonic), jax.jit(run))
    losses, gradient = compiled(logits, labels, frames, lengths)
    return np.asarray(losses), np.array(gradient)


def arcs_of(log_probs, labels, blank_id):
    """Log-probabilities of blanks [T, U + 1] and labels [T, U] of one sequence."""
    label = np.stack(
        [log_probs[:, u, y] for u, y in enumerate(labels)] or [np.zeros((len(log_probs), 0)).T], -1
    )
    return log_probs[..., blank_id], label.reshape(len(log_probs), len(labels))


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


@pytest.mark.parametrize(
    "name", [n for n, c in PUBLISHED.items() if c["expected"]["loss"] and "tdt" not in n]
)
def test_published_numbers(name):
    case = PUBLISHED[name]
    inputs, expected = case["inputs"], case["expected"]
    logits = np.array(inputs["values"], np.float32)
    spoken = logits.shape[2] - 1
    labels = np.array([x + [-1] * (spoken - len(x)) for x in inputs["labels"]], int)
    lengths = np.array(inputs["input_lengths"]), np.array(inputs["label_lengths"])
    losses, gradient = loss_and_gradient(logits, labels, *lengths, inputs["blank"])
    # NeMo reports its losses with FastEmit times one plus the factor in the name.
    factor = float(name.split("_")[-1]) if "fastemit" in name else 0
    # Published digits: six or seven, four in `burn`.
    digits = 1e-4 if "burn" in name else 1e-6
    np.testing.assert_allclose(losses * (1 + factor), expected["loss"], rtol=digits)
    if expected["grad"] is None:
        return
    want = np.array(expected["grad"])
    if expected["grad_wrt"] == "logits":
        np.testing.assert_allclose(gradient, want, atol=1e-6)
    elif "clip" in expected["grad_wrt"]:
        clamped = jax.grad(
            lambda x: torch.rnnt_loss(
                x, labels, *lengths, inputs["blank"], case["clamp"], reduction="sum"
            )
        )(jnp.asarray(logits))
        np.testing.assert_allclose(clamped, want, atol=1e-6)
    else:  # minus the posteriors of the arcs, at the class of each or in two places
        arcs = jaxctc.rnnt_log_probs(logits, labels, *lengths, blank_id=inputs["blank"])
        blank, label = jaxctc.rnnt_posteriors(*arcs, *lengths)
        got = np.zeros_like(want)
        two = "gathered" in expected["grad_wrt"]
        for b, row in enumerate(labels):
            got[b, ..., 0 if two else inputs["blank"]] -= blank[b]
            for u, y in enumerate(row[: lengths[1][b]]):
                got[b, :, u, 1 if two else y] -= label[b, :, u]
        np.testing.assert_allclose(got, want, atol=2e-6)


TORCHAUDIO = np.load(DATA / "torchaudio_rnnt.npz")


@pytest.mark.parametrize("number", sorted({key.split(".")[0] for key in TORCHAUDIO}))
def test_torchaudio(number):
    case = {k: TORCHAUDIO[f"{number}.{k}"] for k in (
        "logits", "targets", "logit_lengths", "target_lengths", "blank", "costs", "grad"
    )}  # fmt: skip
    arguments = case["targets"], case["logit_lengths"], case["target_lengths"], int(case["blank"])
    logits = jnp.asarray(case["logits"])
    costs = torch.rnnt_loss(logits, *arguments, reduction="none")
    np.testing.assert_allclose(costs, case["costs"], rtol=1e-6)
    gradient = jax.grad(lambda x: torch.rnnt_loss(x, *arguments, reduction="sum"))(logits)
    # torchaudio's own numbers are float32 in log-space; ours are nearer to float64's (below).
    np.testing.assert_allclose(gradient, case["grad"], atol=1e-4)
    mean = torch.rnnt_loss(jax.nn.log_softmax(logits), *arguments, fused_log_softmax=False)
    np.testing.assert_allclose(mean, case["costs"].mean(), rtol=1e-6)


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


BATCH = (
    np.random.default_rng(0).standard_normal((3, 6, 5, 7)).astype(np.float32),
    np.array([[1, 2, 2, 3], [6, 5, 4, 0], [1, 1, 1, 1]], np.int32),
    np.array([6, 4, 5], np.int32),
    np.array([4, 2, 0], np.int32),
)


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
    # Under jit lengths can't be seen: those out of range are not feasible.
    losses, gradient = loss_and_gradient(BATCH[0], labels, [7, 0, 5], [4, 2, 5])
    np.testing.assert_array_equal(losses, np.inf)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_arcs_are_seen(value):
    blank, label = np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 2), np.float32)
    label[0, 1, 1] = value
    losses = jaxctc.rnnt_loss_from_log_probs(blank, label)
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
    found = jaxctc.rnnt_align(blank, label)
    for scores in (found.score, found.scores[:, 0], found.scores[:, 1]):
        np.testing.assert_array_equal(np.isnan(scores), [True, False])
    np.testing.assert_array_equal(found.frames[0], -1)


@pytest.mark.parametrize("blank_dtype", [np.float32, np.float64])
def test_arcs_of_two_dtypes(blank_dtype):
    label_dtype = np.float64 if blank_dtype == np.float32 else np.float32
    with jax.enable_x64(True):
        arcs = np.zeros((3, 3), blank_dtype), np.zeros((3, 2), label_dtype)
        assert jaxctc.rnnt_loss_from_log_probs(*arcs).dtype == np.float64
        posteriors = jaxctc.rnnt_posteriors(*arcs)
        assert [x.dtype for x in posteriors] == [blank_dtype, label_dtype]
        assert jaxctc.rnnt_prune_ranges(*posteriors, s_range=2).dtype == np.int32
        found = jaxctc.rnnt_align(*arcs)
        assert found.frames.dtype == np.int32
        assert found.scores.dtype == label_dtype


def test_posteriors_of_broken_logits_are_seen_and_padding_is_not():
    logits = np.zeros((2, 5, 3, 4), np.float32)
    logits[0, 2, 1, 3] = np.nan
    lengths = np.array([4, 5]), np.array([1, 2])
    arcs = jaxctc.rnnt_log_probs(logits, np.array([[1, 2], [1, 2]]), *lengths)
    blank, label = jaxctc.rnnt_posteriors(*arcs, *lengths)
    inside = (np.arange(5) < 4)[:, None] & (np.arange(3) <= 1)
    np.testing.assert_array_equal(np.isnan(blank[0]), inside)
    np.testing.assert_array_equal(np.isnan(label[0]), inside[:, 1:])
    assert not blank[0][~inside].any()
    assert np.isfinite(blank[1]).all()
    assert np.isfinite(label[1]).all()


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


def test_hat_sums_to_one_and_is_what_it_says():
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
def test_the_joint_in_chunks_gives_what_it_gives_at_once(log_probs, frames_per_chunk):
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


def test_without_durations_of_zero_and_with_one_only_it_is_monotonic_up_to_the_last_blank():
    logits, labels, frames, lengths = BATCH
    got = jaxctc.tdt_loss(logits, logits[..., :1], labels, frames, lengths, durations=(1,))
    for b in range(3):
        log_probs = log_softmax(logits[b, : frames[b], : lengths[b] + 1])
        blank, label = arcs_of(log_probs, labels[b, : lengths[b]], 0)
        label[-1] = -np.inf  # a path ends with a blank
        want, *_ = transducer_by_recursion(blank, label, monotonic=True)
        np.testing.assert_allclose(got[b], want, rtol=1e-6)
