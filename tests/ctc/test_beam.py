"""Decoders against enumeration, a prefix search in plain Python, and published results."""

import functools
import itertools
import json
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from oracles import collapse, log_softmax

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")
DATA = json.loads((published.DATA / "decode.json").read_text())
BATCH, T, C, BLANK = 12, 14, 5, 2
WIDTHS = [1, 2, 5, 40]  # more than 32, too: sets of parents are words of 32 bits


def log_add(*x):
    top = max(x)
    return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in x))


def exhaustive_search(log_probs, blank):
    """Log-probability of every label sequence, from all C**T alignments."""
    total = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = sum(log_probs[t, c] for t, c in enumerate(path))
        total.setdefault(collapse(path, blank), []).append(score)
    return {labels: log_add(*scores) for labels, scores in total.items()}


def prefix_search(log_probs, blank, width, automaton=None, weight=1.0):
    """The W best label sequences as (labels, log-probability, automaton's score)."""
    nothing = jaxctc.Automaton(
        np.zeros((1, log_probs.shape[1]), int), np.zeros((1, log_probs.shape[1])), np.zeros(1)
    )
    automaton = automaton or nothing

    def walk(prefix):
        state, score = 0, 0.0
        for label in prefix:
            score += float(automaton.score[state, label])
            state = automaton.transition[state, label]
        return score, float(automaton.final[state])

    def best(beam, final=False):
        def rank(prefix):
            extra = sum(walk(prefix)) if final else walk(prefix)[0]
            return -math.inf if extra == -math.inf else log_add(*beam[prefix]) + weight * extra

        ranked = sorted(beam, key=rank, reverse=True)[:width]
        return {p: beam[p] for p in ranked if rank(p) > -math.inf}

    beam = {(): (0.0, -math.inf)}
    for frame in log_probs:
        new = {}

        def put(prefix, blank_ending, label_ending, new=new):
            old = new.get(prefix, (-math.inf, -math.inf))
            new[prefix] = (log_add(old[0], blank_ending), log_add(old[1], label_ending))

        for prefix, (b, lab) in beam.items():
            total = log_add(b, lab)
            put(prefix, total + frame[blank], -math.inf)
            for c in range(len(frame)):
                if c != blank:
                    again = prefix[-1:] == (c,)
                    put((*prefix, c), -math.inf, (b if again else total) + frame[c])
                    if again:
                        put(prefix, -math.inf, lab + frame[c])
        beam = best(new)
    # An automaton's final score comes in at the end.
    with_final = {p: walk(p) for p in beam}
    beam = {p: v for p, v in beam.items() if with_final[p][1] > -math.inf}
    beam = best(beam, final=True)
    return [(p, log_add(*v), sum(with_final[p])) for p, v in beam.items()]


def as_list(hypotheses):
    """What one sequence's hypotheses are, as `prefix_search` gives them."""
    h = jax.tree.map(np.asarray, hypotheses)
    places = [n for n in range(len(h.lengths)) if h.scores[n] > -np.inf]
    return [
        (tuple(h.labels[n, : h.lengths[n]].tolist()), h.scores[n], h.automaton_scores[n])
        for n in places
    ]


def assert_same(got, want, atol=1e-4):
    assert [g[0] for g in got] == [w[0] for w in want]
    np.testing.assert_allclose([g[1:] for g in got], [w[1:] for w in want], atol=atol)


@pytest.fixture(scope="module")
def logits():
    return (1.5 * np.random.default_rng(0).normal(size=(BATCH, T, C))).astype(np.float32)


@pytest.fixture(scope="module")
def lengths():
    return np.array([T, 1, 0, 5, 9, T, 2, 3, 7, 11, 13, T])


@pytest.fixture(scope="module")
def random_automaton():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(6, C)).astype(np.float32)
    score[rng.random((6, C)) < 0.2] = -np.inf
    final = rng.normal(size=6).astype(np.float32)
    final[1] = -np.inf
    return jaxctc.Automaton(rng.integers(0, 6, (6, C)).astype(np.int32), score, final)


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
def test_sizes_of_nothing_and_impossible_frames(decode):
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


