"""What holds for every CTC decoder: batches, precision, no frames, broken logits, errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_searches import BATCH, BLANK, C, T

import jaxctc

DECODERS = {
    "greedy": functools.partial(jaxctc.ctc_greedy_decode, blank_id=BLANK),
    "beam": functools.partial(jaxctc.ctc_beam_search, beam_width=5, blank_id=BLANK),
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_batch_axes_jit_vmap_padding_and_half_precision(decode, logits, lengths):
    rounded = np.asarray(jnp.asarray(logits, jnp.bfloat16).astype(jnp.float32))
    want = decode(rounded, lengths)
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(jax.jit(jax.vmap(decode))(rounded, lengths), want)
    half = decode(jnp.asarray(logits, jnp.bfloat16), lengths)
    assert half.scores.dtype == jnp.float32
    same(half, want)
    poisoned = np.where(np.arange(T)[:, None] < lengths[:, None, None], rounded, np.nan)
    same(decode(poisoned, lengths), want)
    nested = decode(rounded.reshape(3, 4, T, C), lengths.reshape(3, 4))
    same(jax.tree.map(lambda x: x.reshape(BATCH, *x.shape[2:]), nested), want)
    short = decode(rounded[3, : lengths[3]])
    cut = jax.tree.map(lambda x: x[3], want)
    np.testing.assert_array_equal(short.labels, cut.labels[..., : lengths[3]])
    np.testing.assert_allclose(short.scores, cut.scores, rtol=1e-6)


# Of the eight paths of two labels through three frames; none has a blank.
BEST_OF_TIES = {jaxctc.ctc_greedy_decode: 1, jaxctc.ctc_beam_search: 2}  # or: "01" is 001 and 011


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_large_logits_that_tie_are_normalised(decode, scale):
    logits = scale * np.array([[1, 1, -1, -1]] * 3, np.float32)
    best = decode(logits, blank_id=3)
    np.testing.assert_allclose(
        best.scores.reshape(-1)[0], np.log(1 / 8) + np.log(BEST_OF_TIES[decode.func]), rtol=1e-6
    )


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_empty_axes_and_impossible_frames(decode):
    nothing = decode(np.zeros((0, 3), np.float32))
    assert nothing.labels.shape[-1] == 0
    assert nothing.scores.reshape(-1)[0] == 0
    assert decode(np.zeros((0, 2, 3), np.float32)).scores.shape[0] == 0
    only_blank = decode(np.zeros((2, 3), np.float32) - np.where(np.arange(3) == BLANK, 0, np.inf))
    assert only_blank.lengths.reshape(-1)[0] == 0
    assert only_blank.scores.reshape(-1)[0] == 0
    for frame in (np.full(3, -np.inf), np.array([0, np.nan, 1])):
        broken = decode(np.stack([[9, 0, 0], frame, [0, 9, 0]]).astype(np.float32))
        flag = -np.inf if np.isinf(frame).all() else np.nan
        np.testing.assert_array_equal(broken.scores.reshape(-1)[0], np.float32(flag))
        assert broken.lengths.reshape(-1)[0] == 0
        assert (broken.labels == -1).all()
        assert (broken.frames == -1).all()
    logits = np.array([[9, 0, 0], [-np.inf] * 3, [0, 9, 0]], np.float32)
    gradient = jax.grad(lambda x: decode(x).scores.reshape(-1)[0])(logits)
    assert np.isfinite(gradient).all()


def test_with_one_alignment_a_beam_of_one_is_greedy(logits):
    path = logits.argmax(-1)
    sure = np.where(np.arange(C) == path[..., None], 0, -np.inf).astype(np.float32)
    greedy = jaxctc.ctc_greedy_decode(sure, blank_id=BLANK)
    beam = jaxctc.ctc_beam_search(sure, beam_width=1, blank_id=BLANK)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, 0], y), beam, greedy)
    assert (greedy.scores == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0, 1), (0, 1, BLANK), (0, T - 1, 0)], ids=str)
@pytest.mark.parametrize("prune", [None, 1])
def test_nan_logits_give_nan_scores(value, place, prune, logits):
    broken = np.array(logits[:2])
    broken[place] = value
    search = functools.partial(
        jaxctc.ctc_beam_search, beam_width=3, blank_id=BLANK, prune_classes=prune
    )
    found, want = search(broken), search(logits[:2])
    assert np.isnan(found.scores[0]).all()
    assert (found.lengths[0] == 0).all()
    assert np.isnan(jaxctc.ctc_greedy_decode(broken, blank_id=BLANK).scores[0])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y[1]), found, want)


def test_errors_name_the_argument(random_scorer):
    logits = np.zeros((4, 3), np.float32)
    with pytest.raises(TypeError, match="logits has dtype int"):
        jaxctc.ctc_greedy_decode(logits.astype(int))
    with pytest.raises(ValueError, match="logit_lengths has the value 9"):
        jaxctc.ctc_beam_search(logits, 9)
    with pytest.raises(ValueError, match="beam_width is 0"):
        jaxctc.ctc_beam_search(logits, beam_width=0)
    with pytest.raises(TypeError, match="prune_classes has type float"):
        jaxctc.ctc_beam_search(logits, prune_classes=1.5)
    with pytest.raises(ValueError, match="scorer reads 5 classes"):
        jaxctc.ctc_beam_search(logits, scorer=random_scorer)
    for weight in (np.ones(2), "1", None):
        with pytest.raises(TypeError, match=r"scorer_weight is .*; it must be a number"):
            jaxctc.ctc_beam_search(logits, scorer_weight=weight)
    with pytest.raises(ValueError, match=r"^scorer_weight is nan; it must be finite\.$"):
        jaxctc.ctc_beam_search(logits, scorer_weight=float("nan"))
    grammar = jaxctc.Grammar([[{1}]], 3)
    for search in (
        functools.partial(jaxctc.ctc_beam_search, logits),
        functools.partial(jaxctc.ctc_beam_finish, jaxctc.ctc_beam_start(max_labels=4)),
    ):
        with pytest.raises(TypeError, match="scorer has type Grammar; it must be a Scorer"):
            search(scorer=grammar)
        with pytest.raises(
            ValueError, match=r"scorer.final_score has shape \(1,\); it must be \[2\]"
        ):
            search(scorer=dataclasses.replace(grammar.scorer(), final_score=np.zeros(1)))
    state = jaxctc.ctc_beam_start(batch=(2,), beam_width=3, max_labels=4)
    with pytest.raises(ValueError, match="state has batch shape"):
        jaxctc.ctc_beam_extend(state, logits)
    with pytest.raises(TypeError, match="state has type NoneType; it must be a BeamState"):
        jaxctc.ctc_beam_extend(None, logits)
    with pytest.raises(TypeError, match="batch has type int; it must be a tuple"):
        jaxctc.ctc_beam_start(batch=2, max_labels=4)
    with pytest.raises(TypeError, match="dtype is int32; it must be floating-point"):
        jaxctc.ctc_beam_start(max_labels=4, dtype=np.int32)
    with (
        jax.enable_x64(True),
        pytest.raises(TypeError, match="state has dtype float32; it must be float64"),
    ):
        jaxctc.ctc_beam_extend(jaxctc.ctc_beam_start(max_labels=4), logits.astype(np.float64))
