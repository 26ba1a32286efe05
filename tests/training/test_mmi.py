"""Discriminative losses against their definition, and gtn's numbers."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import ctc_by_enumeration, fsa_by_enumeration, log_softmax
from published import DATA

import jaxctc
from jaxctc.automata import topologies

LABELS = [[1, 2], [2], [2, 2]]
LENGTHS = np.array([5, 4, 2])  # the last pair needs three frames
LOGITS = np.random.default_rng(0).standard_normal((3, 5, 3)).astype(np.float32)
MODEL = jaxctc.ngram_fsa(LABELS)
NUMERATOR = jaxctc.Fsa.stack(
    [jaxctc.ctc_fsa(y, weight=MODEL.score_sequence(y)) for y in LABELS], states=5, arcs=10
)
DENOMINATOR = jaxctc.ctc_denominator(LABELS)


@jax.jit
def plain(numerator, denominator, logits, lengths):
    losses, pullback = jax.vjp(
        lambda x: jaxctc.lfmmi_loss(x, numerator, denominator, lengths), logits
    )
    return losses, pullback(jnp.ones_like(losses))[0]


@jax.jit
def boosted(logits):
    losses, pullback = jax.vjp(
        lambda x: jaxctc.lfmmi_loss(x, NUMERATOR, DENOMINATOR, LENGTHS, boost=0.5, ctc_weight=0.25),
        logits,
    )
    return losses, pullback(jnp.ones_like(losses))[0]


def test_the_definition():
    losses, gradient = plain(NUMERATOR, DENOMINATOR, LOGITS, LENGTHS)
    assert losses[2] == jnp.inf
    assert not gradient[2].any()
    for b in range(2):
        n = LENGTHS[b]
        above = fsa_by_enumeration(jaxctc.Fsa(*(x[b] for x in NUMERATOR)), LOGITS[b, :n])
        below = fsa_by_enumeration(DENOMINATOR, LOGITS[b, :n])
        np.testing.assert_allclose(losses[b], below[0] - above[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient[b, :n], below[1] - above[1], atol=1e-5)
        assert losses[b] > 0
        assert not gradient[b, n:].any()
    shifted, again = plain(
        NUMERATOR,
        DENOMINATOR,
        LOGITS + 100 * np.cos(np.arange(15.0, dtype="f")).reshape(3, 5, 1),
        LENGTHS,
    )
    np.testing.assert_allclose(shifted, losses, rtol=1e-4)
    np.testing.assert_allclose(again, gradient, atol=1e-4)


def test_the_denominator_has_every_label_sequence_with_its_probability():
    log_probs = log_softmax(LOGITS[0, :4])
    total = [
        MODEL.score_sequence(labels) - ctc_by_enumeration(log_probs, labels, 0)[0]
        for length in range(5)
        for labels in itertools.product([1, 2], repeat=length)
    ]
    below = fsa_by_enumeration(DENOMINATOR, log_probs)[0]
    np.testing.assert_allclose(below, np.logaddexp.reduce(total), rtol=1e-6)


def test_boosting_and_the_ctc_term():
    losses, gradient = boosted(LOGITS)
    assert losses[2] == jnp.inf
    assert not gradient[2].any()
    for b in range(2):
        n = LENGTHS[b]
        own = jaxctc.Fsa(*(x[b] for x in NUMERATOR))
        normal = log_softmax(LOGITS[b, :n])
        above = fsa_by_enumeration(own, normal)
        below = fsa_by_enumeration(DENOMINATOR, normal - 0.5 * above[1])
        want = below[0] - above[0] - 0.25 * above[0]
        np.testing.assert_allclose(losses[b], want, rtol=1e-5, atol=1e-5)
        slope = below[1] - above[1] + 0.25 * (np.exp(normal) - above[1])
        np.testing.assert_allclose(gradient[b, :n], slope, atol=1e-5)


def test_weights_may_be_traced_and_0():
    @jax.jit
    def loss_and_gradient(boost, ctc_weight):
        losses, pullback = jax.vjp(
            lambda x: jaxctc.lfmmi_loss(
                x, NUMERATOR, DENOMINATOR, LENGTHS, boost=boost, ctc_weight=ctc_weight
            ),
            LOGITS,
        )
        return losses, pullback(jnp.ones_like(losses))[0]

    for got, want in (
        (loss_and_gradient(0.5, 0.25), boosted(LOGITS)),
        (loss_and_gradient(0.0, 0.0), plain(NUMERATOR, DENOMINATOR, LOGITS, LENGTHS)),
    ):
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def test_padding_and_nan():
    poisoned = LOGITS.copy()
    poisoned[1, 4:] = np.nan
    poisoned[2, 2:] = np.inf
    for function in (boosted, lambda x: plain(NUMERATOR, DENOMINATOR, x, LENGTHS)):
        for x, y in zip(function(poisoned), function(LOGITS), strict=True):
            np.testing.assert_array_equal(x, y)
        seen = poisoned.copy()
        seen[0, 0, 1] = np.nan
        assert np.isnan(function(seen)[0][0])


def test_gtn_auto_segmentation_criterion():
    data = json.loads((DATA / "fsa.json").read_text())["cases"]
    case = next(c for c in data if c["type"] == "asg")
    emissions = np.array(case["inputs"]["emissions"], np.float32)
    classes = emissions.shape[2]
    # State 0 is the start, 1 + c has just read c; arcs 1 to 1 are the transitions.
    arcs = [(0, 1 + c, c, 0.0) for c in range(classes)]
    arcs += [(1 + a, 1 + b, b, 0.0) for b in range(classes) for a in range(classes)]
    denominator = jaxctc.Fsa.from_arcs(arcs, final=range(1, classes + 1))
    numerators = [
        jaxctc.compose(topologies.OneStateHMM(), jaxctc.linear_fsa(y))
        for y in case["inputs"]["targets"]
    ]
    numerator = jaxctc.Fsa.stack(numerators)
    # The transition of each arc of a numerator: the label before it is the one into its source.
    transition = np.full(numerator.label.shape, len(arcs))
    for b, fsa in enumerate(numerators):
        entered = dict(zip(fsa.destination.tolist(), fsa.label.tolist(), strict=True))
        for i, (source, label) in enumerate(zip(fsa.source, fsa.label, strict=True)):
            if fsa.start[source] == -np.inf:
                transition[b, i] = classes + classes * label + entered[int(source)]

    @jax.jit
    def loss_and_gradients(emissions, transitions):
        def loss(emissions, transitions):
            weight = jnp.concatenate([jnp.zeros(classes), transitions.reshape(-1)])
            below = denominator._replace(weight=weight)
            above = jnp.pad(weight, (0, 1))[transition]
            above = jnp.where(numerator.label < 0, -jnp.inf, above)
            return jaxctc.lfmmi_loss(emissions, numerator._replace(weight=above), below)

        losses, pullback = jax.vjp(loss, emissions, transitions)
        return losses, *pullback(jnp.ones_like(losses))

    losses, by_emission, by_transition = loss_and_gradients(
        emissions, np.zeros((classes, classes), np.float32)
    )
    want = case["expected"]
    np.testing.assert_allclose(losses, want["loss"], atol=1e-3)
    np.testing.assert_allclose(by_emission, want["grad_emissions"], atol=1e-4)
    np.testing.assert_allclose(by_transition, want["grad_transitions_summed"], atol=1e-4)


@pytest.mark.parametrize(
    ("error", "change", "message"),
    [
        (TypeError, {"logits": np.zeros((3, 5, 3), int)}, r"logits has dtype int\d+; it must be"),
        (TypeError, {"numerator": [1]}, r"numerator has type list; it must be an Fsa"),
        (
            ValueError,
            {"denominator": jaxctc.ctc_fsa([7])},
            r"denominator.label has the value 7; it must be in 0…2",
        ),
        (ValueError, {"logit_lengths": [1, 2, 6]}, r"logit_lengths has the value 6; it must be"),
        (ValueError, {"boost": -1.0}, r"boost is -1.0; it must be finite and at least 0"),
        (TypeError, {"boost": "1"}, r"boost is '1'; it must be a number"),
        (ValueError, {"ctc_weight": np.inf}, r"ctc_weight is inf; it must be finite and at"),
    ],
)
def test_malformed_calls(error, change, message):
    arguments = {"logits": LOGITS, "numerator": NUMERATOR, "denominator": DENOMINATOR}
    with pytest.raises(error, match=f"^{message}.*\\.$"):
        jaxctc.lfmmi_loss(**{**arguments, **change})
