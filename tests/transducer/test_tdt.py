"""Transducers whose tokens have durations: values, and what is masked out or broken."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import arcs_of, duration_paths, log_softmax, transducer_by_recursion
from published import DATA
from transducer_cases import BATCH

import jaxctc

PUBLISHED = json.loads((DATA / "rnnt_loss.json").read_text())["cases"]


def test_the_published_durations():
    (case,) = (c for c in PUBLISHED if c["name"] == "nemo_tdt_fixed")
    logits = jnp.array(case["inputs"]["values"])
    labels, sigma = jnp.array(case["inputs"]["labels"]), case["tdt"]["sigma"]

    def loss(logits):
        return jaxctc.tdt_loss(
            logits[..., :4], logits[..., 4:], labels, durations=(0, 1, 2), blank_id=3, sigma=sigma
        )[0]

    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, case["expected"]["loss"][0], rtol=1e-6)
    np.testing.assert_allclose(gradient, case["expected"]["grad"], atol=1e-6)


@pytest.mark.parametrize(
    ("durations", "most"),
    [((0, 1, 3), None), ((3, 0, 2), 1), ((0, 1, 2), 2), ((1, 2, 4), 1)],
    ids=str,
)
@settings(max_examples=20)
@given(data=st.data())
def test_durations_are_those_of_all_paths(durations, most, data):
    frames = data.draw(st.integers(0, 4), "frames")
    labels = data.draw(st.lists(st.integers(1, 3), max_size=3), "labels")
    generator = np.random.default_rng(data.draw(st.integers(0, 2**16), "seed"))
    tokens = np.full((1, 4, 4, 4), np.nan, np.float32)
    lasting = np.full((1, 4, 4, 3), np.nan, np.float32)
    cells = np.s_[:frames, : len(labels) + 1]
    for x in (tokens, lasting):
        x[0][cells] = 2 * generator.standard_normal((frames, len(labels) + 1, x.shape[-1]))
    padded = np.array([labels + [9] * (3 - len(labels))])
    losses, gradients = losses_and_gradients(
        (tokens, lasting), padded, np.array([frames]), np.array([len(labels)]), durations, most
    )
    log_tokens, log_lasting = (log_softmax(x[0][cells]) for x in (tokens, lasting))
    total = 0.0
    for path in duration_paths(frames, len(labels), durations, most):
        total += np.exp(
            sum(
                log_tokens[t, u, labels[u] if is_label else 0]
                + log_lasting[t, u, durations.index(d)]
                for t, u, is_label, d in path
            )
        )
    want = -np.log(total) if total else np.inf
    np.testing.assert_allclose(losses[0], want, rtol=1e-5)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-5)
        rest = np.array(gradient)
        rest[0][cells] = 0
        np.testing.assert_array_equal(rest, 0)


@functools.partial(jax.jit, static_argnums=(4, 5))
def losses_and_gradients(logits, labels, frames, lengths, durations, most):
    options = {"durations": durations, "max_symbols": most}
    losses, pullback = jax.vjp(
        lambda x: jaxctc.tdt_loss(*x, labels, frames, lengths, **options), logits
    )
    return losses, pullback(jnp.ones_like(losses))[0]


def test_durations_that_are_masked_out_or_broken():
    tokens, lasting = np.zeros((3, 4, 3, 5), np.float32), np.zeros((3, 4, 3, 3), np.float32)
    lasting[0, 1, 1] = -np.inf  # no path goes here
    tokens[1, 3, 1, 4] = lasting[2, 3, 1, 2] = np.nan  # nor here: less than two frames are left
    arguments = np.array([[1], [1], [1]]), np.full(3, 4), np.full(3, 1)

    def losses(tokens, lasting):
        return jaxctc.tdt_loss(tokens[:, :, :2], lasting[:, :, :2], *arguments, durations=(2, 3, 4))

    values, pullback = jax.vjp(losses, tokens, lasting)
    np.testing.assert_array_equal(np.isnan(values), [False, True, True])
    assert np.isfinite(values[0])
    for gradient in pullback(jnp.ones_like(values)):
        assert np.isfinite(gradient[0]).all()


def test_without_durations_of_zero_and_with_one_only_it_is_monotonic_up_to_the_last_blank():
    logits, labels, frames, lengths = BATCH
    got = jaxctc.tdt_loss(logits, logits[..., :1], labels, frames, lengths, durations=(1,))
    for b in range(3):
        log_probs = log_softmax(logits[b, : frames[b], : lengths[b] + 1])
        blank, label = arcs_of(log_probs, labels[b, : lengths[b]], 0)
        label[-1] = -np.inf  # a path ends with a blank
        want, *_ = transducer_by_recursion(blank, label, monotonic=True)
        np.testing.assert_allclose(got[b], want, rtol=1e-6)