def test_with_a_wide_beam_all_scores_are_exact():
    logits = 2 * np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    found = jaxctc.ctc_beam_search(logits, beam_width=400, blank_id=1)
    for b in range(6):
        want = exhaustive_search(log_softmax(logits[b]), 1)
        got = {
            labels: score for labels, score, _ in as_list(jax.tree.map(lambda x, b=b: x[b], found))
        }
        assert got.keys() == want.keys()
        np.testing.assert_allclose(
            [got[k] for k in want], list(want.values()), atol=2e-6, rtol=1e-6
        )
        assert (np.diff(found.scores[b][: len(want)]) <= 0).all()
    wide = np.broadcast_to(logits[:, None], (6, 400, 5, 4))
    aligned = jaxctc.forced_align(wide, found.labels, None, found.lengths, blank_id=1)
    exists = np.asarray(found.scores) > -np.inf
    starts = np.asarray(aligned.starts)
    np.testing.assert_array_equal(np.asarray(found.frames)[exists], starts[exists])


@pytest.mark.parametrize("width", WIDTHS)
def test_small_beams_equal_the_plain_search(width, logits, lengths):
    found = jaxctc.ctc_beam_search(logits, lengths, beam_width=width, blank_id=BLANK)
    for b, n in enumerate(lengths):
        want = prefix_search(log_softmax(logits[b, :n]), BLANK, width)
        assert_same(as_list(jax.tree.map(lambda x, b=b: x[b], found)), want)


def test_scores_are_lower_bounds_and_frames_those_of_alignments(logits, lengths):
    found = jaxctc.ctc_beam_search(logits, lengths, beam_width=5, blank_id=BLANK)
    wide = np.broadcast_to(logits[:, None], (BATCH, 5, T, C))
    pairs = found.labels, np.broadcast_to(lengths[:, None], (BATCH, 5)), found.lengths
    exists = np.asarray(found.scores) > -np.inf
    loss = jaxctc.ctc_loss(wide, *pairs, blank_id=BLANK)
    assert (np.asarray(found.scores + loss)[exists] < 1e-4).all()
    # Nearly always the best alignment's: it may have left the beam at some frame.
    starts = jaxctc.forced_align(wide, *pairs, blank_id=BLANK).starts
    assert (starts == found.frames).all(-1)[exists].mean() > 0.95


def test_no_beam_is_better_than_one_that_is_wide_enough():
    logits = 2 * np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    best = [
        jaxctc.ctc_beam_search(logits, beam_width=w, blank_id=1).scores[:, 0] for w in (1, 3, 400)
    ]
    assert (best[0] <= best[2] + 1e-5).all()
    assert (best[1] <= best[2] + 1e-5).all()


def test_with_one_alignment_a_beam_of_one_is_greedy(logits):
    path = logits.argmax(-1)
    sure = np.where(np.arange(C) == path[..., None], 0, -np.inf).astype(np.float32)
    greedy = jaxctc.ctc_greedy_decode(sure, blank_id=BLANK)
    beam = jaxctc.ctc_beam_search(sure, beam_width=1, blank_id=BLANK)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, 0], y), beam, greedy)
    assert (greedy.scores == 0).all()


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_an_automaton_takes_part_in_every_choice(weight, logits, lengths, random_automaton):
    found = jaxctc.ctc_beam_search(
        logits,
        lengths,
        beam_width=5,
        blank_id=BLANK,
        automaton=random_automaton,
        automaton_weight=weight,
    )
    for b, n in enumerate(lengths):
        want = prefix_search(log_softmax(logits[b, :n]), BLANK, 5, random_automaton, weight)
        assert_same(as_list(jax.tree.map(lambda x, b=b: x[b], found)), want)


@pytest.mark.parametrize("with_automaton", [False, True])
def test_pruned_classes_have_probability_zero(with_automaton, logits, random_automaton):
    automaton = random_automaton if with_automaton else None
    found = jaxctc.ctc_beam_search(
        logits, beam_width=5, blank_id=BLANK, prune_classes=2, automaton=automaton
    )
    for b in range(BATCH):
        log_probs = log_softmax(logits[b])
        labels = np.where(np.arange(C) == BLANK, -np.inf, log_probs)
        keep = (np.arange(C) == BLANK) | (labels >= np.sort(labels)[:, -2:-1])
        want = prefix_search(np.where(keep, log_probs, -np.inf), BLANK, 5, automaton)
        assert_same(as_list(jax.tree.map(lambda x, b=b: x[b], found)), want)


