"""CTC's prefix scores against all label sequences, and in a search with an attention decoder."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_searches import exhaustive_search
from oracles import log_softmax

import jaxctc

T, C = 5, 4


def prefix_log_probability(all_sequences, prefix):
    with np.errstate(divide="ignore"):
        return np.log(
            sum(np.exp(p) for y, p in all_sequences.items() if y[: len(prefix)] == prefix)
        )


@pytest.mark.parametrize("blank_id", [0, 2])
def test_prefixes_have_the_probability_of_all_that_begins_with_them(blank_id):
    logits = np.random.default_rng(0).normal(size=(3, T, C)).astype(np.float32)
    lengths = np.array([T, 3, 1])
    possible = [c for c in range(C) if c != blank_id]
    state = jaxctc.ctc_prefix_start(logits, lengths, blank_id=blank_id)
    known = [
        exhaustive_search(log_softmax(x[:n]), blank_id)
        for x, n in zip(logits, lengths, strict=True)
    ]
    prefixes = [()]
    for _ in range(3):
        labels = np.broadcast_to(possible, (3, len(prefixes), 3))
        scores, state = jaxctc.ctc_prefix_score(state, logits, labels, lengths, blank_id=blank_id)
        prefixes = [(*p, c) for p in prefixes for c in possible]
        state = jax.tree.map(lambda x: x.reshape(3, -1, *x.shape[3:]), state)
        for b in range(3):
            got = np.asarray(scores[b]).reshape(-1)
            want = [prefix_log_probability(known[b], p) for p in prefixes]
            np.testing.assert_allclose(np.exp(got), np.exp(want), atol=1e-6)
            end = [np.exp(known[b].get(p, -np.inf)) for p in prefixes]
            np.testing.assert_allclose(np.exp(state.end()[b]), end, atol=1e-6)


def test_labels_that_cannot_follow():
    logits = np.random.default_rng(0).normal(size=(T, C)).astype(np.float32)
    state = jaxctc.ctc_prefix_start(logits, hypotheses=2)
    scores, after = jaxctc.ctc_prefix_score(state, logits, [[0, -1, 1], [9, 2, 2]])
    np.testing.assert_array_equal(np.isfinite(scores), [[False, False, True], [False, True, True]])
    assert (np.asarray(after.end())[0, :2] == -np.inf).all()
    # What cannot follow cannot be gone on with.
    dead = jax.tree.map(lambda x: x[0], after)
    scores, _ = jaxctc.ctc_prefix_score(dead, logits, [[2, 3], [2, 3], [2, 3]])
    assert (np.asarray(scores)[:2] == -np.inf).all()
    assert np.isfinite(scores[2]).all()


def test_one_pass_decoding_with_an_attention_decoder():
    """A decoder's search that adds both scores finds what is best of all sequences."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(T, C)).astype(np.float32)
    table = log_softmax(
        2 * rng.normal(size=(C, C))
    )  # the decoder: next label by last, 0 is the end

    def decoder(labels):
        path = [0, *labels, 0]
        return sum(table[a, b] for a, b in itertools.pairwise(path))

    known = exhaustive_search(log_softmax(logits), 0)
    want = max(known, key=lambda y: 0.6 * known[y] + 0.4 * decoder(y))

    width, proposed = 12, np.array([1, 2, 3])
    state = jaxctc.ctc_prefix_start(logits, hypotheses=width)
    alive = np.full(width, -np.inf)  # the decoder's score of each hypothesis
    alive[0] = 0.0
    said: list[tuple] = [()] * width
    best: tuple[float, tuple] = (-np.inf, ())
    for _ in range(T + 1):
        end = 0.6 * np.asarray(state.end()) + 0.4 * (
            alive + table[[y[-1:] or (0,) for y in said], 0][:, 0]
        )
        for score, y in zip(end, said, strict=True):
            best = max(best, (float(score), y))
        labels = np.broadcast_to(proposed, (width, 3))
        scores, states = jaxctc.ctc_prefix_score(state, logits, labels)
        from_decoder = alive[:, None] + table[[y[-1] if y else 0 for y in said]][:, proposed]
        total = np.where(
            from_decoder > -np.inf, 0.6 * np.asarray(scores) + 0.4 * from_decoder, -np.inf
        )
        places = np.argsort(-total.reshape(-1))[:width]
        parent, choice = np.divmod(places, 3)
        state = jax.tree.map(lambda x, p=parent, c=choice: x[p, c], states)
        alive = np.where(total.reshape(-1)[places] > -np.inf, from_decoder[parent, choice], -np.inf)
        said = [(*said[p], int(proposed[c])) for p, c in zip(parent, choice, strict=True)]
    assert best[1] == want


def test_it_is_compiled_once_and_vectorised():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, T, C)), jnp.float32)
    labels = np.broadcast_to([1, 2, 3], (2, 1, 3))
    state = jaxctc.ctc_prefix_start(logits)
    want, _ = jaxctc.ctc_prefix_score(state, logits, labels)
    got, _ = jax.jit(jax.vmap(jaxctc.ctc_prefix_score))(state, logits, labels)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_log_probabilities_are_not_normalised_again():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, T, C)), jnp.float32)
    log_probs, labels = jax.nn.log_softmax(logits), np.broadcast_to([1, 2, 3], (2, 1, 3))
    want = jaxctc.ctc_prefix_score(jaxctc.ctc_prefix_start(logits), logits, labels)
    state = jaxctc.ctc_prefix_start(log_probs, normalised=True)
    step = functools.partial(jaxctc.ctc_prefix_score, normalised=True)
    got = step(state, log_probs, labels)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, want)
    assert "reduce_max" not in str(jax.make_jaxpr(step)(state, log_probs, labels))
    assert "reduce_max" in str(jax.make_jaxpr(jaxctc.ctc_prefix_score)(state, logits, labels))
    with pytest.raises(TypeError, match="normalised is 1; it must be True or False"):
        step(state, log_probs, labels, normalised=1)


def test_errors_name_the_argument():
    logits = np.zeros((T, C), np.float32)
    state = jaxctc.ctc_prefix_start(logits)
    with pytest.raises(ValueError, match=r"labels has shape \(3,\); it must be \[1, K\]"):
        jaxctc.ctc_prefix_score(state, logits, [1, 2, 3])
    with pytest.raises(ValueError, match=r"state has shape \(1, 5\); it must be \(1, 4\)"):
        jaxctc.ctc_prefix_score(state, logits[:4], [[1]])
    with pytest.raises(TypeError, match="state has type int; it must be a PrefixState"):
        jaxctc.ctc_prefix_score(3, logits, [[1]])
