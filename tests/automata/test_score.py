"""Automata on the recursion: against all their paths, published numbers, and the CTC loss."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import Case, LatticeConformance
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import fsa_by_enumeration, fsa_paths
from published import DATA

import jaxctc
from jaxctc.automata import score as fsa_module
from jaxctc.core import semirings
from jaxctc.core.semirings import LOG, MAX_TROPICAL, PROBABILITY

pytestmark = pytest.mark.usefixtures("compile_quickly")

PUBLISHED = json.loads((DATA / "fsa.json").read_text())["cases"]
KIND = {name: [c for c in PUBLISHED if c["type"] == name] for name in ("fsa_score", "gtn_graph")}


def random_fsa(generator, states=3, arcs=7, classes=3):
    """Any arcs at all, so that cycles, parallel arcs and dead ends are among them."""
    return jaxctc.Fsa(
        generator.integers(0, states, arcs).astype(np.int32),
        generator.integers(0, states, arcs).astype(np.int32),
        generator.integers(0, classes, arcs).astype(np.int32),
        generator.normal(size=arcs).astype(np.float32),
        np.where(generator.random(states) < 0.7, generator.normal(size=states), -np.inf).astype(
            np.float32
        ),
        np.where(generator.random(states) < 0.7, generator.normal(size=states), -np.inf).astype(
            np.float32
        ),
    )


class FsaConformance(LatticeConformance):
    """Weights of arcs are 0 here, since a path is what it counts of the scores."""

    lengths = (4, 2, 3)
    classes = 3

    def automata(self):
        raise NotImplementedError("one automaton, or one for each sequence")

    def lattice(self, dtype=jnp.float32, seed=0):
        fsa = jax.tree.map(jnp.asarray, self.automata())
        fsa = fsa._replace(
            weight=jnp.zeros_like(fsa.weight),
            start=jnp.where(fsa.start > -jnp.inf, 0.0, -jnp.inf),
            final=jnp.where(fsa.final > -jnp.inf, 0.0, -jnp.inf),
        )
        shape = (len(self.lengths), max(self.lengths), self.classes)
        log_probs = (2 * jax.random.normal(jax.random.key(seed), shape)).astype(dtype)
        topology, scores, _ = fsa_module.lattice(fsa, log_probs, jnp.array(self.lengths))
        return Case(topology, scores)

    def of_sequence(self, case, scores, b):
        return jax.tree.map(lambda x: np.asarray(x[..., b]), scores)

    def paths(self, case, b):
        fsa = self.automata()
        fsa = fsa if fsa.label.ndim == 1 else jaxctc.Fsa(*(x[b] for x in fsa))
        place = np.asarray(case.topology.place)
        place = place if place.ndim == 1 else place[:, b]
        found = []
        for first, arcs, last in fsa_paths(fsa, self.lengths[b]):
            if fsa.start[first] > -np.inf and fsa.final[last] > -np.inf:
                counts = jax.tree.map(np.zeros_like, self.of_sequence(case, case.scores, b))
                for t, a in enumerate(arcs):
                    counts.scores[t, place[a]] = 1
                counts.stay[len(arcs) :] = 1
                found.append(counts)
        return found


class TestOneForEach(FsaConformance):
    """Fewer arcs than classes: scores are picked before. The second has no path."""

    classes = 9

    def automata(self):
        return jaxctc.Fsa.stack(
            [jaxctc.ctc_fsa([1]), jaxctc.ctc_fsa([2, 2]), jaxctc.linear_fsa([3, 1, 2])]
        )

    def test_the_second_has_none(self):
        assert self.paths(self.lattice(), 1) == []


@jax.jit
def everything(fsa, log_probs):
    def score(log_probs, weight, semiring=PROBABILITY):
        return jaxctc.fsa_score(fsa._replace(weight=weight), log_probs, semiring=semiring)

    total, (classes, arcs) = jax.value_and_grad(score, (0, 1))(log_probs, fsa.weight)
    log_total, (log_classes, log_arcs) = jax.value_and_grad(score, (0, 1))(
        log_probs, fsa.weight, LOG
    )
    best, (best_classes, best_arcs) = jax.value_and_grad(score, (0, 1))(
        log_probs, fsa.weight, MAX_TROPICAL
    )
    path = jaxctc.fsa_best_path(fsa, log_probs)
    return (
        (total, classes, arcs),
        (log_total, log_classes, log_arcs),
        (best, best_classes, best_arcs),
        path,
    )


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.booleans())
def test_tiny_automata_against_all_their_paths(seed, ties):
    generator = np.random.default_rng(seed)
    fsa = random_fsa(generator)
    log_probs = generator.normal(size=(4, 3)).astype(np.float32)
    log_probs[generator.random(log_probs.shape) < 0.1] = -np.inf
    if ties:
        fsa = jaxctc.Fsa(*fsa[:3], *(np.round(x) for x in fsa[3:]))
        log_probs = np.round(log_probs)
    total, classes, arcs, best = fsa_by_enumeration(fsa, log_probs)
    in_probability, in_log, in_tropical, path = everything(fsa, log_probs)
    for found in (in_probability, in_log):
        for x, y in zip(found, (total, classes, arcs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_tropical[0], best, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(path.score, best, rtol=1e-5, atol=1e-5)
    if best == -np.inf:
        assert np.all(path.arcs == -1)
        assert np.all(path.labels == -1)
        assert not in_tropical[1].any()
        return
    # The gradient is one path, also where several are the best.
    taken = np.asarray(path.arcs)
    np.testing.assert_array_equal(path.labels, fsa.label[taken])
    assert np.all(fsa.destination[taken[:-1]] == fsa.source[taken[1:]])
    np.testing.assert_array_equal(in_tropical[1], np.eye(3)[fsa.label[taken]])
    np.testing.assert_array_equal(in_tropical[2], np.bincount(taken, minlength=7))
    weight = fsa.start[fsa.source[taken[0]]] + fsa.final[fsa.destination[taken[-1]]]
    weight += fsa.weight[taken].sum() + log_probs[range(4), fsa.label[taken]].sum()
    np.testing.assert_allclose(weight, best, rtol=1e-5, atol=1e-5)


@functools.partial(jax.jit, static_argnums=2)
def of_any_length(fsa, final, semiring):
    """Totals over paths of every length, of automata without cycles; their sum's gradients."""

    def score(weight):
        frames = fsa.final.shape[-1]
        zeros = jnp.zeros((*final.shape[:1], frames, frames, 12))
        lengths = jnp.broadcast_to(jnp.arange(frames), (*final.shape[:1], frames))
        totals = jax.vmap(
            lambda final, zeros, lengths: jaxctc.fsa_score(
                fsa._replace(weight=weight, final=final), zeros, lengths, semiring=semiring
            )
        )(final, zeros, lengths)
        weights = semiring.from_log(totals.T)
        total = semiring.scatter_sum(weights, (jnp.zeros(frames, jnp.int32),), (1, len(final)))
        return semiring.to_log(total)[0]

    totals, pullback = jax.vjp(score, fsa.weight)
    gradients = jax.vmap(pullback)(jnp.eye(len(final)))
    return totals, gradients[0]


