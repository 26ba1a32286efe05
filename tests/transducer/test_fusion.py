"""Scorers in the transducers' searches, and the transducer's own language model as one."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from oracles import log_softmax, scores_of
from transducer_searches import (
    BLANK,
    LABELS,
    START,
    STATES,
    TABLE,
    WEIGHTS,
    C,
    D,
    Plain,
    beam,
    decoded,
    enumerate_alignments,
    greedy,
    joint,
    one,
    predictor,
    same,
)

import jaxctc

FRAMES, WEIGHT = 3, 0.7
BOUNDS: dict[str, Any] = {"max_symbols": 2, "max_labels": 4}


@pytest.fixture(scope="module")
def automaton():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(6, C)).astype(np.float32)
    score[rng.random((6, C)) < 0.2] = -np.inf
    final = rng.normal(size=6).astype(np.float32)
    final[1] = -np.inf
    return jaxctc.Automaton(rng.integers(0, 6, (6, C)).astype(np.int32), score, final)


def internal():
    return jaxctc.rnnt_internal_lm(joint, predictor, START, np.zeros(D, np.float32), blank_id=BLANK)


def plain_internal(labels):
    """The internal model's score of a sequence, by numpy."""
    place, total = 0, 0.0
    for before, label in zip((BLANK, *labels), labels, strict=False):
        place = (3 * place + before + 1) % STATES
        logits = np.tanh(TABLE[place].astype(np.float64)) @ WEIGHTS
        logits[BLANK] = -np.inf
        total += log_softmax(logits)[label]
    return total


def test_the_internal_model_is_the_joint_network_without_speech_and_blank():
    sequences = [(), (1,), (2, 2), (3, 1, 2)]
    np.testing.assert_allclose(
        scores_of(internal(), sequences), [plain_internal(y) for y in sequences], rtol=1e-5
    )
    options = {"blank_id": BLANK, "big_blanks": {3: 2}}
    without = jaxctc.rnnt_internal_lm(joint, predictor, START, np.zeros(D, np.float32), **options)
    scores = scores_of(without, [(0,), (2,), (3,)])
    np.testing.assert_allclose(np.exp(scores[:2]).sum(), 1, rtol=1e-5)
    assert scores[2] == -np.inf
    with pytest.raises(ValueError, match=r"^frame has shape \(1, 3\); it must be \[D\]\.$"):
        jaxctc.rnnt_internal_lm(joint, predictor, START, np.zeros((1, D), np.float32))


def test_a_wide_beam_with_a_scorer_finds_all_it_allows_in_order(encoder, automaton):
    """Brute force over all label sequences, times the scorer, less the internal model."""

    def search(encoder, automaton):
        scorer = jaxctc.combine([automaton, internal()], weights=[1, -0.3])
        return beam(encoder, beam_width=125, scorer=scorer, scorer_weight=WEIGHT, **BOUNDS)

    found = decoded(search, encoder[:4, :FRAMES], automaton)
    for b in range(4):
        got, exact = (
            one(found, b),
            enumerate_alignments(Plain(encoder[b, :FRAMES]), LABELS, **BOUNDS),
        )
        with_end = dict(zip(exact, scores_of(automaton, exact), strict=True))
        longest = [[*y, *[-1] * (5 - len(y))] for y in exact]
        begun = jaxctc.score_sequence(automaton, np.array(longest), final=False)
        so_far = dict(zip(exact, np.asarray(begun).tolist(), strict=True))
        want = {}
        for y, paths in exact.items():
            if so_far[y] > -np.inf:
                complete = with_end[y] > -np.inf
                share = (with_end[y] if complete else so_far[y]) - 0.3 * plain_internal(y)
                score = np.logaddexp.reduce([score for score, _ in paths])
                want[y] = (not complete, -(score + WEIGHT * share), score, share)
        count = int((got.scores > -np.inf).sum())
        assert count == len(want)
        order = sorted(want, key=want.__getitem__)
        assert 0 < int(got.complete.sum()) < count
        ranks = []
        for n in range(count):
            y = tuple(got.labels[n, : got.lengths[n]].tolist())
            ranks.append(want[y][:2])
            assert got.complete[n] != want[y][0]
            np.testing.assert_allclose(got.scores[n], want[y][2], atol=2e-5)
            np.testing.assert_allclose(got.scorer_scores[n], want[y][3], atol=2e-5)
        best = [want[y][:2] for y in order]
        np.testing.assert_allclose(ranks, best, atol=5e-5)


def plain_greedy_with(plain, automaton, place, max_symbols, max_labels):
    table, score, final = (np.asarray(x, np.float64) for x in jax.tree.leaves(automaton))
    labels, frames, total = (), (), 0.0
    share = -final[place] if final[place] > -np.inf else 0.0  # of the end of the segment before
    for t in range(len(plain.encoder)):
        for symbols in range(max_symbols + 1):
            log_probs = plain.log_probs(t, labels)
            rank = log_probs + WEIGHT * np.where(np.arange(C) == BLANK, 0, score[place])
            may = symbols < max_symbols and len(labels) < max_labels
            c = int(np.argmax(rank)) if may else BLANK
            total += log_probs[c]
            if c == BLANK:
                break
            labels, frames = (*labels, c), (*frames, t)
            share, place = share + score[place, c], int(table[place, c])
    complete = final[place] > -np.inf
    return labels, frames, total, share + (final[place] if complete else 0), complete


