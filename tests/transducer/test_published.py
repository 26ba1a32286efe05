"""Losses and gradients that others published."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import DATA
from transducer_cases import loss_and_gradient

import jaxctc
from jaxctc.compat import torch

PUBLISHED = {c["name"]: c for c in json.loads((DATA / "rnnt_loss.json").read_text())["cases"]}


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
    if "fastemit_lambda" in case:
        losses, pullback = jax.vjp(
            lambda x: jaxctc.rnnt_loss(x, labels, fastemit_lambda=case["fastemit_lambda"]), logits
        )
        want = case["recomputed_fastemit_grad"]["unclamped"]
        np.testing.assert_allclose(*pullback(jnp.ones_like(losses)), want, atol=1e-6)
    # Published digits: six or seven, four in `burn`.
    digits = 1e-4 if "burn" in name else 1e-6
    np.testing.assert_allclose(losses, expected["loss"], rtol=digits)
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


NEMO = np.load(DATA / "nemo_rnnt.npz")


def test_fastemit_of_nemo():
    labels = NEMO["fastemit.labels"]

    @jax.jit
    def both(logits, factor):
        return jax.value_and_grad(
            lambda x: jaxctc.rnnt_loss(x, labels, fastemit_lambda=factor).sum()
        )(logits)

    cases = zip(*(NEMO[f"fastemit.{k}"] for k in ("lambdas", "costs", "grads")), strict=True)
    for factor, cost, grad in cases:
        value, gradient = both(NEMO["fastemit.logits"], factor)
        np.testing.assert_allclose(value, cost, rtol=1e-6)
        np.testing.assert_allclose(gradient, grad, atol=1e-6)


def test_multi_blank_of_nemo():
    case = {k: NEMO[f"multiblank.{k}"] for k in (
        "logits", "labels", "logit_lengths", "label_lengths", "durations", "sigma", "costs", "grads"
    )}  # fmt: skip
    last = case["logits"].shape[-1] - 1  # NeMo's blank, before which its big blanks are
    big = {last - 1 - i: int(d) for i, d in enumerate(case["durations"])}
    pair = case["labels"], case["logit_lengths"], case["label_lengths"]

    def loss(x):
        return jaxctc.multi_blank_loss(
            x, *pair, big_blanks=big, blank_id=last, sigma=float(case["sigma"])
        )

    losses, pullback = jax.vjp(jax.jit(loss), case["logits"])
    np.testing.assert_allclose(losses, case["costs"], rtol=1e-6)
    np.testing.assert_allclose(*pullback(jnp.ones_like(losses)), case["grads"], atol=1e-6)
