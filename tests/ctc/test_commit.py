"""Streams without end: what all hypotheses agree on is handed out, and its room is free again."""

import jax
import numpy as np
import pytest

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")

T, C, W = 60, 5, 4


@pytest.fixture(scope="module")
def logits():
    # Less and less sure: a doubt leaves the beam once there are greater ones.
    generator = np.random.default_rng(0)
    path = generator.integers(0, C, (2, T))
    height = np.linspace(9, 4, T)[None, :, None]
    return (generator.normal(size=(2, T, C)) + height * np.eye(C)[path]).astype(np.float32)


@pytest.mark.parametrize("with_scorer", [False, True])
def test_committed_and_remaining_labels_are_those_of_the_whole(logits, with_scorer):
    scorer = jaxctc.Hotwords({(1, 2): 1.0}, classes=C).scorer() if with_scorer else None
    whole = jaxctc.ctc_beam_search(logits, beam_width=W, scorer=scorer)
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=W, max_labels=25, scorer=scorer)
    said, frames = [[], []], [[], []]
    for piece in np.split(logits, 6, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece, scorer=scorer)
        labels, at, state = jaxctc.ctc_beam_commit(state)
        for b in range(2):
            said[b] += [c for c in np.asarray(labels[b]).tolist() if c >= 0]
            frames[b] += [t for t in np.asarray(at[b]).tolist() if t >= 0]
    assert not state.beam.full.any()
    assert min(map(len, said)) > 25  # more than there was room for at once
    rest = jaxctc.ctc_beam_finish(state, scorer=scorer)
    np.testing.assert_array_equal(rest.scores, whole.scores)
    np.testing.assert_array_equal(rest.scorer_scores, whole.scorer_scores)
    for b in range(2):
        for n in range(W):
            labels = [*said[b], *np.asarray(rest.labels[b, n, : rest.lengths[b, n]]).tolist()]
            assert labels == np.asarray(whole.labels[b, n, : whole.lengths[b, n]]).tolist()
        at = [*frames[b], *np.asarray(rest.frames[b, 0, : rest.lengths[b, 0]]).tolist()]
        assert np.abs(np.array(at) - np.asarray(whole.frames[b, 0, : len(at)])).max() <= 2


def test_hypotheses_that_differ_commit_nothing():
    logits = np.zeros((3, 3), np.float32)
    state = jaxctc.ctc_beam_start(beam_width=9, max_labels=3)
    state = jaxctc.ctc_beam_extend(state, logits)
    labels, frames, after = jaxctc.ctc_beam_commit(state)
    assert (labels == -1).all()
    assert (frames == -1).all()
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_a_stream_says_that_room_ran_out(logits):
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=W, max_labels=8)
    full = []
    for piece in np.split(logits, 6, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece)
        full.append(bool(state.beam.full.all()))
    assert full[0] is False
    assert full[-1] is True
    with pytest.raises(TypeError, match="state has type int; it must be a BeamState"):
        jaxctc.ctc_beam_commit(3)
