"""The transducers' greedy decoder against the path of best classes."""

import numpy as np
import pytest
from oracles import log_softmax
from transducer_searches import (
    BATCH,
    LENGTHS,
    Plain,
    T,
    assert_labels_say,
    decoded,
    greedy,
    one,
    plain_greedy,
    show_greedy,
)


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_symbols": 3},
        {"max_symbols": 3, "max_labels": 4},
        {"max_symbols": 2, "monotonic": True},
    ],
    ids=str,
)
def test_greedy_is_the_path_of_best_classes(bounds, encoder):
    found = decoded(greedy, encoder, LENGTHS, **bounds)
    per_frame = 1 if "monotonic" in bounds else bounds["max_symbols"]
    assert found.labels.shape == (BATCH, bounds.get("max_labels", T * per_frame))
    for b, n in enumerate(LENGTHS):
        labels, frames, score = plain_greedy(Plain(encoder[b, :n]), **bounds)
        length = len(labels)
        assert found.lengths[b] == length
        assert tuple(found.labels[b, :length].tolist()) == labels
        assert tuple(found.frames[b, :length].tolist()) == frames
        assert (found.labels[b, length:] == -1).all()
        assert (found.frames[b, length:] == -1).all()
        np.testing.assert_allclose(found.scores[b], score, rtol=1e-5, atol=1e-5)
        assert_labels_say(Plain(encoder[b, :n]), one(found, b), "monotonic" in bounds)


def test_a_transducer_that_never_ends_a_frame_is_ended():
    encoder = np.tile(np.array([-5, 0], np.float32), (4, 1))
    blank, label = log_softmax(encoder[0])
    path = decoded(show_greedy, encoder, max_symbols=3)
    assert path.labels.tolist() == [1] * 12
    assert path.frames.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    np.testing.assert_allclose(path.scores, 4 * blank + 12 * label, rtol=1e-6)
    short = decoded(show_greedy, encoder, max_symbols=3, max_labels=5)
    assert short.frames.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(short.scores, 4 * blank + 5 * label, rtol=1e-6)
