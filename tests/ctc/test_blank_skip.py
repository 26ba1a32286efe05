"""Frames that are sure to be blank are skipped; nothing else changes."""

import jax
import numpy as np
import pytest
from ctc_searches import as_list, assert_same, prefix_search
from oracles import log_softmax

import jaxctc

B, T, C, W = 4, 16, 4, 6
SKIP = 0.9


@pytest.fixture(scope="module")
def logits():
    """Runs of blanks of several lengths between labels, some of which repeat."""
    path = np.array(
        [
            [0, 0, 0, 1, 0, 0, 1, 1, 0, 2, 0, 0, 0, 3, 0, 0],
            [1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1],
        ]
    )
    noise = np.random.default_rng(0).normal(size=(B, T, C))
    return (noise + 4.5 * np.eye(C)[path]).astype(np.float32)


LENGTHS = np.array([16, 15, 9, 12])


def test_it_is_the_search_in_which_sure_frames_are_blank(logits):
    found = jaxctc.ctc_beam_search(logits, LENGTHS, beam_width=W, blank_skip_threshold=SKIP)
    skipped = 0
    for b, n in enumerate(LENGTHS):
        log_probs = log_softmax(logits[b, :n])
        sure = log_probs[:, 0] >= np.log(SKIP)
        skipped += (sure[1:] & sure[:-1]).sum()
        log_probs[sure, 1:] = -np.inf
        # A sequence of -inf only is no hypothesis.
        assert_same(
            as_list(jax.tree.map(lambda x, b=b: x[b], found)), prefix_search(log_probs, 0, W)
        )
    assert skipped > 10
    assert found.labels[0, 0, :4].tolist() == [1, 1, 2, 3]  # a repeated label stays two
    assert found.frames[0, 0, :4].tolist() == [3, 6, 9, 13]


def test_off_where_no_blank_is_sure(logits):
    plain = jaxctc.ctc_beam_search(logits, LENGTHS, beam_width=W)
    found = jaxctc.ctc_beam_search(logits, LENGTHS, beam_width=W, blank_skip_threshold=1.0)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_on_a_stream_with_a_scorer(logits):
    """A run that is cut in two is added up in another order: only last bits differ."""
    scorer = jaxctc.Hotwords({(1, 2): 1.0}, classes=C).scorer()
    extra = {"scorer": scorer, "blank_skip_threshold": SKIP}
    whole = jaxctc.ctc_beam_search(logits, LENGTHS, beam_width=W, **extra)
    state = jaxctc.ctc_beam_start(batch=(B,), beam_width=W, max_labels=T, scorer=scorer)
    for i, piece in enumerate(np.split(logits, 4, axis=1)):
        inside = np.clip(LENGTHS - 4 * i, 0, 4)
        state = jaxctc.ctc_beam_extend(state, piece, inside, **extra)
    found = jaxctc.ctc_beam_finish(state, scorer=scorer)
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_array_equal(found.frames, whole.frames)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.5, np.nan])
def test_the_threshold_is_a_probability(logits, value):
    with pytest.raises(ValueError, match=r"blank_skip_threshold is .*; it must be above 0"):
        jaxctc.ctc_beam_search(logits, blank_skip_threshold=value)