def published_arcs(case):
    """The arcs of a case as an automaton whose arcs all read a frame, all of one size."""
    inputs = case["inputs"]
    if "fsa" in inputs:
        *lines, end = inputs["fsa"].splitlines()
        arcs = [[float(x) for x in line.split()] for line in lines]
        ends = {"final": [int(end)]}
    else:
        arcs, ends = inputs["arcs"], {"start": inputs["start"], "final": inputs["accept"]}
    arcs = [(s, d, 11 if c < 0 else c, float(w)) for s, d, c, w in arcs]
    stacked = jaxctc.Fsa.stack([jaxctc.Fsa.from_arcs(arcs, **ends)], states=10, arcs=12)
    return jaxctc.Fsa(*(x[0] for x in stacked)), len(arcs)


@pytest.mark.parametrize("case", KIND["fsa_score"], ids=lambda c: c["name"])
def test_k2_total_scores_and_arc_gradients(case):
    want = case["expected"]
    semiring = PROBABILITY if "_log" in case["name"] else MAX_TROPICAL
    fsa, arcs = published_arcs(case)
    # The total, and that of the paths to every single state: the forward scores.
    final = np.where(np.eye(10) > 0, 0, -np.inf).astype(np.float32)
    (total, *forward), (gradient, *by_state) = of_any_length(
        fsa, np.concatenate([fsa.final[None], final]), semiring
    )
    np.testing.assert_allclose(total, want["tot_score"], rtol=1e-5)
    text = jaxctc.graphs.from_k2_text(case["inputs"]["fsa"])
    scores = [
        text.start[first] + text.weight[list(path)].sum() + text.final[last]
        for frames in range(10)
        for first, path, last in fsa_paths(text, frames)
    ]
    combined = np.logaddexp.reduce(scores) if semiring is PROBABILITY else max(scores)
    np.testing.assert_allclose(combined, want["tot_score"], rtol=1e-5)
    if "arc_grad" in want:
        np.testing.assert_allclose(gradient[:arcs], want["arc_grad"], rtol=1e-5, atol=1e-7)
    if "best_path_arcs" in want:
        np.testing.assert_array_equal(np.flatnonzero(gradient), want["best_path_arcs"])
    if "arc_post_log" in want:
        np.testing.assert_allclose(
            jnp.log(gradient[:arcs]), want["arc_post_log"], rtol=1e-4, atol=1e-6
        )
    if "forward_scores" in want:
        states = len(want["forward_scores"])
        np.testing.assert_allclose(forward[:states], want["forward_scores"], rtol=1e-5, atol=1e-6)
    if "weighted_forward_grad" in want:
        weights = np.array(want["weighted_forward_grad"]["weights"], np.float32)
        weighted = weights @ np.array(by_state)[: len(weights), :arcs]
        np.testing.assert_allclose(weighted, want["weighted_forward_grad"]["arc_grad"])


