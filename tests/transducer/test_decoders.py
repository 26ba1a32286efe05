"""Transducer decoders against enumeration and against the same searches in plain Python."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import log_softmax

import jaxctc

pytestmark = pytest.mark.usefixtures("compile_quickly")

BATCH, T, D, C, BLANK, STATES = 8, 9, 3, 4, 1, 7
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(STATES, D)).astype(np.float32)
WEIGHTS = (3 * RNG.normal(size=(D, C))).astype(np.float32)
LENGTHS = np.array([T, 1, 0, 5, 8, T, 2, 3])
same = functools.partial(jax.tree.map, np.testing.assert_array_equal)


def predictor(state, label):
    """Depends on all labels before; its state is a tree."""
    place = (3 * state["place"] + label + 1) % STATES
    return jnp.asarray(TABLE)[place], {"place": place, "count": state["count"] + 1.0}


def joint(frame, output):
    return jnp.tanh(frame + output) @ WEIGHTS


START = {"place": np.int32(0), "count": 0.0}


class Plain:
    """The same transducer over one sequence ``[T, D]``, in numpy."""

    def __init__(self, encoder):
        self.encoder = np.asarray(encoder, np.float64)

    @functools.cache  # noqa: B019
    def log_probs(self, t, labels):
        place = 0
        for label in (BLANK, *labels):
            place = (3 * place + label + 1) % STATES
        return log_softmax(np.tanh(self.encoder[t] + TABLE[place]) @ WEIGHTS.astype(np.float64))


LABELS = [c for c in range(C) if c != BLANK]


def enumerate_alignments(plain, labels_of, max_symbols, max_labels=math.inf, monotonic=False):
    """All scores of every label sequence, each with the frames of its labels."""
    total = {}

    def visit(t, symbols, labels, frames, score):
        if t == len(plain.encoder):
            total.setdefault(labels, []).append((score, frames))
            return
        log_probs = plain.log_probs(t, labels)
        visit(t + 1, 0, labels, frames, score + log_probs[BLANK])
        if symbols < max_symbols and len(labels) < max_labels:
            for c in labels_of:
                after = (t + 1, 0) if monotonic else (t, symbols + 1)
                visit(*after, (*labels, c), (*frames, t), score + log_probs[c])

    visit(0, 0, (), (), 0.0)
    return total


def plain_greedy(plain, max_symbols, max_labels=math.inf, monotonic=False):
    labels, frames, score = (), (), 0.0
    for t in range(len(plain.encoder)):
        for symbols in range(max_symbols + 1):
            log_probs = plain.log_probs(t, labels)
            may = symbols < max_symbols and len(labels) < max_labels
            c = int(np.argmax(log_probs)) if may else BLANK
            score += log_probs[c]
            if c == BLANK:
                break
            labels, frames = (*labels, c), (*frames, t)
            if monotonic:
                break
    return labels, frames, score


def plain_beam(plain, width, max_symbols, max_labels=math.inf, monotonic=False):
    def best(beam):
        ranked = sorted(beam, key=beam.get, reverse=True)[:width]
        return {labels: beam[labels] for labels in ranked}

    def add(beam, other):
        for labels, score in other.items():
            beam[labels] = np.logaddexp(beam.get(labels, -np.inf), score)
        return best(beam)

    beam = {(): 0.0}
    for t in range(len(plain.encoder)):
        ended, opened = {}, beam
        for symbols in range(max_symbols + 1):
            log_probs = {labels: plain.log_probs(t, labels) for labels in opened}
            ended = add(ended, {y: score + log_probs[y][BLANK] for y, score in opened.items()})
            opened = best(
                {
                    (*y, c): score + log_probs[y][c]
                    for y, score in opened.items()
                    for c in LABELS
                    if len(y) < max_labels
                }
            )
            if monotonic:
                ended = add(ended, opened)
                break
            full = min(ended.values()) if len(ended) == width else -np.inf
            if symbols == max_symbols or not opened or max(opened.values()) <= full:
                break
        beam = ended
    return beam


def decoded(decode, *args, **options):
    """What a decoder finds, jitted, as numpy arrays."""
    found = jax.jit(functools.partial(decode, **options))(*args)
    return jax.tree.map(np.asarray, found)


def one(found, b):
    return jax.tree.map(lambda x: x[b], found)


def as_dict(found):
    """Scores of one sequence's hypotheses, in their order."""
    exists = found.scores > -np.inf
    n = int(exists.sum())
    assert exists[:n].all()
    assert (np.diff(found.scores[:n]) <= 0).all()
    padding = np.arange(found.labels.shape[1]) >= found.lengths[:, None]
    assert ((found.labels == -1) == padding).all()
    assert ((found.frames == -1) == padding).all()
    assert (found.lengths[n:] == 0).all()
    return {tuple(found.labels[i, : found.lengths[i]].tolist()): found.scores[i] for i in range(n)}


