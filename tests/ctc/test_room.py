"""Where `max_labels` ends hypotheses, the result says so, and only there."""

import jax
import numpy as np
import pytest

import jaxctc

T, C = 12, 4
PATH = np.array([0, 1, 1, 0, 2, 0, 0, 3, 3, 0, 0, 0])  # three labels
LOGITS = (9.0 * np.eye(C)[PATH] + np.random.default_rng(0).normal(size=(T, C))).astype(np.float32)
SCORER = jaxctc.Hotwords({(1, 2): 1.0}, classes=C).scorer()


@pytest.mark.parametrize(("width", "scorer"), [(1, None), (16, None), (16, SCORER)])
def test_only_labels_that_are_wanted_fill_the_room(width, scorer):
    for room, full in [(2, True), (3, False)]:
        found = jaxctc.ctc_beam_search(LOGITS, beam_width=width, max_labels=room, scorer=scorer)
        assert found.full.shape == (width,)
        assert (found.full == full).all()
    assert not jaxctc.ctc_beam_search(LOGITS[:3], beam_width=width, scorer=scorer).full.any()


def test_what_is_committed_makes_room():
    long, want = np.concatenate([LOGITS] * 4), [1, 2, 3] * 4
    for commit in (True, False):
        state = jaxctc.ctc_beam_start(beam_width=2, max_labels=5)
        said, full = [], []
        for piece in np.split(long, 8):
            state = jaxctc.ctc_beam_extend(state, piece)
            full.append(bool(state.beam.full))
            if commit:
                labels, _, state = jaxctc.ctc_beam_commit(state)
                said += labels[labels >= 0].tolist()
        best = jaxctc.ctc_beam_finish(state)
        assert (best.full == state.beam.full).all()
        if commit:
            assert not any(full)
            assert said + best.labels[0, : best.lengths[0]].tolist() == want
        else:  # the sixth label is in the fourth piece
            assert full == [False] * 3 + [True] * 5


def test_without_it_the_best_is_that_of_more_room():
    """Of all sequences, in a beam without limit: small and unsure ones."""
    logits = 1.5 * np.random.default_rng(1).normal(size=(200, 5, 3)).astype(np.float32)
    whole = jax.tree.map(lambda x: x[:, 0], jaxctc.ctc_beam_search(logits, beam_width=40))
    shares = []
    for room in (1, 2, 3):
        found = jaxctc.ctc_beam_search(logits, beam_width=40, max_labels=room)
        best, full = found.labels[:, 0], np.asarray(found.full[:, 0])
        same = np.asarray(whole.lengths <= room) & (whole.labels[:, :room] == best).all(1)
        assert same[~full].all()
        shares.append((~same).sum() / full.sum())
    assert min(shares) > 0.5  # where it says so, it is mostly so
