"""Graphs of labels, and the topologies that make frames of them, against plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import collapse, fsa_paths

import jaxctc
from jaxctc.automata import graphs, topologies

pytestmark = pytest.mark.usefixtures("compile_quickly")

CLASSES = 6  # blank 0, labels 1 and 2; in HMMs of two states 3 more than a label is its second


def runs(path):
    """Frames as runs: (class, how many)."""
    return [(c, len([*g])) for c, g in itertools.groupby(path)]


def splits(path, labels):
    """In how many ways frames are the labels in turn, each one frame or more of its class."""
    if not labels:
        return int(not path)
    whole = 0
    for n in range(1, len(path) + 1):
        if all(c == labels[0] for c in path[:n]):
            whole += splits(path[n:], labels[1:])
    return whole


def readings(topology, path, labels):
    """In how many ways a sequence of classes reads as the labels."""
    if isinstance(topology, topologies.TwoStateHMM):
        first = [c if c < 3 else None for c in path]
        second = [None, *path][: len(path)]
        good = all(
            c < 3 or (before is not None and before in (c, c - 3))
            for c, before in zip(path, second, strict=True)
        )
        return int(good and tuple(c for c in first if c is not None) == labels)
    if isinstance(topology, topologies.OneStateHMM):
        return splits(path, labels)
    if isinstance(topology, topologies.MinimalCTC):
        return int(tuple(c for c in path if c != 0) == labels)
    if isinstance(topology, topologies.CompactCTC):
        pieces = [p for p in runs(path) if p[0] != 0]
        ways = {0: 1}
        for c, n in pieces:  # each run of frames is some labels in turn
            ways = {
                end: sum(
                    count * splits((c,) * n, labels[start:end])
                    for start, count in ways.items()
                    if start < end
                )
                for end in range(len(labels) + 1)
            }
        return ways.get(len(labels), 0)
    return int(collapse(path, 0) == labels)


@pytest.mark.parametrize(
    "topology",
    [
        topologies.CTC(),
        topologies.CompactCTC(),
        topologies.MinimalCTC(),
        topologies.OneStateHMM(),
        topologies.TwoStateHMM(labels=3),
    ],
    ids=lambda t: type(t).__name__,
)
@pytest.mark.parametrize("labels", [(1, 2), (1, 1), (2,), (1, 2, 2), ()])
def test_topologies_read_what_they_say(topology, labels):
    fsa = jaxctc.compose(topology, jaxctc.linear_fsa(labels))
    for frames in range(5):
        found = {}
        for first, arcs, last in fsa_paths(fsa, frames):
            if fsa.start[first] > -np.inf and fsa.final[last] > -np.inf:
                path = tuple(fsa.label[list(arcs)].tolist())
                found[path] = found.get(path, 0) + 1
        for path in itertools.product(range(CLASSES), repeat=frames):
            assert found.get(path, 0) == readings(topology, path, labels), path


def test_a_graph_of_alternatives_keeps_their_weights():
    graph = jaxctc.union_fsa(
        [jaxctc.linear_fsa([1, 2], weights=[-1, 0]), jaxctc.linear_fsa([2, 1, 2])]
    )
    log_probs = jax.nn.log_softmax(jnp.sin(jnp.arange(24.0)).reshape(8, 3))
    got = jaxctc.fsa_score(jaxctc.compose(topologies.CTC(), graph), log_probs)
    losses = jaxctc.ctc_loss(
        jnp.stack([log_probs] * 2), jnp.array([[1, 2, 0], [2, 1, 2]]), label_lengths=[2, 3]
    )
    np.testing.assert_allclose(got, np.logaddexp(-1 - losses[0], -losses[1]), rtol=1e-6)
    padded = jaxctc.Fsa.stack([graph], states=12, arcs=13)
    padded = jaxctc.Fsa(*(x[0] for x in padded))
    again = jaxctc.compose(topologies.CTC(), padded)
    jax.tree.map(np.testing.assert_array_equal, again, jaxctc.compose(topologies.CTC(), graph))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_ngram_probabilities(order, discount):
    sequences = [[1, 2, 3], [1, 1, 2], [3], [2, 1, 2, 3, 3], []]
    fsa = jaxctc.ngram_fsa(sequences, order=order, discount=discount)
    for q in range(len(fsa.final)):
        leaving = np.exp(fsa.weight[fsa.source == q]).sum() + np.exp(fsa.final[q])
        np.testing.assert_allclose(leaving, 1, rtol=1e-5)
    assert len({*zip(fsa.source.tolist(), fsa.label.tolist(), strict=True)}) == len(fsa.label)
    assert all(fsa.score_sequence(labels) > -20 for labels in sequences)
    if order == 2:  # p(1 | start) p(2 | 1) p(end | 2), each from 5, 4 and 4 counts
        total = {"": 17, "1": 4, "2": 4, "3": 4, "end": 5}
        taken = discount
        unigram = {c: total[c] / total[""] for c in ("1", "2", "end")}
        first = (2 - taken) / 5 + 4 * taken / 5 * unigram["1"]
        second = (3 - taken) / 4 + 2 * taken / 4 * unigram["2"]
        end = (1 - taken) / 4 + 3 * taken / 4 * unigram["end"]
        if discount == 0.5:
            np.testing.assert_allclose(
                fsa.score_sequence([1, 2]), np.log(first * second * end), rtol=1e-5
            )


def test_automata_of_the_decoder_are_graphs():
    words = jaxctc.Lexicon([[1, 2], [1, 2, 3]], classes=5, separator=4).automaton()
    fsa = graphs.from_automaton(words)
    for length in range(5):
        for labels in itertools.product(range(5), repeat=length):
            assert fsa.score_sequence(labels) == words.score_sequence(labels)


def test_text():
    text = "0 1 3 0.5\n0 0 1\n\n1 2 2 1\n2 0.25\n0\n"
    fsa = graphs.from_openfst_text(text)
    assert fsa.score_sequence([1, 1, 3, 2]) == -1.75
    assert fsa.score_sequence([]) == 0
    assert fsa.score_sequence([3]) == -np.inf


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (graphs.from_k2_text, "", r"text is empty; it must have a final state"),
        (graphs.from_k2_text, "0 1 2 0.5", r"line 1: it must be the final state alone"),
        (graphs.from_k2_text, "0 1 -1\n1", r"line 1 has 3 fields; it must have 4"),
        (graphs.from_k2_text, "0 1 2 0.5\n1", r"line 1: arcs of label -1, and no others, lead"),
        (graphs.from_k2_text, "0 1 -1 1\n0 1 -1 2\n1", r"line 2: state 0 ends already; it must"),
        (graphs.from_k2_text, "0 1 x 0.5\n1", r"line 1: '0 1 x 0.5' has what is not a number"),
        (graphs.from_k2_text, "0 0 1 0.5\n1", r"no final state can be reached from a start"),
        (graphs.from_openfst_text, "0 1 0 0.5\n1", r"line 1: the label 0 is empty; it must be"),
        (graphs.from_openfst_text, "nan 1 2\n1", r"state is nan; it must be a whole number"),
        (graphs.from_openfst_text, "0 1 2\n1\n1 2", r"line 3: state 1 ends already; it must"),
        (graphs.from_openfst_text, "0 1 2 2 0.5\n1", r"line 1 has 5 fields; it must have 1 to 4"),
    ],
)
def test_text_that_is_none(read, text, message):
    with pytest.raises(ValueError, match=f"^{message}.*\\.$"):
        read(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([(0, 1, 2, 0.0)], {2}), r"no final state can be reached from a start state; it must"),
        (([(0, 1, -1, 0.0)], {1}), r"label is -1; it must be a whole number from 0 up"),
        (([(0, 1.5, 1, 0.0)], {1}), r"state is 1.5; it must be a whole number from 0 up"),
        (([(0, 1, 1, 0.0)], {-1, 1}), r"state is -1; it must be a whole number from 0 up"),
        (([(0, 1, 1, np.nan)], {1}), r"arc weight is nan; it must be finite or -inf"),
        (([(0, 1, 1, 0.0)], {1: np.inf}), r"final weight is inf; it must be finite or -inf"),
        (
            ([(0, 1, 1, -1e39)], {1}),
            r"arc weight is -1e\+39; it must be finite or -inf, in float32",
        ),
        (([(0, 1, 1, 0.0), (0, 1, 1)], {1}), r"arcs has rows that are not four numbers; it must"),
        (([(0, 1, 1)], {1}), r"arcs has shape \(1, 3\); it must be \[A, 4\]"),
        (([], {}), r"no final state can be reached"),
    ],
)
def test_arcs_that_are_no_automaton(arguments, message):
    arcs, final = arguments
    with pytest.raises(ValueError, match=f"^{message}.*\\.$"):
        jaxctc.Fsa.from_arcs(arcs, final=final)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxctc.ctc_fsa([1, 0]), r"label is 0; it must not be the blank"),
        (lambda: jaxctc.ctc_fsa([1, -2]), r"label is -2; it must be a whole number"),
        (lambda: jaxctc.ctc_fsa([1, 3], star_id=3), r"label is 3; it must not be the star"),
        (
            lambda: jaxctc.ctc_fsa([1, 4], star_id=3, star_excludes_next=True),
            r"label is 4; with star_excludes_next it must be below the star, 3",
        ),
        (lambda: jaxctc.ctc_fsa([1], star_id=0), r"star_id is 0; it must be from 0 up, and not"),
        (lambda: jaxctc.ctc_fsa([[1, 2]]), r"labels has shape \(1, 2\); it must be \[S\]"),
        (lambda: jaxctc.ctc_fsa([1], weight=-np.inf), r"weight is -inf; it must be finite"),
        (lambda: jaxctc.linear_fsa([1], weights=[]), r"weights has length 0; it must be 1"),
        (lambda: jaxctc.union_fsa([]), r"automata has length 0; it must be at least 1"),
        (lambda: jaxctc.Fsa.stack([]), r"automata has length 0; it must be at least 1"),
        (
            lambda: jaxctc.Fsa.stack([jaxctc.ctc_fsa([1])], states=2),
            r"states is 2; it must be at least 3",
        ),
        (lambda: jaxctc.ngram_fsa([]), r"sequences has length 0; it must be at least 1"),
        (
            lambda: jaxctc.ngram_fsa([[1], [2, -2]]),
            r"label is -2; it must be a whole number from 0",
        ),
        (lambda: jaxctc.ngram_fsa([[1], [2, 1.5]]), r"label is 1.5; it must be a whole number"),
        (
            lambda: jaxctc.compose(
                topologies.CTC(),
                jaxctc.linear_fsa([1])._replace(start=np.array([np.nan, 0], np.float32)),
            ),
            r"start weight is nan; it must be finite or -inf",
        ),
        (lambda: jaxctc.ngram_fsa([[1]], order=0), r"order is 0; it must be at least 1"),
        (lambda: jaxctc.ngram_fsa([[1]], discount=2), r"discount is 2; it must be in 0…1"),
        (
            lambda: jaxctc.compose(topologies.TwoStateHMM(labels=2), jaxctc.linear_fsa([2])),
            r"label is 2; it must be a class, in 0…1",
        ),
        (lambda: jaxctc.with_star(np.zeros((2, 3)), blank_id=3), r"blank_id is 3; it must be"),
    ],
)
def test_what_cannot_be_meant(call, message):
    with pytest.raises(ValueError, match=f"^{message}.*\\.$"):
        call()


STACKED = jaxctc.Fsa.stack([jaxctc.linear_fsa([1, 2]), jaxctc.linear_fsa([1])])
ONE = r"\.final has shape \(2, 3\); it must be \[S\], of one automaton"


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (ValueError, lambda: jaxctc.union_fsa([STACKED]), r"automata\[0\]" + ONE),
        (ValueError, lambda: jaxctc.Fsa.stack([jaxctc.linear_fsa([1]), STACKED]), r"automata\[1\]"),
        (ValueError, lambda: jaxctc.compose(topologies.CTC(), STACKED), "graph" + ONE),
        (ValueError, lambda: graphs.trim(STACKED), "fsa" + ONE),
        (ValueError, lambda: STACKED.score_sequence([1]), "fsa" + ONE),
        (TypeError, lambda: jaxctc.Fsa.stack(STACKED), r"automata has type Fsa; it must be a seq"),
        (
            TypeError,
            lambda: jaxctc.union_fsa([[1]]),
            r"automata\[0\] has type list; it must be an F",
        ),
        (TypeError, lambda: jaxctc.compose(topologies.CTC(), [1]), r"graph has type list; it must"),
        (
            TypeError,
            lambda: jaxctc.compose(topologies.CTC, jaxctc.linear_fsa([1])),
            r"topology has type type; it must be a topology, such as CTC\(\)",
        ),
        (
            TypeError,
            lambda: jaxctc.compose(STACKED, topologies.CTC()),
            r"topology has type Fsa; it",
        ),
        (TypeError, lambda: jaxctc.ctc_fsa(3), r"labels has type int; it must be a sequence of"),
        (
            TypeError,
            lambda: jaxctc.linear_fsa("12"),
            r"labels has dtype <U1; it must be an integer",
        ),
        (TypeError, lambda: jaxctc.ngram_fsa([1, 2]), r"sequence has type int; it must be a seq"),
        (
            TypeError,
            lambda: jaxctc.Fsa.from_arcs([(0, 1, 1, 0.0)], final=1),
            r"final is 1; it must be states, or weights by state",
        ),
        (
            TypeError,
            lambda: jaxctc.Fsa.from_arcs([(0, 1, 1, 0.0)], final=[1], start={"a": 0.0}),
            r"start is \{'a': 0.0\}; it must be states, or weights by state",
        ),
    ],
)
def test_what_is_none_of_the_kind(error, call, message):
    with pytest.raises(error, match=f"^{message}.*\\.$"):
        call()


def test_stars_stand_for_missing_labels():
    # With a star of weight 0 and no doubt, what is missing costs nothing.
    frames = jnp.array([2, 0, 1, 0, 3, 3])
    log_probs = jnp.log(0.97 * jax.nn.one_hot(frames, 4) + 0.0075)
    starred = jaxctc.with_star(log_probs)
    np.testing.assert_allclose(
        jnp.exp(starred[:, 4]), jnp.exp(log_probs[:, 1:]).sum(axis=1), rtol=1e-6
    )
    missing = jaxctc.fsa_score(jaxctc.ctc_fsa([1]), log_probs)
    partly = jaxctc.fsa_score(jaxctc.ctc_fsa([1], star_id=4), starred)
    charged = jaxctc.fsa_score(jaxctc.ctc_fsa([1], star_id=4, star_weight=-2.0), starred)
    assert missing < -8
    assert partly > -0.3
    np.testing.assert_allclose(charged - partly, -4, atol=0.2)  # two stars


def test_stars_that_exclude_the_next_label():
    """Against all ways to write labels, and stars that are not the label they stand before."""
    classes, star, wanted = 3, 3, [1, 2, 2]
    log_probs = jax.nn.log_softmax(np.random.default_rng(0).normal(0, 3, (5, classes)))
    starred = jaxctc.with_star(log_probs, excluding=True)
    probs = np.exp(np.asarray(log_probs, np.float64))
    of_star = {star: probs[:, 1] + probs[:, 2], star + 2: probs[:, 2], star + 3: probs[:, 1]}
    for c, want in of_star.items():
        np.testing.assert_allclose(jnp.exp(starred[:, c]), want, rtol=1e-5)
    weights = of_star | {c: probs[:, c] for c in range(classes)}

    def reads(tokens):
        done = 0
        for token in tokens:
            expected = wanted[done] if done < len(wanted) else None
            if token == expected:
                done += 1
            elif token != (star if expected is None else star + 1 + expected):
                return False
        return done == len(wanted)

    total = sum(
        np.prod([weights[c][t] for t, c in enumerate(path)])
        for path in itertools.product(weights, repeat=5)
        if reads(collapse(path, 0))
    )
    fsa = jaxctc.ctc_fsa(wanted, star_id=star, star_excludes_next=True)
    np.testing.assert_allclose(jaxctc.fsa_score(fsa, starred), np.log(total), rtol=1e-5)


def test_the_sum_of_others_is_exact_where_one_has_almost_all():
    log_probs = jnp.array([[-jnp.inf, 0.0, -70.0, -71.0], [0.0, -jnp.inf, -jnp.inf, -5.0]])
    others, pullback = jax.vjp(lambda x: jaxctc.with_star(x, excluding=True)[:, 5:], log_probs)
    want = [[0, np.logaddexp(-70, -71), 0, 0], [-5, -5, -5, -np.inf]]
    np.testing.assert_allclose(others, want, rtol=1e-6, atol=1e-6)
    (gradient,) = pullback(jnp.ones_like(others).at[:, 0].set(0))
    first = np.exp(-70 - np.logaddexp(-70, -71))
    want = [[0, 2, first, 1 - first], [0, 0, 0, 2]]
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-6)


def test_the_star_of_padding_and_of_no_label_has_no_gradient():
    log_probs = jnp.array([[0.0, -1, -2], [0, -jnp.inf, -jnp.inf], [jnp.nan] * 3])
    star, pullback = jax.vjp(lambda x: jaxctc.with_star(x)[:, 3], log_probs)
    np.testing.assert_allclose(star, [np.logaddexp(-1, -2), -np.inf, np.nan], rtol=1e-6)
    (gradient,) = pullback(jnp.ones(3))
    assert np.isfinite(gradient).all()
    assert not gradient[1:].any()
