"""A transducer's search in pieces gives what it gives at once, and commits what is sure."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transducer_searches import BATCH, BLANK, LENGTHS, START, C, D, T, joint, predictor, same

import jaxctc

DURATIONS = (0, 1, 3)
DURATION_WEIGHTS = np.random.default_rng(5).normal(size=(D, 3)).astype(np.float32)
HOT = jaxctc.Hotwords({(1, 3): 0.5, (2,): 0.3}, classes=C).scorer()
MOST = 27


def joint_with_durations(frame, output):
    return 4 * joint(frame, output), 4 * jnp.tanh(frame + output) @ DURATION_WEIGHTS


class Kind(NamedTuple):
    """A way to decode: of the whole, and of a stream."""

    whole: Any
    joint: Any
    start: dict[str, Any]
    extend: dict[str, Any]
    finish: dict[str, Any]


FUSION = {"scorer": HOT, "scorer_weight": 0.8}
LASTING, BIG = {"durations": DURATIONS}, {"big_blanks": {3: 3}}
KINDS = {
    "greedy": Kind(
        jaxctc.rnnt_greedy_decode, joint, {"scorer": HOT}, {"max_symbols": 3, **FUSION}, FUSION
    ),
    "beam": Kind(jaxctc.rnnt_beam_search, joint, {"beam_width": 4}, {"max_symbols": 2}, {}),
    "monotonic": Kind(
        jaxctc.rnnt_beam_search, joint, {"beam_width": 3}, {"monotonic": True}, {}
    ),
    "TDT greedy": Kind(
        jaxctc.tdt_greedy_decode, joint_with_durations, LASTING, {"max_symbols": 3, **LASTING}, {}
    ),
    "multi-blank beam": Kind(
        jaxctc.multi_blank_beam_search,
        joint,
        {"beam_width": 3, **BIG},
        {"max_symbols": 2, **BIG},
        {},
    ),
    "TDT beam": Kind(
        jaxctc.tdt_beam_search,
        joint_with_durations,
        {"beam_width": 3, "scorer": HOT, **LASTING},
        {"max_symbols": 2, **LASTING, **FUSION},
        FUSION,
    ),
}  # fmt: skip


@functools.cache
def programs(name):
    """The search of the whole, and its extension by a piece, compiled."""
    kind = KINDS[name]
    width = {k: v for k, v in kind.start.items() if k == "beam_width"}
    options = {"blank_id": BLANK, **kind.extend}
    functions = kind.joint, predictor

    def whole(encoder, lengths):
        more = {"max_labels": MOST, **options, **width}
        return kind.whole(*functions, START, encoder, lengths, **more)

    def extend(state, piece, lengths):
        return jaxctc.rnnt_decode_extend(state, *functions, piece, lengths, **options)

    return jax.jit(whole), jax.jit(extend)


def start(name, batch=(BATCH,), most=MOST):
    options = {"max_labels": most, "batch": batch, "blank_id": BLANK, **KINDS[name].start}
    return jaxctc.rnnt_decode_start(predictor, START, **options)


def pieces(encoder, longest, sizes):
    """The encoder's output in pieces of one shape, with their lengths."""
    done = 0
    for size in sizes:
        piece = np.full((BATCH, longest, D), np.nan, np.float32)
        piece[:, :size] = encoder[:, done : done + size]
        yield piece, np.clip(LENGTHS - done, 0, size)
        done += size


@pytest.mark.parametrize(
    ("name", "longest", "sizes"),
    [("greedy", 1, [1] * T), *((name, 2, [1, 2, 0, 2, 2, 2]) for name in KINDS)],
    ids=str,
)
def test_pieces_give_the_whole_bit_for_bit(name, longest, sizes, encoder):
    whole, extend = programs(name)
    state = start(name)
    for piece in pieces(encoder, longest, sizes):
        state = extend(state, *piece)
    np.testing.assert_array_equal(state.frame_count, LENGTHS)
    same(jaxctc.rnnt_decode_finish(state, **KINDS[name].finish), whole(encoder, LENGTHS))


@pytest.mark.parametrize("name", ["greedy", "monotonic", "TDT beam"])
def test_committed_and_remaining_labels_are_those_of_the_whole(name, encoder):
    """Also when streams are taken apart and put together between pieces."""
    whole, extend = programs(name)
    sure = 5 * encoder  # so that hypotheses agree
    best = jax.tree.map(np.asarray, whole(sure, LENGTHS))
    state, said, frames = start(name), [[] for _ in LENGTHS], [[] for _ in LENGTHS]
    for piece in pieces(sure, 2, [2, 2, 2, 2, 1]):
        state = extend(state, *piece)
        labels, at, state = jaxctc.rnnt_decode_commit(state, **KINDS[name].finish)
        for b in range(BATCH):
            said[b] += [c for c in np.asarray(labels[b]).tolist() if c >= 0]
            frames[b] += [t for t in np.asarray(at[b]).tolist() if t >= 0]
        parts = [jax.tree.map(lambda x, b=b: x[b], state) for b in range(BATCH)]
        state = jax.tree.map(lambda *x: jnp.stack(x), *parts)
    assert not state.full.any()
    assert sum(map(len, said)) > 2
    rest = jax.tree.map(np.asarray, jaxctc.rnnt_decode_finish(state, **KINDS[name].finish))
    np.testing.assert_array_equal(rest.scores, best.scores)
    np.testing.assert_array_equal(rest.scorer_scores, best.scorer_scores)
    for place in zip(*np.nonzero(best.scores > -np.inf), strict=True):
        mine = [*said[place[0]], *rest.labels[place][: rest.lengths[place]].tolist()]
        assert mine == best.labels[place][: best.lengths[place]].tolist()
        if sum(place[1:]) == 0:
            at = [*frames[place[0]], *rest.frames[place][: rest.lengths[place]].tolist()]
            assert at == best.frames[place][: len(at)].tolist()