def test_at_most_so_many_labels(logits):
    allow = jaxctc.Automaton(  # the same as an automaton: at most three labels
        np.tile([[1], [2], [3], [3]], C).astype(np.int32),
        np.tile([[0.0], [0.0], [0.0], [-np.inf]], C).astype(np.float32),
        np.zeros(4, np.float32),
    )
    want = jaxctc.ctc_beam_search(logits, beam_width=5, blank_id=BLANK, automaton=allow)
    found = jaxctc.ctc_beam_search(logits, beam_width=5, blank_id=BLANK, max_labels=3)
    assert found.labels.shape == (BATCH, 5, 3)
    np.testing.assert_array_equal(found.labels, want.labels[:, :, :3])
    np.testing.assert_array_equal(found.scores, want.scores)


@pytest.mark.parametrize("pieces", [[T], [1] * T, [5, 5, 0, 4]], ids=str)
def test_pieces_give_the_whole_bit_for_bit(pieces, logits, lengths):
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


def test_pieces_of_one_frame_with_many_classes():
    # XLA adds up the classes of one frame in another order than those of many.
    x = jax.random.normal(jax.random.key(0), (3, 20, 100)) * 3
    state = jaxctc.ctc_beam_start(batch=(3,), beam_width=4, max_labels=20)
    for t in range(20):
        state = jaxctc.ctc_beam_extend(state, x[:, t : t + 1])
    whole = jaxctc.ctc_beam_search(x, beam_width=4)
    chex.assert_trees_all_equal(jaxctc.ctc_beam_finish(state), whole)


def test_pieces_with_an_automaton(logits, random_automaton):
    extra = {"automaton": random_automaton, "automaton_weight": 0.5}
    whole = jaxctc.ctc_beam_search(logits, beam_width=5, blank_id=BLANK, **extra)
    state = jaxctc.ctc_beam_start(batch=(BATCH,), beam_width=5, max_labels=T)
    for piece in np.split(logits, 2, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece, blank_id=BLANK, **extra)
    jax.tree.map(np.testing.assert_array_equal, jaxctc.ctc_beam_finish(state, **extra), whole)


def test_equal_scores_are_broken_the_same_way_however_many_candidates():
    logits = np.random.default_rng(0).integers(0, 2, (8, 9, 6)).astype(np.float32)
    few = jaxctc.ctc_beam_search(logits, beam_width=6)
    all_of_them = jaxctc.ctc_beam_search(logits, beam_width=6, max_labels=8)
    np.testing.assert_array_equal(few.labels[:, :, :8], all_of_them.labels)
    np.testing.assert_array_equal(few.scores, all_of_them.scores)


def test_memory_does_not_grow_with_beam_times_classes_times_frames():
    shape = jax.ShapeDtypeStruct((200, 6625), np.float32)
    search = functools.partial(jaxctc.ctc_beam_search, beam_width=32)
    memory = jax.jit(search).lower(shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 200 * 6625 * 4  # a few copies of the logits


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0, 1), (0, 1, BLANK), (0, T - 1, 0)], ids=str)
@pytest.mark.parametrize("prune", [None, 1])
def test_nan_is_seen(value, place, prune, logits):
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


def test_double_precision(logits):
    with jax.enable_x64(True):
        found = jaxctc.ctc_beam_search(logits.astype(np.float64), beam_width=5, blank_id=BLANK)
        assert found.scores.dtype == jnp.float64
        for x in (found.labels, found.lengths, found.frames):
            assert x.dtype == jnp.int32
            assert not x.weak_type
        want = prefix_search(log_softmax(logits[0]), BLANK, 5)
        assert_same(as_list(jax.tree.map(lambda x: x[0], found)), want, atol=1e-12)


def log_values(case):
    values = np.array(case["values"], np.float64)
    if case["kind"].startswith("probs"):
        with np.errstate(divide="ignore"):
            values = np.log(values)
    return values.astype(np.float32)


