"""Merging in wide beams: by a table as by pairs, and in a search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_searches import as_list, assert_same, prefix_search
from oracles import log_softmax

import jaxctc
from jaxctc.ctc import merging
from jaxctc.decoding.hashing import prefix_hash


def test_parents_by_a_table_are_those_by_pairs():
    rng = np.random.default_rng(0)
    batch, width = 3, 300
    # A random tree: some parents are among the prefixes, some are not.
    prefixes = [[()] for _ in range(batch)]
    for row in prefixes:
        while len(row) < 2 * width:
            longer = (*row[rng.integers(len(row))], int(rng.integers(1, 5)))
            if longer not in row:
                row.append(longer)
    chosen = [[row[i] for i in rng.permutation(len(row))[:width]] for row in prefixes]

    def hashed(labels):
        high, low = jnp.uint32(0), jnp.uint32(0)
        for label in labels:
            high, low = prefix_hash(high, low, jnp.int32(label))
        return int(high), int(low)

    known = {p: hashed(p) for row in prefixes for p in row}
    own = np.array([[known[p] for p in row] for row in chosen], np.uint32)
    above = np.array([[known[p[:-1]] for p in row] for row in chosen], np.uint32)
    length = np.array([[len(p) for p in row] for row in chosen], np.int32)
    words = [(jnp.asarray(x[..., 0]), jnp.asarray(x[..., 1])) for x in (own, above)]
    got = np.asarray(jax.jit(merging.parents)(length, *words))
    for b in range(batch):
        place = {p: i for i, p in enumerate(chosen[b])}
        want = [place.get(p[:-1], -1) if p else -1 for p in chosen[b]]
        assert got[b].tolist() == want


@pytest.mark.parametrize("width", [130, 600])
def test_wide_beams_equal_the_plain_search(width):
    logits = (1.5 * np.random.default_rng(0).normal(size=(1, 9, 5))).astype(np.float32)
    hot = jaxctc.Hotwords({(1, 2): 1.0, (3,): -0.5}, classes=5).scorer()
    for scorer in (None, hot):
        found = jaxctc.ctc_beam_search(logits, beam_width=width, scorer=scorer)
        want = prefix_search(log_softmax(logits[0]), 0, width, scorer)
        got = as_list(jax.tree.map(lambda x: x[0], found))
        assert_same(got[:100], want[:100])


def test_thresholds_that_are_far_change_nothing_and_near_ones_do():
    logits = np.random.default_rng(0).normal(size=(2, 10, 5)).astype(np.float32)
    hot = jaxctc.Hotwords({(1, 2): 1.0}, classes=5).scorer()
    for scorer in (None, hot):
        plain = jaxctc.ctc_beam_search(logits, beam_width=8, scorer=scorer)
        far = jaxctc.ctc_beam_search(
            logits, beam_width=8, scorer=scorer, beam_threshold=1e3, class_threshold=1e3
        )
        jax.tree.map(np.testing.assert_array_equal, far, plain)
        near = jaxctc.ctc_beam_search(logits, beam_width=8, scorer=scorer, beam_threshold=0.5)
        assert ((near.scores > -np.inf).sum(axis=1) < 8).all()
        # Only the best class of each frame is possible, and the blank.
        single = jaxctc.ctc_beam_search(logits, beam_width=8, scorer=scorer, class_threshold=0.0)
        best = np.asarray(logits.argmax(-1))
        for b in range(2):
            labels = np.asarray(single.labels[b, 0])
            assert set(labels[labels >= 0].tolist()) <= set(best[b].tolist()) - {0}
