"""CTC's greedy decoder against the collapsed best path."""

import numpy as np
import pytest
from ctc_searches import BLANK
from oracles import collapse, log_softmax

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")


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