@pytest.fixture(scope="module")
def encoder():
    return (1.5 * np.random.default_rng(1).normal(size=(BATCH, T, D))).astype(np.float32)


greedy = functools.partial(jaxctc.rnnt_greedy_decode, joint, predictor, START, blank_id=BLANK)
beam = functools.partial(jaxctc.rnnt_beam_search, joint, predictor, START, blank_id=BLANK)


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


@pytest.mark.parametrize(
    ("width", "bounds"),
    [
        (5, {"max_symbols": 3}),
        (2, {"max_symbols": 3, "max_labels": 4}),
        (5, {"max_symbols": 2, "monotonic": True}),
    ],
    ids=str,
)
def test_small_beams_equal_the_plain_search(width, bounds, encoder):
    found = decoded(beam, encoder, LENGTHS, beam_width=width, **bounds)
    for b, n in enumerate(LENGTHS):
        want = plain_beam(Plain(encoder[b, :n]), width, **bounds)
        got = as_dict(one(found, b))
        assert list(got) == list(want)
        np.testing.assert_allclose(list(got.values()), list(want.values()), atol=1e-4)


# All sequences of 3 labels which the bounds allow fit into these beams.
@pytest.mark.parametrize(
    ("frames", "bounds"),
    [
        (3, {"max_symbols": 2, "max_labels": 4}),
        (4, {"max_symbols": 1, "monotonic": True}),
    ],
    ids=str,
)
def test_with_a_wide_beam_all_scores_are_exact(frames, bounds, encoder):
    encoder = encoder[:, :frames]
    found = decoded(beam, encoder, beam_width=125, **bounds)
    for b in range(BATCH):
        want = enumerate_alignments(Plain(encoder[b]), LABELS, **bounds)
        got = as_dict(one(found, b))
        assert got.keys() == want.keys()
        exact = [np.logaddexp.reduce([score for score, _ in want[y]]) for y in got]
        np.testing.assert_allclose(list(got.values()), exact, atol=2e-5)
        for n, y in enumerate(got):
            assert tuple(found.frames[b, n, : len(y)].tolist()) == max(want[y])[1]


def test_the_score_of_a_hypothesis_is_the_loss_of_its_labels(encoder):
    """The sums of the search and of the lattice, over the alignments that both allow."""
    found = decoded(beam, encoder[:, :4], beam_width=125, max_symbols=1, monotonic=True)
    labels, lengths = (x[:, :20] for x in (found.labels, found.lengths))
    plain = [Plain(x[:4]) for x in encoder]
    logits = np.zeros((*labels.shape[:2], 4, 5, C), np.float32)
    for b, n in np.ndindex(*lengths.shape):
        for u in range(lengths[b, n] + 1):
            prefix = tuple(labels[b, n, :u].tolist())
            logits[b, n, :, u] = [plain[b].log_probs(t, prefix) for t in range(4)]
    losses = jaxctc.rnnt_loss(logits, labels, label_lengths=lengths, blank_id=BLANK, monotonic=True)
    np.testing.assert_allclose(-losses, found.scores[:, :20], atol=2e-5)


def test_no_beam_is_better_than_one_that_is_wide_enough(encoder):
    found = decoded(beam, encoder[:, :4], beam_width=3, monotonic=True)
    for b in range(BATCH):
        exact = enumerate_alignments(Plain(encoder[b, :4]), LABELS, 1, monotonic=True)
        exact = {
            y: np.logaddexp.reduce([score for score, _ in found]) for y, found in exact.items()
        }
        some = as_dict(one(found, b))
        assert all(score <= exact[y] + 1e-5 for y, score in some.items())
        assert max(some.values()) <= max(exact.values()) + 1e-5


