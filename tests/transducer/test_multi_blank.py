"""Multi-blank transducers against all of their paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import log_softmax
from transducer_searches import (
    BLANK,
    LENGTHS,
    START,
    Plain,
    T,
    as_dict,
    decoded,
    enumerate_lasting,
    joint,
    one,
    predictor,
)

import jaxctc

BIG = {3: 2, 1: 4}  # frames of the classes 3 and 1; the blank is 4, and labels are 0 and 2
SIGMA = 0.05


@functools.partial(jax.jit, static_argnums=4)
def loss_and_gradient(logits, labels, frames, lengths, most):
    def loss(x):
        penalties = {"fastemit_lambda": 0.25, "delay_penalty": 0.5}
        shape = {"big_blanks": BIG, "blank_id": 4, "sigma": SIGMA, "max_symbols": most}
        return jaxctc.multi_blank_loss(x, labels, frames, lengths, **shape, **penalties)

    losses, pullback = jax.vjp(loss, logits)
    return losses, pullback(jnp.ones_like(losses))[0]


def paths(frames, labels, most):
    """Every path: the (t, u, class) of its arcs."""

    def onwards(t, u, symbols=0):
        if t == frames:
            if u == len(labels):
                yield ()
            return
        for blank, duration in {4: 1, **BIG}.items():
            if t + duration <= frames:
                for rest in onwards(t + duration, u):
                    yield ((t, u, blank), *rest)
        if u < len(labels) and symbols != most:
            for rest in onwards(t, u + 1, symbols + 1):
                yield ((t, u, labels[u]), *rest)

    return list(onwards(0, 0)) if frames else []


@pytest.mark.parametrize("most", [None, 2])
@settings(max_examples=20)
@given(data=st.data())
def test_losses_and_gradients_are_those_of_all_paths(most, data):
    frames = data.draw(st.integers(0, 5), "frames")
    labels = data.draw(st.lists(st.sampled_from([0, 2]), max_size=3), "labels")
    generator = np.random.default_rng(data.draw(st.integers(0, 2**16), "seed"))
    logits = np.full((1, 5, 4, 5), np.nan, np.float32)  # poison
    cells = np.s_[0, :frames, : len(labels) + 1]
    logits[cells] = 2 * generator.standard_normal((frames, len(labels) + 1, 5))
    padded = np.array([labels + [9] * (3 - len(labels))])
    losses, gradient = loss_and_gradient(
        logits, padded, np.array([frames]), np.array([len(labels)]), most
    )

    log_probs = log_softmax(logits[cells])
    total, used = 0.0, np.zeros(log_probs.shape)
    for path in paths(frames, labels, most):
        early = [0.5 * ((frames - 1) / 2 - t) for t, _, c in path if c in (0, 2)]
        weight = np.exp(sum(log_probs[arc] - SIGMA for arc in path) + sum(early))
        total += weight
        for arc in path:
            used[arc] += weight * (1.25 if arc[2] in (0, 2) else 1)
    if total:
        used /= total
    np.testing.assert_allclose(losses[0], -1.25 * np.log(total) if total else np.inf, rtol=1e-5)
    want = np.exp(log_probs) * used.sum(-1, keepdims=True) - used
    np.testing.assert_allclose(gradient[cells], want, atol=3e-6)
    rest = np.array(gradient)
    rest[cells] = 0
    np.testing.assert_array_equal(rest, 0)


def test_without_big_blanks_it_is_the_transducer_loss_in_every_precision():
    logits = np.random.default_rng(0).standard_normal((3, 5, 3, 4))
    pair = np.array([[1, 2], [3, 3], [2, 9]]), np.array([5, 4, 3]), np.array([2, 2, 1])
    masked = logits.copy()
    masked[..., 3] = -np.inf  # the big blank: the second sequence cannot emit it as a label

    def several(x, big):
        return jaxctc.multi_blank_loss(x, *pair, big_blanks=big)

    both = jax.jit(lambda x: (several(x, {}), jaxctc.rnnt_loss(x, *pair)))
    with jax.enable_x64(True):
        np.testing.assert_allclose(*both(logits), rtol=1e-12)
    np.testing.assert_allclose(*both(jnp.asarray(logits, jnp.bfloat16)), rtol=1e-6)
    losses, pullback = jax.vjp(lambda x: several(x, {3: 2}), np.float32(masked))
    np.testing.assert_array_equal(np.isinf(losses), [False, True, False])
    np.testing.assert_allclose(losses[0], both(np.float32(masked))[1][0], rtol=1e-6)
    (gradient,) = pullback(jnp.ones_like(losses))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1], 0)
    logits[0, 4, 2, 1] = np.nan
    np.testing.assert_array_equal(
        np.isnan(several(np.float32(logits), {3: 2})), [True, False, False]
    )


@pytest.mark.parametrize("big", [{3: 2}, {3: 2, 0: 4}], ids=str)
def test_greedy_decoding_is_the_path_of_best_classes(big, encoder):
    def decode(encoder, lengths):
        return jaxctc.multi_blank_greedy_decode(
            *(joint, predictor, START, encoder, lengths),
            big_blanks=big,
            blank_id=BLANK,
            max_symbols=2,
        )

    found = decoded(decode, encoder, LENGTHS)
    jumps = 0
    for b, frames in enumerate(LENGTHS):
        plain, blanks = Plain(encoder[b, :frames]), {BLANK: 1, **big}
        t, symbols, labels, score = 0, 0, (), 0.0
        emitted = []
        while t < frames:
            log_probs = plain.log_probs(t, labels)
            allowed = range(4) if symbols < 2 else blanks
            c = max(allowed, key=lambda c, x=log_probs: x[c])
            score += log_probs[c]
            if c in blanks:
                t, symbols, jumps = t + blanks[c], 0, jumps + (c != BLANK)
            else:
                emitted.append(t)
                labels, symbols = (*labels, c), symbols + 1
        n = len(labels)
        assert found.lengths[b] == n
        assert found.labels.shape[1] == 2 * T
        assert tuple(found.labels[b].tolist()) == labels + (-1,) * (2 * T - n)
        assert found.frames[b].tolist() == emitted + [-1] * (2 * T - n)
        np.testing.assert_allclose(found.scores[b], score, rtol=1e-5, atol=1e-5)
    assert jumps > 5


BIG_OF_BEAMS = {3: 3}
BOUNDS = {"max_symbols": 2, "max_labels": 3}


class PlainMultiBlank(Plain):
    def arcs(self, t, labels, symbols, max_symbols, max_labels):
        """All that may come: label or None, frames, log-probability."""
        log_probs = self.log_probs(t, labels)
        for blank, frames in {BLANK: 1, **BIG_OF_BEAMS}.items():
            yield None, frames, log_probs[blank]
        if symbols < max_symbols and len(labels) < max_labels:
            for c in (0, 2):
                yield c, 0, log_probs[c]


def beam(encoder, lengths, **options):
    options |= {"big_blanks": BIG_OF_BEAMS, "blank_id": BLANK}
    return jaxctc.multi_blank_beam_search(joint, predictor, START, encoder, lengths, **options)


def test_with_a_wide_beam_all_scores_are_exact(encoder):
    frames, lengths = encoder[:4, :4], np.array([4, 2, 3, 0])
    found = decoded(beam, frames, lengths, beam_width=15, **BOUNDS)
    for b, n in enumerate(lengths):
        want = enumerate_lasting(PlainMultiBlank(frames[b, :n]), **BOUNDS)
        got = as_dict(one(found, b))
        assert got.keys() == want.keys()
        exact = [np.logaddexp.reduce([path[0] for path in want[y]]) for y in got]
        np.testing.assert_allclose(list(got.values()), exact, atol=2e-5)
        for place, y in enumerate(got):
            best = max(want[y])
            assert tuple(found.frames[b, place, : len(y)].tolist()) == best[1]


@pytest.mark.parametrize(
    ("big", "error", "sentence"),
    [
        ([2, 4], TypeError, "^big_blanks has type list; it must be a dict from classes to frames"),
        ({4: 2}, ValueError, "^a class of big_blanks is 4; it must be a class, in 0…3"),
        ({1: 1}, ValueError, r"^big_blanks\[1\] is 1; it must be at least 2"),
        ({0: 2}, ValueError, "^big_blanks is {0: 2}; it must map classes other than the blank"),
        ({1: 2, 2: 2}, ValueError, "to different numbers of frames"),
    ],
)
def test_big_blanks_that_are_none(big, error, sentence):
    with pytest.raises(error, match=sentence):
        jaxctc.multi_blank_loss(np.zeros((2, 2, 4)), np.ones(1, int), big_blanks=big)