@pytest.mark.parametrize("case", KIND["gtn_graph"], ids=lambda c: c["name"])
def test_gtn_scores_and_gradients(case):
    want, (fsa, arcs) = case["expected"], published_arcs(case)
    final = np.full((11, 10), -np.inf, np.float32)
    final[0] = fsa.final
    for name, semiring in (("forward", PROBABILITY), ("viterbi", MAX_TROPICAL)):
        totals, gradients = of_any_length(fsa, final, semiring)
        if f"{name}_score" in want:
            np.testing.assert_allclose(totals[0], float(want[f"{name}_score"]), atol=1e-4)
        if f"{name}_grad" in want:
            # Where there is no path ours is 0, and theirs NaN.
            theirs = np.nan_to_num(np.array(want[f"{name}_grad"], float))
            np.testing.assert_allclose(gradients[0, :arcs], theirs, atol=1e-4)


@pytest.mark.parametrize(
    "case", [c for c in PUBLISHED if c["type"] == "intersect_dense"], ids=lambda c: c["name"]
)
def test_k2_intersection_with_dense_scores(case):
    inputs, want = case["inputs"], case["expected"]
    fsa = jaxctc.Fsa.stack([jaxctc.graphs.from_k2_text(text) for text in inputs["fsas"]])
    dense, lengths = jnp.array(inputs["dense"]), jnp.array(inputs["lengths"])

    def score(dense, weight, final):
        fsas = fsa._replace(weight=weight, final=final)
        scores = jaxctc.fsa_score(fsas, dense, lengths, semiring=MAX_TROPICAL)
        return scores.sum(), scores

    (_, scores), (by_dense, by_weight, by_final) = jax.jit(
        jax.value_and_grad(score, (0, 1, 2), has_aux=True)
    )(dense, fsa.weight, fsa.final)
    np.testing.assert_allclose(scores, want["tot_scores_derived"], rtol=1e-5)
    np.testing.assert_allclose(by_dense, want["grad_dense"])
    # The last arc of each is the final weight of the state before the last.
    np.testing.assert_allclose(
        np.concatenate([by_weight, by_final[:, 2:3]], axis=1), want["grad_fsa"]
    )
    path = jaxctc.fsa_best_path(fsa, dense, lengths)
    for b, per_arc in enumerate(want["out_arc_scores"]):
        arcs = np.asarray(path.arcs[b, : lengths[b]])
        found = fsa.weight[b, arcs] + np.asarray(dense)[b, range(len(arcs)), fsa.label[b, arcs]]
        np.testing.assert_allclose([*found, 3.0], per_arc, rtol=1e-5)
        assert np.all(path.arcs[b, lengths[b] :] == -1)