DECODERS = {
    "greedy": functools.partial(greedy, max_symbols=3),
    "beam": functools.partial(beam, beam_width=4, max_symbols=2),
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_batch_axes_vmap_and_padding(decode, encoder):
    jitted, lengths = jax.jit(decode), LENGTHS.reshape(2, 4)
    want = jax.tree.map(np.asarray, jitted(encoder.reshape(2, 4, T, D), lengths))
    flat = jax.tree.map(lambda x: x.reshape(BATCH, *x.shape[2:]), want)
    poisoned = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], encoder, np.nan)
    same(jitted(poisoned.reshape(2, 4, T, D), lengths), want)
    for found, expected in zip(decoded(jax.vmap(decode), encoder, LENGTHS), flat, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_is_computed_in_float32(encoder):
    def half(frame, output):
        return joint(frame.astype(jnp.float32), output).astype(jnp.bfloat16)

    def widened(frame, output):
        return half(frame, output).astype(jnp.float32)

    frames = jnp.asarray(encoder, jnp.bfloat16)
    found = [
        decoded(
            functools.partial(jaxctc.rnnt_beam_search, f, predictor, START, monotonic=True),
            frames,
            LENGTHS,
        )
        for f in (half, widened)
    ]
    assert found[0].scores.dtype == jnp.float32
    same(*found)


def test_double_precision(encoder):
    with jax.enable_x64(True):
        args = encoder.astype(np.float64), LENGTHS
        path = decoded(greedy, *args, max_symbols=3)
        found = decoded(beam, *args, beam_width=2, monotonic=True)
    assert found.scores.dtype == np.float64
    for b, n in enumerate(LENGTHS):
        plain = Plain(encoder[b, :n])
        np.testing.assert_allclose(path.scores[b], plain_greedy(plain, 3)[2], rtol=1e-12)
        got, want = as_dict(one(found, b)), plain_beam(plain, 2, 1, monotonic=True)
        assert list(got) == list(want)
        np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-12)


@pytest.mark.usefixtures("compile_fully")
def test_where_the_transducer_is_sure_a_beam_of_one_is_greedy(encoder):
    def sure(frame, output):
        return 200 * joint(frame, output)

    args = encoder, LENGTHS
    bounds = {"blank_id": BLANK, "max_symbols": 12, "max_labels": 60}
    functions = sure, predictor, START
    path = decoded(functools.partial(jaxctc.rnnt_greedy_decode, *functions), *args, **bounds)
    search = functools.partial(jaxctc.rnnt_beam_search, *functions, beam_width=1)
    best = decoded(search, *args, **bounds)
    free = path.scores > -1  # elsewhere a bound forced a blank
    assert free.sum() > 3
    assert path.lengths[free].max() > 3
    same(jax.tree.map(lambda x: x[free, 0], best), one(path, free))


def shown(frame, output):
    """A joint network that says what the frame says."""
    return frame


STATELESS = shown, lambda state, label: (None, state), ()
show_greedy = functools.partial(jaxctc.rnnt_greedy_decode, *STATELESS)
show_beam = functools.partial(jaxctc.rnnt_beam_search, *STATELESS)


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


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_sizes_of_nothing(decode):
    decode = functools.partial(decode, monotonic=True)
    nothing = decoded(decode, np.zeros((0, D), np.float32))
    assert nothing.labels.shape[-1] == 0
    assert nothing.scores.reshape(-1)[0] == 0
    assert (nothing.scores.reshape(-1)[1:] == -np.inf).all()
    assert decoded(decode, np.zeros((0, 2, D), np.float32)).scores.shape[0] == 0


def test_masked_classes_ties_and_nan():
    no = -np.inf
    frames = np.array([[0, no, no], [no, 0, 0], [no, no, no], [0, np.nan, 0]], np.float32)
    encoder = np.stack([frames, frames], axis=1)
    path = decoded(show_greedy, encoder)
    np.testing.assert_array_equal(path.scores, [0, no, no, np.nan])
    # Where no class is possible nothing is emitted, whichever class is the blank.
    np.testing.assert_array_equal(
        decoded(show_greedy, encoder[2], blank_id=2).lengths, path.lengths[2]
    )
    assert path.lengths[2] == 0
    found = decoded(show_beam, encoder, beam_width=6)
    assert as_dict(one(found, 0)) == {(): 0}
    assert as_dict(one(found, 1)) == as_dict(one(found, 2)) == {}
    assert np.isnan(found.scores[3]).any()
    found = decoded(show_beam, encoder, beam_width=6, monotonic=True)
    assert as_dict(one(found, 0)) == {(): 0}
    # In case of a tie the better parent, then the lower class.
    ties = as_dict(one(found, 1))
    assert list(ties) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    np.testing.assert_allclose(list(ties.values()), math.log(0.25), rtol=1e-6)
    assert as_dict(one(found, 2)) == {}
    assert np.isnan(found.scores[3]).any()


class Model(nnx.Module):
    """A recurrent predictor and a joint network, as one would train them."""

    def __init__(self, classes, size, rngs):
        self.embed = nnx.Embed(classes, size, rngs=rngs)
        self.cell = nnx.LSTMCell(size, size, rngs=rngs)
        self.out = nnx.Linear(size, classes, rngs=rngs)

    def predictor(self, state, label):
        state, output = self.cell(state, self.embed(label))
        return output, state

    def joint(self, frame, output):
        return self.out(jax.nn.tanh(frame + output))


