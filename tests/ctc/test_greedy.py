"""CTC's greedy decoder against the collapsed best path."""

import numpy as np
from ctc_searches import BLANK
from oracles import collapse, confidence, log_softmax

import jaxctc


def test_greedy_is_the_collapsed_best_path(logits, lengths):
    found = jaxctc.ctc_greedy_decode(logits, lengths, blank_id=BLANK)
    for b, n in enumerate(lengths):
        path = logits[b, :n].argmax(-1)
        labels = collapse(path, BLANK)
        assert tuple(found.labels[b, : found.lengths[b]].tolist()) == labels
        assert (found.labels[b, found.lengths[b] :] == -1).all()
        begins = [t for t in range(n) if path[t] != BLANK and (t == 0 or path[t] != path[t - 1])]
        np.testing.assert_array_equal(found.frames[b, : len(labels)], begins)
        assert (found.frames[b, len(labels) :] == -1).all()
        want = log_softmax(logits[b, :n]).max(-1, initial=-np.inf).sum()
        np.testing.assert_allclose(found.scores[b], want, rtol=1e-5, atol=1e-6)
        assert_says_what_its_frames_say(logits[b, :n], path, begins, found, b)


def assert_says_what_its_frames_say(logits, path, begins, found, b):
    """Durations, and the surest frame of each label's run."""
    log_probs = log_softmax(logits)
    sure, n = confidence(log_probs), len(begins)
    runs = [[t for t in range(begin, len(path)) if (path[begin : t + 1] == path[begin]).all()]
            for begin in begins]  # fmt: skip
    np.testing.assert_array_equal(found.durations[b, :n], [len(run) for run in runs])
    scores = [max(log_probs[t, path[t]] for t in run) for run in runs]
    np.testing.assert_allclose(found.label_scores[b, :n], scores, rtol=1e-4, atol=1e-6)
    surest = [max(sure[t] for t in run) for run in runs]
    np.testing.assert_allclose(found.confidences[b, :n], surest, rtol=1e-4, atol=1e-6)
    for x in (found.durations, found.label_scores, found.confidences):
        assert (x[b, n:] == 0).all()
