"""Without lengths, labels end at the first negative one, in everything that takes labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc
from jaxctc.compat.flax import ErrorRate

T, C = 7, 5
# The second ends where a decoder's does; past the first negative label nothing counts.
LABELS = np.array([[1, 2, 3], [4, -1, -1], [-1, 2, 3], [2, -7, 1]], np.int32)
LENGTHS = np.array([3, 1, 0, 1], np.int32)
GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.standard_normal((4, T, C)).astype(np.float32)
JOINT = GENERATOR.standard_normal((4, T, 4, C)).astype(np.float32)
MANY = GENERATOR.standard_normal((4, T, 4, C + 1)).astype(np.float32)
DURATIONS = GENERATOR.standard_normal((4, T, 4, 3)).astype(np.float32)
PREDICTOR = GENERATOR.standard_normal((4, 4, C)).astype(np.float32)
PRIORS = np.log(np.full(C, 1 / C, np.float32))
RANGES = np.broadcast_to(np.arange(4), (4, T, 4))


def from_joint(labels, lengths):
    return jaxctc.rnnt_loss_from_joint(jnp.add, LOGITS, PREDICTOR, labels, None, lengths)


FUNCTIONS = {
    "ctc_loss": lambda y, n: jaxctc.ctc_loss(LOGITS, y, None, n),
    "ctc_posteriors": lambda y, n: jaxctc.ctc_posteriors(LOGITS, y, None, n),
    "forced_align": lambda y, n: jaxctc.forced_align(LOGITS, y, None, n),
    "is_feasible": lambda y, n: jaxctc.is_feasible(y, np.array([2, 2, 0, 1]), n),
    "ctc_entropy": lambda y, n: jaxctc.ctc_entropy(LOGITS, y, None, n),
    "ctc_prior_loss": lambda y, n: jaxctc.ctc_prior_loss(LOGITS, y, None, n, log_priors=PRIORS),
    "ctc_loss_from_features": lambda y, n: jaxctc.ctc_loss_from_features(
        jnp.tanh, LOGITS, y, None, n
    ),
    "ctc_mwer_loss": lambda y, n: jaxctc.ctc_mwer_loss(LOGITS, y, None, n, beam_width=2),
    "intermediate_ctc_loss": lambda y, n: jaxctc.intermediate_ctc_loss(
        LOGITS, LOGITS[None], y, None, n
    ),
    "rnnt_loss": lambda y, n: jaxctc.rnnt_loss(JOINT, y, None, n),
    "rnnt_log_probs": lambda y, n: jaxctc.rnnt_log_probs(JOINT, y, None, n),
    "hat_log_probs": lambda y, n: jaxctc.hat_log_probs(JOINT, y, None, n),
    "rnnt_loss_from_joint": from_joint,
    "rnnt_loss_simple": lambda y, n: jaxctc.rnnt_loss_simple(LOGITS, PREDICTOR, y, None, n),
    "rnnt_simple_log_probs": lambda y, n: jaxctc.rnnt_simple_log_probs(
        LOGITS, PREDICTOR, y, None, n
    ),
    "rnnt_pruned_log_probs": lambda y, n: jaxctc.rnnt_pruned_log_probs(JOINT, y, RANGES, None, n),
    "rnnt_loss_pruned": lambda y, n: jaxctc.rnnt_loss_pruned(JOINT, y, RANGES, None, n),
    "tdt_loss": lambda y, n: jaxctc.tdt_loss(JOINT, DURATIONS, y, None, n, durations=(0, 1, 2)),
    "tdt_posteriors": lambda y, n: jaxctc.tdt_posteriors(
        JOINT, DURATIONS, y, None, n, durations=(0, 1, 2)
    ),
    "tdt_align": lambda y, n: jaxctc.tdt_align(JOINT, DURATIONS, y, None, n, durations=(0, 1, 2)),
    "multi_blank_loss": lambda y, n: jaxctc.multi_blank_loss(MANY, y, None, n, big_blanks={5: 2}),
    "edit_distance": lambda y, n: jaxctc.edit_distance(y, LABELS[::-1], n, LENGTHS[::-1]),
    "edit_operations": lambda y, n: jaxctc.edit_operations(y, LABELS[::-1], n, LENGTHS[::-1]),
    "error_rate": lambda y, n: jaxctc.error_rate(LABELS[::-1], y, LENGTHS[::-1], n),
}


def test_nothing_that_takes_label_lengths_is_left_out():
    known = {
        "rnnt_loss_from_log_probs",
        "rnnt_posteriors",
        "rnnt_align",
        "w_transducer_loss",
        "rnnt_with_star",
    }  # without the labels
    known |= {"rnnt_prune", "rnnt_prune_ranges", "explain"}
    for name, value in vars(jaxctc).items():
        names = getattr(getattr(value, "__code__", None), "co_varnames", ())
        if {"label_lengths", "reference_lengths"} & {*names} and name not in known:
            assert name in FUNCTIONS, name


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_labels_end_at_the_first_negative_one(function):
    with_lengths = jax.jit(function)
    want = with_lengths(LABELS, LENGTHS)
    for got in (jax.jit(lambda y: function(y, None))(LABELS), function(LABELS, None)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, want)
    first = jax.tree.leaves(want)[0]
    assert not np.isinf(np.asarray(first[:2] if first.ndim else first)).any()


@pytest.mark.parametrize("name", ["ctc_loss", "rnnt_loss", "rnnt_loss_simple", "tdt_loss"])
def test_a_negative_label_before_a_length_is_infeasible(name):
    losses = FUNCTIONS[name](LABELS, np.array([3, 2, 0, 3]))
    np.testing.assert_array_equal(np.isfinite(losses), [True, False, True, False])


def test_what_a_decoder_returned_is_a_target():
    found = jaxctc.ctc_beam_search(LOGITS, beam_width=3)
    losses = jaxctc.ctc_loss(LOGITS, found.labels[:, 0])
    np.testing.assert_allclose(
        losses, jaxctc.ctc_loss(LOGITS, found.labels[:, 0], None, found.lengths[:, 0]), rtol=1e-6
    )
    assert np.isfinite(losses).all()
    gradient = jax.grad(lambda x: jaxctc.ctc_loss(x, LABELS).sum())(LOGITS)
    assert (np.abs(gradient).max(axis=(1, 2)) > 0).all()


def test_arcs_of_padded_labels_need_their_lengths():
    for arcs in (
        jaxctc.rnnt_log_probs(JOINT, LABELS),
        jaxctc.hat_log_probs(JOINT, LABELS),
        jaxctc.rnnt_simple_log_probs(LOGITS, PREDICTOR, LABELS),
    ):
        assert np.isfinite(jaxctc.rnnt_loss_from_log_probs(*arcs, None, LENGTHS)).all()
        without = jaxctc.rnnt_loss_from_log_probs(*arcs)
        np.testing.assert_array_equal(np.isfinite(without), [True, False, False, False])


def test_scores_of_sequences_and_metrics_of_batches():
    fsa = jaxctc.linear_fsa([4])
    assert fsa.score_sequence(LABELS[1]) == fsa.score_sequence([4]) == 0
    metric = ErrorRate()
    metric.update(hypotheses=LABELS[::-1], references=LABELS)
    want = jaxctc.error_rate(LABELS[::-1], LABELS)
    np.testing.assert_allclose(metric.compute(), want)
