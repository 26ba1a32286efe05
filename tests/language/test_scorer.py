"""Scorers that a user writes, as arguments of the searches."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import scores_of, sequences

import jaxctc

C = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bounded:
    """So many labels exactly, each with a price of its own and another after itself."""

    price: Any  # [C]
    again: Any
    most: Any

    def start(self):
        return {"count": jnp.int32(0), "last": jnp.int32(-1)}

    def extend(self, state, label):
        score = jnp.asarray(self.price)[label] + jnp.where(label == state["last"], self.again, 0)
        score = jnp.where(state["count"] < self.most, score, -jnp.inf)
        return {"count": state["count"] + 1, "last": label}, score

    def final(self, state):
        return jnp.where(state["count"] == self.most, 0.0, -jnp.inf)


def bounded(most=2, again=-0.5):
    return Bounded(np.array([0, 0.5, -0.25, 1], np.float32), np.float32(again), np.int32(most))


def best_by_enumeration(logits, score, weight, most):
    """All label sequences, the best total first: (labels, log-probability, score)."""
    every = [*sequences(range(1, C), most)]
    padded = np.array([[*labels, *[1] * (most - len(labels))] for labels in every])
    lengths = np.array([len(labels) for labels in every])
    wide = np.broadcast_to(logits, (len(every), *logits.shape))
    exact = -np.asarray(jaxctc.ctc_loss(wide, padded, None, lengths))
    extra = np.array(score(every))
    total = exact + weight * extra
    order = [i for i in np.argsort(-total) if total[i] > -np.inf]
    return [(every[i], exact[i], extra[i]) for i in order]


def assert_finds(found, want, many):
    got = [tuple(x[x >= 0].tolist()) for x in np.asarray(found.labels)[:many]]
    assert got == [labels for labels, *_ in want[:many]]
    np.testing.assert_allclose(found.scores[:many], [x[1] for x in want[:many]], atol=1e-4)
    np.testing.assert_allclose(found.scorer_scores[:many], [x[2] for x in want[:many]], atol=1e-4)


def test_a_users_scorer():
    logits = np.random.default_rng(0).normal(size=(5, C)).astype(np.float32)
    scorer = bounded()
    found = jaxctc.ctc_beam_search(logits, beam_width=300, scorer=scorer, scorer_weight=0.7)

    def score(every):
        def one(labels):
            again = sum(a == b for a, b in itertools.pairwise(labels))
            return sum(scorer.price[c] for c in labels) - 0.5 * again

        return [one(labels) if len(labels) == 2 else -np.inf for labels in every]

    want = best_by_enumeration(logits, score, 0.7, 5)
    assert len(want) == 9
    assert_finds(found, want, 9)
    np.testing.assert_array_equal(found.complete[:10], [True] * 9 + [False])


def test_another_scorer_of_the_same_kind_does_not_compile_anew():
    logits = np.random.default_rng(0).normal(size=(5, C)).astype(np.float32)
    search = jax.jit(lambda x, s: jaxctc.ctc_beam_search(x, beam_width=4, scorer=s))
    lengths = [int(search(logits, bounded(most)).lengths[0]) for most in (1, 2, 3)]
    assert lengths == [1, 2, 3]
    assert search._cache_size() == 1


def test_sums_within_a_search():
    logits = np.random.default_rng(1).normal(size=(3, 6, C)).astype(np.float32)
    hot = jaxctc.Hotwords({(1, 2): 1.5}, classes=C).scorer()
    both = jaxctc.combine([bounded(3), hot], weights=[0.5, 2.0])
    found = jaxctc.ctc_beam_search(logits, beam_width=400, scorer=both)
    for b in range(3):

        def score(every):
            parts = zip(scores_of(bounded(3), every), scores_of(hot, every), strict=True)
            return [0.5 * x + 2 * y if x > -np.inf else x for x, y in parts]

        want = best_by_enumeration(logits[b], score, 1.0, 6)
        assert_finds(jax.tree.map(lambda x, b=b: x[b], found), want, 10)


def test_few_classes_are_scored_where_few_are_possible():
    logits = np.random.default_rng(1).normal(size=(8, C)).astype(np.float32)
    all_but_one = jaxctc.ctc_beam_search(logits, beam_width=6, scorer=bounded(), prune_classes=3)
    every = jaxctc.ctc_beam_search(logits, beam_width=6, scorer=bounded())
    np.testing.assert_array_equal(all_but_one.labels, every.labels)
    np.testing.assert_allclose(all_but_one.scores, every.scores, rtol=1e-6)


@pytest.mark.parametrize("fast", [False, True])
def test_a_recurrent_network_as_scorer(fast):
    nnx = pytest.importorskip("flax.nnx", reason="needs Flax")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.cell = nnx.LSTMCell(8, 8, rngs=rngs)
            self.embed = nnx.Embed(C, 8, rngs=rngs)
            self.out = nnx.Linear(8, C, rngs=rngs)

        def __call__(self, carry, label):
            carry, y = self.cell(carry, 3 * self.embed(label))
            return carry, jax.nn.log_softmax(3 * self.out(y))

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Neural:
        """The state is the network's, and what it says of the next label; class 0 is the end."""

        graph: Any = dataclasses.field(metadata={"static": True})
        params: Any

        def _step(self, carry, label):
            return nnx.merge(self.graph, self.params)(carry, label)

        def start(self):
            return self._step((jnp.zeros(8), jnp.zeros(8)), jnp.int32(0))

        def extend(self, state, label):
            carry, log_probs = state
            return self._step(carry, label), log_probs[label]

        def final(self, state):
            return state[1][0]

    class WithScores(Neural):
        def extend_scores(self, state, labels):
            return state[1][labels]

    if fast:
        jax.tree_util.register_dataclass(WithScores, ["params"], ["graph"])
    graph, params = nnx.split(Model(nnx.Rngs(0)))
    scorer = (WithScores if fast else Neural)(graph, params)
    logits = np.random.default_rng(2).normal(size=(5, C)).astype(np.float32)
    found = jax.jit(lambda x, s: jaxctc.ctc_beam_search(x, beam_width=200, scorer=s))(
        logits, scorer
    )
    model = nnx.merge(graph, params)

    def score(every):
        def one(labels):
            carry, log_probs = model((jnp.zeros(8), jnp.zeros(8)), jnp.int32(0))
            total = 0.0
            for label in [*labels, 0]:
                total += float(log_probs[label])
                carry, log_probs = model(carry, jnp.int32(label))
            return total

        return [one(labels) if len(labels) < 4 else -np.inf for labels in every]

    # Longer ones are left out of the enumeration; they must not be among the best.
    want = best_by_enumeration(logits, score, 1.0, 5)
    assert_finds(found, want, 3)