BEFORE = np.array([[2, 3], [-1, -1], [3, -1], [0, 2], [2, 2], [0, -1], [3, 3], [2, 0]])


def test_greedy_with_a_scorer_takes_the_best_sums(encoder, automaton):
    """Each sequence goes on from the labels of a segment before, or has none."""

    def search(encoder, automaton, state):
        options = {"scorer": automaton, "scorer_weight": WEIGHT, "scorer_state": state}
        return greedy(encoder, **options, **BOUNDS)

    state = jaxctc.scorer_state(automaton, BEFORE)
    found = decoded(search, encoder, automaton, state)
    for b in range(len(encoder)):
        plain = Plain(encoder[b])
        got, want = one(found, b), plain_greedy_with(plain, automaton, int(state[b]), **BOUNDS)
        n = int(got.lengths)
        assert (tuple(got.labels[:n].tolist()), tuple(got.frames[:n].tolist())) == want[:2]
        np.testing.assert_allclose([got.scores, got.scorer_scores], want[2:4], rtol=1e-5)
        assert got.complete == want[4]


def test_a_beam_goes_on_in_the_context_of_the_segment_before(encoder):
    hot = jaxctc.Hotwords({(3, 2): 1.5, (2, 2, 0): 2.0}, classes=C, blank_id=BLANK).scorer()
    known = {"scorer": hot, "scorer_state": jaxctc.scorer_state(hot, BEFORE)}
    options = {"blank_id": BLANK, "beam_width": 4, "max_labels": 6}

    @jax.jit
    def whole(encoder):
        functions = joint, predictor, START
        return jaxctc.rnnt_beam_search(*functions, encoder, monotonic=True, **known, **options)

    @jax.jit
    def stream(encoder):
        batch = (len(encoder),)
        state = jaxctc.rnnt_decode_start(predictor, START, batch=batch, **known, **options)
        end = {"blank_id": BLANK, "scorer": hot, "monotonic": True}
        state = jaxctc.rnnt_decode_extend(state, joint, predictor, encoder, **end)
        return jaxctc.rnnt_decode_finish(state, scorer=hot)

    found = jax.tree.map(np.asarray, whole(encoder))
    rows, places = np.nonzero(found.scores > -np.inf)
    sequences = [
        [y for y in (*BEFORE[b], *found.labels[b, n]) if y >= 0]
        for b, n in zip(rows, places, strict=True)
    ]
    before = np.asarray(jaxctc.score_sequence(hot, BEFORE))
    want = np.array(scores_of(hot, sequences)) - before[rows]
    np.testing.assert_allclose(found.scorer_scores[rows, places], want, atol=1e-6)
    assert len(set(found.scorer_scores[rows, places].round(3))) > 3
    same(stream(encoder), found)
    with pytest.raises(ValueError, match="scorer_state is given without a scorer; it must be gi"):
        beam(encoder, scorer_state=known["scorer_state"])
    with pytest.raises(ValueError, match="scorer_state does not fit; it must have a state of the"):
        greedy(encoder[:2], **known)


def test_labels_are_not_normalised_again():
    """Shallow fusion: a model's sums with a scorer are not probabilities of anything."""
    hot = jaxctc.Hotwords({(1,): math.log(2.0)}, classes=3).scorer()
    frames = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    options = {"beam_width": 4, "monotonic": True, "scorer": hot}
    best = jaxctc.rnnt_beam_search(
        lambda frame, output: frame, lambda state, label: ((), state), (), frames, **options
    )
    assert best.labels[:3, 0].tolist() == [1, -1, 2]
    np.testing.assert_allclose(np.exp(best.scores[:3]), [0.3, 0.5, 0.2], rtol=1e-5)
    np.testing.assert_allclose(np.exp(best.scorer_scores[:3]), [2, 1, 1], rtol=1e-5)


@pytest.mark.parametrize("decode", [jaxctc.rnnt_greedy_decode, jaxctc.rnnt_beam_search])
def test_a_scorer_must_fit(decode):
    args = joint, predictor, START, np.zeros((2, D), np.float32)
    with pytest.raises(TypeError, match="scorer has type int; it must be a Scorer"):
        decode(*args, scorer=3)
    with pytest.raises(ValueError, match="scorer reads 5 classes; it must read 4"):
        decode(*args, scorer=jaxctc.Hotwords({(1,): 1.0}, classes=5).scorer())
    with pytest.raises(ValueError, match="scorer_weight is nan; it must be finite"):
        decode(*args, scorer_weight=math.nan)
