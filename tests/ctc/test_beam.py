"""CTC's beam search against enumeration and a prefix search in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_searches import BATCH, BLANK, C, T, as_list, assert_same, exhaustive_search, prefix_search
from oracles import confidence, log_softmax

import jaxctc

WIDTHS = [1, 2, 5, 40]  # more than 32, too: sets of parents are words of 32 bits


def test_with_a_wide_beam_all_scores_are_exact():
    logits = 2 * np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    found = jaxctc.ctc_beam_search(logits, beam_width=400, blank_id=1)
    for b in range(6):
        want = exhaustive_search(log_softmax(logits[b]), 1)
        got = {
            labels: score for labels, score, _ in as_list(jax.tree.map(lambda x, b=b: x[b], found))
        }
        assert got.keys() == want.keys()
        np.testing.assert_allclose(
            [got[k] for k in want], list(want.values()), atol=2e-6, rtol=1e-6
        )
        assert (np.diff(found.scores[b][: len(want)]) <= 0).all()
    wide = np.broadcast_to(logits[:, None], (6, 400, 5, 4))
    aligned = jaxctc.forced_align(wide, found.labels, None, found.lengths, blank_id=1)
    exists = np.asarray(found.scores) > -np.inf
    starts = np.asarray(aligned.starts)
    np.testing.assert_array_equal(np.asarray(found.frames)[exists], starts[exists])
    # What is said of each label is that of the frames of its run.
    lasting = np.asarray(aligned.ends) - starts
    np.testing.assert_array_equal(np.asarray(found.durations)[exists], lasting[exists])
    found = jax.tree.map(np.asarray, found)
    for b, n in zip(*np.nonzero(exists), strict=True):
        log_probs = log_softmax(logits[b])
        for u, label in enumerate(found.labels[b, n, : found.lengths[b, n]]):
            run = slice(starts[b, n, u], starts[b, n, u] + lasting[b, n, u])
            said = found.label_scores[b, n, u], found.confidences[b, n, u]
            want = log_probs[run, label].max(), confidence(log_probs[run]).max()
            np.testing.assert_allclose(said, want, atol=1e-5)


@pytest.mark.parametrize("width", WIDTHS)
def test_small_beams_equal_the_plain_search(width, logits, lengths):
    found = jaxctc.ctc_beam_search(logits, lengths, beam_width=width, blank_id=BLANK)
    for b, n in enumerate(lengths):
        want = prefix_search(log_softmax(logits[b, :n]), BLANK, width)
        assert_same(as_list(jax.tree.map(lambda x, b=b: x[b], found)), want)


def test_scores_are_lower_bounds_and_frames_those_of_alignments(logits, lengths):
    found = jaxctc.ctc_beam_search(logits, lengths, beam_width=5, blank_id=BLANK)
    wide = np.broadcast_to(logits[:, None], (BATCH, 5, T, C))
    pairs = found.labels, np.broadcast_to(lengths[:, None], (BATCH, 5)), found.lengths
    exists = np.asarray(found.scores) > -np.inf
    loss = jaxctc.ctc_loss(wide, *pairs, blank_id=BLANK)
    assert (np.asarray(found.scores + loss)[exists] < 1e-4).all()
    # Nearly always the best alignment's: it may have left the beam at some frame.
    starts = jaxctc.forced_align(wide, *pairs, blank_id=BLANK).starts
    assert (starts == found.frames).all(-1)[exists].mean() > 0.95


def test_no_beam_is_better_than_one_that_is_wide_enough():
    logits = 2 * np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    best = [
        jaxctc.ctc_beam_search(logits, beam_width=w, blank_id=1).scores[:, 0] for w in (1, 3, 400)
    ]
    assert (best[0] <= best[2] + 1e-5).all()
    assert (best[1] <= best[2] + 1e-5).all()


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_a_scorer_affects_every_choice(weight, logits, lengths, random_scorer):
    found = jaxctc.ctc_beam_search(
        logits,
        lengths,
        beam_width=5,
        blank_id=BLANK,
        scorer=random_scorer,
        scorer_weight=weight,
    )
    for b, n in enumerate(lengths):
        want = prefix_search(log_softmax(logits[b, :n]), BLANK, 5, random_scorer, weight)
        assert_same(as_list(jax.tree.map(lambda x, b=b: x[b], found)), want)


@pytest.mark.parametrize("with_scorer", [False, True])
def test_pruned_classes_have_probability_zero(with_scorer, logits, random_scorer):
    scorer = random_scorer if with_scorer else None
    found = jaxctc.ctc_beam_search(
        logits, beam_width=5, blank_id=BLANK, prune_classes=2, scorer=scorer
    )
    for b in range(BATCH):
        log_probs = log_softmax(logits[b])
        labels = np.where(np.arange(C) == BLANK, -np.inf, log_probs)
        keep = (np.arange(C) == BLANK) | (labels >= np.sort(labels)[:, -2:-1])
        want = prefix_search(np.where(keep, log_probs, -np.inf), BLANK, 5, scorer)
        assert_same(as_list(jax.tree.map(lambda x, b=b: x[b], found)), want)


def test_max_labels(logits):
    allow = jaxctc.Automaton(  # the same as a scorer: at most three labels
        np.tile([[1], [2], [3], [3]], C).astype(np.int32),
        np.tile([[0.0], [0.0], [0.0], [-np.inf]], C).astype(np.float32),
        np.zeros(4, np.float32),
    )
    want = jaxctc.ctc_beam_search(logits, beam_width=5, blank_id=BLANK, scorer=allow)
    found = jaxctc.ctc_beam_search(logits, beam_width=5, blank_id=BLANK, max_labels=3)
    assert found.labels.shape == (BATCH, 5, 3)
    np.testing.assert_array_equal(found.labels, want.labels[:, :, :3])
    np.testing.assert_array_equal(found.scores, want.scores)


def test_equal_scores_are_broken_the_same_way_however_many_candidates():
    logits = np.random.default_rng(0).integers(0, 2, (8, 9, 6)).astype(np.float32)
    few = jaxctc.ctc_beam_search(logits, beam_width=6)
    all_of_them = jaxctc.ctc_beam_search(logits, beam_width=6, max_labels=8)
    np.testing.assert_array_equal(few.labels[:, :, :8], all_of_them.labels)
    np.testing.assert_array_equal(few.scores, all_of_them.scores)


def test_memory_does_not_grow_with_beam_times_classes_times_frames():
    shape = jax.ShapeDtypeStruct((200, 6625), np.float32)
    search = functools.partial(jaxctc.ctc_beam_search, beam_width=32)
    memory = jax.jit(search).lower(shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 200 * 6625 * 4  # a few copies of the logits


def test_double_precision(logits):
    with jax.enable_x64(True):
        found = jaxctc.ctc_beam_search(logits.astype(np.float64), beam_width=5, blank_id=BLANK)
        assert found.scores.dtype == jnp.float64
        for x in (found.labels, found.lengths, found.frames):
            assert x.dtype == jnp.int32
            assert not x.weak_type
        want = prefix_search(log_softmax(logits[0]), BLANK, 5)
        assert_same(as_list(jax.tree.map(lambda x: x[0], found)), want, atol=1e-12)
