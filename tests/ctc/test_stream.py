"""A CTC beam search in pieces gives what it gives at once."""

import chex
import jax
import numpy as np
import pytest
from ctc_searches import BATCH, BLANK, T

import jaxctc


@pytest.mark.parametrize("pieces", [[T], [1] * T, [5, 5, 0, 4]], ids=str)
def test_pieces_give_the_whole_bit_for_bit(pieces, logits, lengths, compile_fully):
    whole = jaxctc.ctc_beam_search(logits, lengths, beam_width=5, blank_id=BLANK)
    state = jaxctc.ctc_beam_start(batch=(BATCH,), beam_width=5, max_labels=T)
    done = 0
    for size in pieces:
        piece = logits[:, done : done + size]
        inside = np.clip(lengths - done, 0, size)
        state = jaxctc.ctc_beam_extend(state, piece, inside, blank_id=BLANK)
        done += size
    np.testing.assert_array_equal(state.frame_count, lengths)
    jax.tree.map(np.testing.assert_array_equal, jaxctc.ctc_beam_finish(state), whole)


def test_pieces_of_one_frame_with_many_classes(compile_fully):
    # XLA sums the classes of one frame in another order than those of many frames.
    x = jax.random.normal(jax.random.key(0), (3, 20, 100)) * 3
    state = jaxctc.ctc_beam_start(batch=(3,), beam_width=4, max_labels=20)
    for t in range(20):
        state = jaxctc.ctc_beam_extend(state, x[:, t : t + 1])
    whole = jaxctc.ctc_beam_search(x, beam_width=4)
    chex.assert_trees_all_equal(jaxctc.ctc_beam_finish(state), whole)


def test_pieces_with_a_scorer(logits, random_scorer, compile_fully):
    extra = {"scorer": random_scorer, "scorer_weight": 0.5}
    whole = jaxctc.ctc_beam_search(logits, beam_width=5, blank_id=BLANK, **extra)
    state = jaxctc.ctc_beam_start(batch=(BATCH,), beam_width=5, max_labels=T, scorer=random_scorer)
    for piece in np.split(logits, 2, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece, blank_id=BLANK, **extra)
    jax.tree.map(np.testing.assert_array_equal, jaxctc.ctc_beam_finish(state, **extra), whole)