@pytest.mark.parametrize("name", ["tf_greedy", "keras_greedy"])
def test_published_greedy(name):
    case = DATA[name]
    found = jaxctc.ctc_greedy_decode(
        log_values(case), np.array(case["lengths"]), blank_id=case["blank"]
    )
    for labels, length, want in zip(
        found.labels, found.lengths, case["expected"]["decoded"], strict=True
    ):
        assert labels[:length].tolist() == want
    if name == "tf_greedy":  # probabilities, in the first sequence
        np.testing.assert_allclose(
            found.scores[0], -case["expected"]["neg_sum_logits"][0], rtol=1e-6
        )


def test_published_best_path():
    case = DATA["githubharald_mini_best_path"]
    found = jaxctc.ctc_greedy_decode(log_values(case), blank_id=case["blank"])
    assert case["expected"]["decoded_text"] == ""
    assert found.lengths == 0


@pytest.mark.parametrize(
    "name",
    [
        "tf_beam_hibernating",
        "tf_cc_plain",
        "parlance_beam_1",
        "pyctcdecode_nolm",
        "githubharald_mini_beam_search",
    ],
)
def test_published_beam(name):
    case, want = DATA[name], DATA[name]["expected"]
    found = jaxctc.ctc_beam_search(
        log_values(case), beam_width=case["beam_width"], blank_id=case["blank"]
    )
    texts = [list(labels) for labels, *_ in as_list(found)]
    if "decoded" in want:
        assert texts[: len(want["decoded"])] == want["decoded"]
    else:
        assert "".join(case["vocabulary"][c] for c in texts[0]) == want["decoded_text"]
    if "log_probs" in want:
        np.testing.assert_allclose(found.scores[:2], want["log_probs"], atol=1e-5)
    if "logit_score" in want:
        np.testing.assert_allclose(found.scores[0], want["logit_score"], atol=1e-5)
    if "word_frames" in want:
        starts = [i for i, c in enumerate(texts[0]) if i == 0 or texts[0][i - 1] == 0]
        assert [found.frames[0, i] for i in starts] == [f[1] for f in want["word_frames"]]


def test_published_label_scorer():
    case = DATA["tf_cc_label_selection_default"]
    automaton = jaxctc.Automaton(
        np.zeros((1, 6), np.int32),
        -100 * np.arange(6, dtype=np.float32)[None],
        np.zeros(1, np.float32),
    )
    found = jaxctc.ctc_beam_search(log_values(case), beam_width=5, blank_id=5, automaton=automaton)
    assert [list(labels) for labels, *_ in as_list(found)] == case["expected"]["decoded"]


def test_errors_name_the_argument(random_automaton):
    logits = np.zeros((4, 3), np.float32)
    with pytest.raises(TypeError, match="logits has dtype int"):
        jaxctc.ctc_greedy_decode(logits.astype(int))
    with pytest.raises(ValueError, match="logit_lengths has the value 9"):
        jaxctc.ctc_beam_search(logits, 9)
    with pytest.raises(ValueError, match="beam_width is 0"):
        jaxctc.ctc_beam_search(logits, beam_width=0)
    with pytest.raises(TypeError, match="prune_classes has type float"):
        jaxctc.ctc_beam_search(logits, prune_classes=1.5)
    with pytest.raises(ValueError, match="automaton reads 5 classes"):
        jaxctc.ctc_beam_search(logits, automaton=random_automaton)
    for weight in (np.ones(2), "1", None):
        with pytest.raises(TypeError, match=r"automaton_weight is .*; it must be a number"):
            jaxctc.ctc_beam_search(logits, automaton_weight=weight)
    with pytest.raises(ValueError, match=r"^automaton_weight is nan; it must be finite\.$"):
        jaxctc.ctc_beam_search(logits, automaton_weight=float("nan"))
    grammar = jaxctc.Grammar([[{1}]], 3)
    for search in (
        functools.partial(jaxctc.ctc_beam_search, logits),
        functools.partial(jaxctc.ctc_beam_finish, jaxctc.ctc_beam_start(max_labels=4)),
    ):
        with pytest.raises(TypeError, match="automaton has type Grammar; it must be an Automaton"):
            search(automaton=grammar)
        with pytest.raises(ValueError, match=r"automaton.final has shape \(1,\); it must be \[2\]"):
            search(automaton=grammar.automaton()._replace(final=np.zeros(1)))
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