LABELS = np.array([[1, 2, 2, 4], [3, 0, 0, 0], [4, 1, 4, 0], [0, 0, 0, 0]])
LABEL_LENGTHS = np.array([4, 1, 3, 0])
FRAMES = np.array([12, 9, 12, 4])
BATCH = jaxctc.Fsa.stack(
    [jaxctc.ctc_fsa(y[:n]) for y, n in zip(LABELS, LABEL_LENGTHS, strict=True)]
)
LOGITS = 2 * np.random.default_rng(0).standard_normal((4, 12, 5)).astype(np.float32)


@jax.jit
def score_and_gradient(fsa, log_probs, lengths):
    scores, pullback = jax.vjp(
        lambda x, w: jaxctc.fsa_score(fsa._replace(weight=w), x, lengths), log_probs, fsa.weight
    )
    return scores, *pullback(jnp.ones_like(scores))


def test_ctc_is_the_ctc_loss():
    def by_fsa(logits):
        return -jaxctc.fsa_score(BATCH, jax.nn.log_softmax(logits), FRAMES)

    def by_loss(logits):
        return jaxctc.ctc_loss(logits, LABELS, FRAMES, LABEL_LENGTHS)

    @jax.jit
    def both(logits):
        found = []
        for function in (by_fsa, by_loss):
            losses, pullback = jax.vjp(function, logits)
            found.append((losses, pullback(jnp.ones_like(losses))[0]))
        return found

    for x, y in zip(*both(LOGITS), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("compile_fully")
def test_float32_is_exact_on_long_input():
    generator = np.random.default_rng(1)
    logits = 3 * generator.standard_normal((2, 1000, 20))
    labels = generator.integers(1, 20, 150)
    arcs = np.stack([*random_fsa(generator, 60, 600, 20)[:4]], axis=1).astype(np.float64)
    general = jaxctc.Fsa.from_arcs(arcs, start=range(60), final=range(60))
    fsa = jaxctc.Fsa.stack([jaxctc.ctc_fsa(labels), general])
    log_probs = np.asarray(jax.nn.log_softmax(logits.astype(np.float32)))
    lengths = np.array([1000, 900])
    narrow = score_and_gradient(fsa, log_probs, lengths)
    with jax.enable_x64(True):
        doubled = {k: getattr(fsa, k).astype(np.float64) for k in ("weight", "start", "final")}
        wide = score_and_gradient(fsa._replace(**doubled), log_probs.astype(np.float64), lengths)
        wide = [np.asarray(x) for x in wide]
    assert wide[0].dtype == np.float64
    np.testing.assert_allclose(narrow[0], wide[0], rtol=1e-6)
    np.testing.assert_allclose(narrow[1], wide[1], atol=2e-5)
    np.testing.assert_allclose(narrow[2], wide[2], rtol=1e-5, atol=2e-5)


def test_padding_is_never_read():
    clean = score_and_gradient(BATCH, LOGITS, FRAMES)
    poisoned = LOGITS.copy()
    for b, n in enumerate(FRAMES):
        poisoned[b, n:] = np.nan
    padded = BATCH.label < 0
    assert padded.any()
    fsa = BATCH._replace(
        source=np.where(padded, 10**6, BATCH.source),
        destination=np.where(padded, -7, BATCH.destination),
        weight=np.where(padded, np.nan, BATCH.weight),
    )
    for x, y in zip(score_and_gradient(fsa, poisoned, FRAMES), clean, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.any([np.any(clean[1][b, n:]) for b, n in enumerate(FRAMES)])


def test_no_path_is_minus_infinity_with_no_gradient():
    lengths = np.array([4, 0, 3, 0])  # 1 2 2 4 needs five
    scores, by_frame, by_arc = score_and_gradient(BATCH, LOGITS, lengths)
    np.testing.assert_array_equal(scores[:2], -np.inf)
    assert np.isfinite(scores[2])
    assert scores[3] == 0  # no frames, no labels
    assert not by_frame[:2].any()
    assert not by_arc[:2].any()
    path = jaxctc.fsa_best_path(BATCH, LOGITS, lengths)
    np.testing.assert_array_equal(path.score[:2], -np.inf)
    assert np.all(path.arcs[:2] == -1)
    assert path.score[3] == 0


def test_a_masked_class_and_nan():
    masked = LOGITS.copy()
    masked[0, :, 4] = -np.inf  # a label of the first, not of the second
    masked[1, :, 4] = -np.inf
    masked[2, 3, 0] = np.nan
    masked[3, 0, 0] = np.inf
    scores, gradient, by_arc = score_and_gradient(BATCH, masked, FRAMES)
    np.testing.assert_array_equal(np.isnan(scores), [False, False, True, True])
    assert scores[0] == -np.inf
    assert not gradient[0].any()
    assert np.isfinite(scores[1])
    assert np.isfinite(gradient[:2]).all()
    assert np.isfinite(by_arc[:2]).all()


def test_an_automaton_without_frames_arcs_or_sequences():
    fsa = jaxctc.Fsa.from_arcs([], start={0: 0.5}, final={0: 0.25})
    scores, gradient, _ = score_and_gradient(fsa, np.zeros((2, 3, 4)), np.array([0, 2]))
    np.testing.assert_allclose(scores, [0.75, -np.inf], rtol=1e-6)
    assert not gradient.any()
    np.testing.assert_allclose(jaxctc.fsa_score(fsa, np.zeros((0, 4))), 0.75, rtol=1e-6)
    assert jax.eval_shape(lambda: jaxctc.fsa_score(fsa, np.zeros((0, 3, 4)))).shape == (0,)


def test_batch_axes_vmap_and_half_precision():
    scores = np.asarray(score_and_gradient(BATCH, LOGITS, FRAMES)[0])
    square = jaxctc.Fsa(*(x.reshape(2, 2, -1) for x in BATCH))
    frames = FRAMES.reshape(2, 2)
    # Mapped over one batch axis, with the other inside.
    shaped = jax.vmap(jaxctc.fsa_score)(square, LOGITS.reshape(2, 2, 12, 5), frames)
    np.testing.assert_allclose(shaped.reshape(-1), scores, rtol=1e-6)
    one = jaxctc.Fsa(*(x[0] for x in BATCH))
    shared = jaxctc.fsa_score(one, LOGITS.reshape(2, 2, 12, 5), frames)
    same = jaxctc.Fsa.stack([one] * 4)
    np.testing.assert_allclose(
        shared.reshape(-1), score_and_gradient(same, LOGITS, FRAMES)[0], rtol=1e-6
    )
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    scores, gradient, _ = score_and_gradient(BATCH, half, FRAMES)
    assert scores.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    want = score_and_gradient(BATCH, half.astype(jnp.float32), FRAMES)
    np.testing.assert_array_equal(scores, want[0])
    np.testing.assert_array_equal(gradient, want[1].astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [np.int8, np.uint32])
def test_indices_of_any_integer_type(dtype):
    fsa = jaxctc.ctc_fsa([1, 2])
    narrow = fsa._replace(**{k: getattr(fsa, k).astype(dtype) for k in ("source", "label")})
    log_probs = np.zeros((4, 300), np.float32)  # more classes than int8 has numbers
    got = jaxctc.fsa_best_path(narrow, log_probs, 3)
    jax.tree.map(np.testing.assert_array_equal, got, jaxctc.fsa_best_path(fsa, log_probs, 3))
    assert got.labels.dtype == jnp.int32


def test_derivatives_with_respect_to_weights_forward_and_reverse():
    fsa = random_fsa(np.random.default_rng(5))
    fsa = fsa._replace(start=np.zeros(3, np.float32), final=np.zeros(3, np.float32))

    def score(weight):
        return jaxctc.fsa_score(fsa._replace(weight=weight), LOGITS[..., :3]).sum()

    gradient = jax.jit(jax.grad(score))(fsa.weight)
    np.testing.assert_allclose(gradient.sum(), LOGITS.shape[0] * LOGITS.shape[1], rtol=1e-5)
    along = jax.jit(lambda w, d: jax.jvp(score, [w], [d])[1])(fsa.weight, np.cos(fsa.weight))
    np.testing.assert_allclose(along, gradient @ np.cos(fsa.weight), rtol=1e-5)


def test_scattered_sums_of_nothing_and_of_large_degree():
    terms = np.full((4096, 1), np.log(1.9), np.float32)
    index = (jnp.zeros(4096, jnp.int32),)
    for semiring, want in ((PROBABILITY, np.log(1.9 * 4096)), (LOG, np.log(1.9 * 4096))):
        weights = semiring.from_log(jnp.asarray(terms))
        total = semiring.to_log(semiring.scatter_sum(weights, index, (2, 1)))
        np.testing.assert_allclose(total[:, 0], [want, -np.inf], rtol=1e-5)
    best, pullback = jax.vjp(
        lambda x: MAX_TROPICAL.scatter_sum(x, index, (2, 1)), jnp.asarray(terms)
    )
    np.testing.assert_allclose(best[:, 0], [np.log(1.9), -np.inf], rtol=1e-6)
    (gradient,) = pullback(jnp.ones_like(best))
    np.testing.assert_array_equal(np.flatnonzero(gradient), [0])  # the first of equals
    assert semirings.take(best, (jnp.array([1]),))[0, 0] == -np.inf


GOOD = jaxctc.ctc_fsa([1, 2])
MALFORMED = [
    (TypeError, {"fsa": 3}, r"fsa has type int; it must be an Fsa"),
    (TypeError, {"log_probs": np.zeros((4, 3), int)}, r"log_probs has dtype int\d+; it must be f"),
    (ValueError, {"log_probs": np.zeros(3)}, r"log_probs has shape \(3,\); it must be \[\*batch"),
    (ValueError, {"logit_lengths": 5}, r"logit_lengths has the value 5; it must be in 0…4"),
    (TypeError, {"semiring": "log"}, r"semiring has type str; it must be one of jaxctc.semirings"),
    (
        ValueError,
        {"log_probs": np.zeros((4, 2))},
        r"fsa.label has the value 2; it must be in 0…1",
    ),
    (
        ValueError,
        {"fsa": GOOD._replace(destination=GOOD.destination + 2)},
        r"fsa.destination has the value 5; it must be in 0…4",
    ),
    (
        TypeError,
        {"fsa": GOOD._replace(source=GOOD.source * 1.0)},
        r"fsa.source has dtype float64; it must be an integer type",
    ),
    (
        TypeError,
        {"fsa": GOOD._replace(weight=GOOD.label)},
        r"fsa.weight has dtype int32; it must be floating-point",
    ),
    (
        ValueError,
        {"fsa": GOOD._replace(weight=GOOD.weight[:2])},
        r"fsa.weight has shape \(2,\); it must be \[10\]",
    ),
    (
        ValueError,
        {"fsa": GOOD._replace(start=GOOD.start[:2])},
        r"fsa.start has shape \(2,\); it must be \[5\]",
    ),
    (
        ValueError,
        {"fsa": jaxctc.Fsa.stack([GOOD] * 3), "log_probs": np.zeros((2, 4, 3))},
        r"fsa.source has shape \(3, 10\); it must be \[2, 10\]",
    ),
]


@pytest.mark.parametrize("function", [jaxctc.fsa_score, jaxctc.fsa_best_path])
@pytest.mark.parametrize(("error", "change", "message"), MALFORMED)
def test_malformed_calls(function, error, change, message):
    if function is jaxctc.fsa_best_path and "semiring" in change:
        return
    with pytest.raises(error, match=f"^{message}.*\\.$"):
        function(**{"fsa": GOOD, "log_probs": np.zeros((4, 3)), **change})