def test_minimum_error_training_with_a_scorer():
    logits = jnp.asarray(np.random.default_rng(3).normal(size=(2, 6, C)), jnp.float32)
    labels = np.array([[1, 2], [3, 3]])
    scorer = bounded(2)

    def loss(x, scorer, weight):
        return jaxctc.ctc_mwer_loss(
            x, labels, ctc_weight=0, beam_width=50, scorer=scorer, scorer_weight=weight
        ).sum()

    value, gradient = jax.value_and_grad(loss)(logits, scorer, 0.5)
    found = jaxctc.ctc_beam_search(
        logits, beam_width=50, max_labels=4, scorer=scorer, scorer_weight=0.5
    )
    assert (found.complete.sum(axis=1) == 9).all()
    for b in range(2):
        pairs = np.asarray(found.labels[b, :9, :2])
        exact = -np.asarray(jaxctc.ctc_loss(np.broadcast_to(logits[b], (9, 6, C)), pairs))
        total = exact + 0.5 * np.array(scores_of(scorer, pairs))
        share = np.exp(total - total.max()) / np.exp(total - total.max()).sum()
        errors = np.asarray(jaxctc.edit_distance(pairs, np.broadcast_to(labels[b], (9, 2))))
        value -= (share * (errors - errors.mean())).sum()
    assert abs(value) < 1e-4
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_a_scorer_with_too_many_states_is_not_tabulated():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Counter(Bounded):
        def start(self):
            return jnp.int32(0)

        def extend(self, state, label):
            return 4 * state + label, jnp.float32(0)

        def final(self, state):
            return jnp.float32(0)

    counter = Counter(np.zeros(C, np.float32), np.float32(0), np.int32(0))
    with pytest.raises(ValueError, match="more than 50 states"):
        jaxctc.tabulate(counter, classes=C, max_states=50)
    with pytest.raises(ValueError, match="classes is None"):
        jaxctc.tabulate(counter)
    with pytest.raises(TypeError, match="scorer is traced; it must be known, outside `jit`"):
        jax.jit(lambda scorer: jaxctc.tabulate(scorer, classes=C))(counter)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Counting:
    """A scorer without a state and without arrays: each label adds its number, the end a half."""

    def start(self):
        return ()

    def extend(self, state, label):
        return (), label.astype(jnp.float32)

    def final(self, state):
        return jnp.float32(0.5)