def test_a_flax_module_decodes(encoder):
    size = 8
    with jax.numpy_rank_promotion("allow"):
        model = Model(C, size, nnx.Rngs(0))
        model.out.kernel[...] = 4 * model.out.kernel[...]
        frames = np.random.default_rng(2).normal(size=(3, 6, size)).astype(np.float32)
        lengths = np.array([6, 3, 5])
        start = (jnp.zeros(size), jnp.zeros(size))

        @nnx.jit
        def decode(model, frames, lengths):
            args = model.joint, model.predictor, start, frames, lengths
            return jaxctc.rnnt_greedy_decode(*args), jaxctc.rnnt_beam_search(*args, beam_width=6)

        @nnx.jit
        def log_probs(model, frames, labels):  # [T, U + 1, C], as for training
            def after(state, label):
                return model.predictor(state, label)[::-1]

            outputs = jax.lax.scan(after, start, jnp.pad(labels, (1, 0)))[1]
            return jax.nn.log_softmax(model.joint(frames[:, None], outputs[None]))

        path, found = jax.tree.map(np.asarray, decode(model, frames, lengths))
        assert path.lengths.max() > 1
        assert (found.scores[:, 0] >= path.scores - 1e-5).all()
        for b, n in enumerate(lengths):
            labels, at = path.labels[b, : path.lengths[b]], path.frames[b, : path.lengths[b]]
            table = np.asarray(log_probs(model, frames[b], np.maximum(path.labels[b], 0)))
            emitted = np.searchsorted(at, np.arange(n), side="right")  # by the end of each frame
            want = table[np.arange(n), emitted, 0].sum()
            want += table[at, np.arange(len(labels)), labels].sum()
            np.testing.assert_allclose(path.scores[b], want, rtol=1e-5)


def wrong_state(state, label):
    return predictor(state, label)[0], state["place"]


ERRORS = [
    (TypeError, {"encoder": np.zeros((4, D), int)}, r"encoder has dtype int\d+; it must be floa"),
    (ValueError, {"encoder": np.zeros(D)}, r"encoder has shape \(3,\); it must be \[\*batch, T, D"),
    (ValueError, {"logit_lengths": 5}, r"logit_lengths has the value 5; it must be in 0…4"),
    (ValueError, {"logit_lengths": [4]}, r"logit_lengths has shape \(1,\); it must be \(\)"),
    (ValueError, {"blank_id": 4}, r"blank_id is 4; it must be a class, in 0…3"),
    (ValueError, {"max_symbols": 0}, r"max_symbols is 0; it must be at least 1"),
    (TypeError, {"max_symbols": 1.5}, r"max_symbols has type float; it must be an int known"),
    (ValueError, {"max_labels": 0}, r"max_labels is 0; it must be at least 1"),
    (
        ValueError,
        {"joint": lambda frame, output: joint(frame, output)[None]},
        r"joint returns shape \(1, 4\); it must be \[C\], C at least 1",
    ),
    (
        TypeError,
        {"joint": lambda frame, output: jnp.argsort(joint(frame, output))},
        r"joint returns dtype int32; it must be floating-point",
    ),
    (
        TypeError,
        {"joint": lambda frame, output: (joint(frame, output), frame)},
        r"joint returns type tuple; it must be an array \[C\]",
    ),
    (
        TypeError,
        {"predictor": lambda state, label: predictor(state, label)[1]},
        r"predictor returns type dict; it must be a pair \(output, state\)",
    ),
    (
        ValueError,
        {"predictor": wrong_state},
        r"predictor returns the state int32\[\]; it must be \{count: float32\[\], place: int32\[\]",
    ),
]


@pytest.mark.parametrize("decode", [jaxctc.rnnt_greedy_decode, jaxctc.rnnt_beam_search])
@pytest.mark.parametrize(("error", "change", "message"), ERRORS)
def test_errors_name_the_argument(decode, error, change, message):
    right = {
        "joint": joint,
        "predictor": predictor,
        "initial_state": START,
        "encoder": np.zeros((4, D), np.float32),
    }
    with pytest.raises(error, match=f"^{message}.*\\.$"):
        decode(**{**right, **change})


def test_a_beam_has_a_width():
    with pytest.raises(ValueError, match=r"^beam_width is 0; it must be at least 1\.$"):
        beam(np.zeros((4, D), np.float32), beam_width=0)