def test_committed_frames_are_those_of_the_best_hypothesis():
    """Ranked as at the end, with the scorer."""
    encoder = 3 * np.random.default_rng(24).normal(size=(BATCH, T, D)).astype(np.float32)
    state, options = start("TDT beam"), {"scorer": HOT, "scorer_weight": 8.0}
    for piece in pieces(encoder, 2, [2, 2, 2, 2, 1]):
        state = programs("TDT beam")[1](state, *piece)
    labels, frames, _ = jaxctc.rnnt_decode_commit(state, **options)
    best = jax.tree.map(lambda x: x[:, 0], jaxctc.rnnt_decode_finish(state, **options))
    np.testing.assert_array_equal(labels, np.where(labels >= 0, best.labels, -1))
    np.testing.assert_array_equal(frames, np.where(labels >= 0, best.frames, -1))
    other = jaxctc.rnnt_decode_commit(state, scorer=HOT, scorer_weight=0.0)[1]
    assert (other != frames).any()  # so the case tells


@pytest.mark.parametrize("name", ["greedy", "TDT beam"])
def test_a_stream_says_that_room_ran_out(name, encoder):
    state, full = start(name, most=1), []
    for piece in pieces(encoder, 2, [2, 2, 2, 2, 1]):
        state = programs(name)[1](state, *piece)
        full.append(np.asarray(state.full))
    assert not full[0].all()
    assert full[-1][LENGTHS > 3].all()
    assert not full[-1][LENGTHS == 0].any()


def test_errors_name_the_argument(encoder):
    extend = functools.partial(jaxctc.rnnt_decode_extend, joint=joint, predictor=predictor)
    state, piece = start("beam"), encoder[:, :2]
    with pytest.raises(TypeError, match="state has type int; it must be a TransducerState"):
        extend(3, encoder=piece)
    with pytest.raises(TypeError, match="state has type int; it must be a TransducerState"):
        jaxctc.rnnt_decode_commit(3)
    with pytest.raises(ValueError, match=r"state has batch shape \(8,\); it must be \(2,\)"):
        extend(state, encoder=piece[:2])
    with jax.enable_x64(True):
        wrong = jaxctc.rnnt_decode_start(predictor, START, max_labels=3, dtype=jnp.float64)
        with pytest.raises(TypeError, match="state has dtype float64; it must be float32"):
            extend(wrong, encoder=piece[0])
    with pytest.raises(ValueError, match="state was started with another scorer"):
        extend(state, encoder=piece, scorer=HOT)
    with pytest.raises(ValueError, match="state was started with another scorer"):
        jaxctc.rnnt_decode_finish(start("greedy"))
    with pytest.raises(ValueError, match="state was started with another scorer"):
        jaxctc.rnnt_decode_commit(start("TDT beam"))
    with pytest.raises(
        ValueError, match="started with durations or big_blanks up to 1; it must be wi"
    ):
        extend(state, joint=joint_with_durations, encoder=piece, **LASTING)
    with pytest.raises(ValueError, match=r"big_blanks is \{3: 3\}, with durations; it must be N"):
        extend(state, encoder=piece, **LASTING, **BIG)
    with pytest.raises(ValueError, match=r"big_blanks is \{3: 3\}, with durations; it must be N"):
        jaxctc.rnnt_decode_start(predictor, START, max_labels=3, **LASTING, **BIG)
    with pytest.raises(ValueError, match=r"big_blanks is \{0: 2\}; it must map classes other than"):
        jaxctc.rnnt_decode_start(predictor, START, max_labels=3, big_blanks={0: 2})
    for other in (lambda x: x[:, None], lambda x: x.astype(jnp.bfloat16)):

        def wrong(state, label, other=other):
            output, state = predictor(state, label)
            return other(output), state

        with pytest.raises(
            ValueError, match=r"state has outputs float32\[3\] of a predictor; they"
        ):
            extend(state, predictor=wrong, joint=lambda x, y: x, encoder=piece)
    for name, options in (("durations", LASTING), ("big_blanks", BIG)):
        with pytest.raises(ValueError, match=f"monotonic is True, with {name}; it must be False"):
            extend(state, encoder=piece, monotonic=True, **options)
    with pytest.raises(TypeError, match="dtype is 'foo'; it must be a dtype"):
        jaxctc.rnnt_decode_start(predictor, START, max_labels=3, dtype="foo")
    with pytest.raises(TypeError, match="dtype is int32; it must be floating-point"):
        jaxctc.rnnt_decode_start(predictor, START, max_labels=3, dtype=jnp.int32)
    with pytest.raises(TypeError, match="predictor returns type ShapeDtypeStruct; it must be a"):
        jaxctc.rnnt_decode_start(lambda state, label: 3, START, max_labels=3)