def test_a_scorer_may_have_no_state():
    logits = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    networks = lambda frame, output: frame, lambda state, label: (label, state), ()
    for found in (
        jaxctc.ctc_beam_search(logits, scorer=Counting()),
        jaxctc.ctc_beam_search(logits, scorer=Counting(), prune_classes=3),
        jaxctc.ctc_beam_search(logits, scorer=jaxctc.combine([Counting()])),
        jaxctc.rnnt_beam_search(*networks, logits, monotonic=True, scorer=Counting()),
        jaxctc.rnnt_greedy_decode(*networks, logits, monotonic=True, scorer=Counting()),
    ):
        wanted = np.where(found.labels >= 0, found.labels, 0).sum(-1) + 0.5
        exist = np.asarray(found.scores) > -np.inf
        np.testing.assert_array_equal(found.scorer_scores[exist], wanted[exist])
    table = jaxctc.tabulate(Counting(), classes=4)
    assert jaxctc.score_sequence(table, [1, 3, 2]) == 6.5


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Numbers:
    """Python's numbers are as good as arrays: the start, each label, the end, an unknown word."""

    def start(self):
        return 0

    def extend(self, state, label):
        return label, -0.5

    def final(self, state):
        return 0.25

    def extend_unknown(self, state):
        return 0, -2.0


def test_scores_may_be_python_numbers():
    scorer, labels = Numbers(), np.array([1, 2, 3])
    assert jaxctc.score_sequence(scorer, labels) == -1.25
    assert jaxctc.score_sequence(jaxctc.combine([scorer] * 2, weights=[1, 2]), labels) == -3.75
    lexicon = jaxctc.Lexicon([[1], [3]], C, separator=2)
    words = lexicon.scorer(language_model=scorer, weight=2.0, unknown=(-1.0, 0.0))
    for labels, score in [([1, 2, 3], -1.5), ([1, 2, 3, 3], -5.5), ([], 0.5)]:
        assert jaxctc.score_sequence(words, np.array(labels, int)) == score
    table = jaxctc.tabulate(scorer, classes=C, unknown=True)
    assert table.score.shape == (C, C)
    np.testing.assert_array_equal(table.unknown_score, -2)
    after = jaxctc.scorer_state(scorer, [1])
    state = jaxctc.ctc_beam_start(beam_width=2, max_labels=2, scorer=scorer, scorer_state=after)
    np.testing.assert_array_equal(state.beam.scorer_score, -0.25)


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5)])
def test_batches_and_utterances_may_be_empty(shape):
    scorer = jaxctc.Hotwords({(1, 2): 1.0}, classes=5).scorer()
    found = jaxctc.ctc_beam_search(np.zeros(shape, np.float32), scorer=scorer, max_labels=3)
    assert found.labels.shape == (shape[0], 16, 3)
    skipping = jaxctc.ctc_beam_search(
        np.zeros(shape, np.float32), blank_skip_threshold=0.9, max_labels=3
    )
    np.testing.assert_array_equal(skipping.labels, found.labels)
