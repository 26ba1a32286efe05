"""Graphs of labels against plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import scores_of, sequences

import jaxctc
from jaxctc.automata import graphs, topologies


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
    words = jaxctc.Lexicon([[1, 2], [1, 2, 3]], classes=5, separator=4).scorer()
    fsa = graphs.from_scorer(words)
    every = [*sequences(range(5), 4)]
    for labels, score in zip(every, scores_of(words, every), strict=True):
        assert fsa.score_sequence(labels) == score


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
        (graphs.from_k2_text, "0 1 2 0.5\n1", r"line 1: label is 2; it must be -1 on arcs to the"),
        (
            graphs.from_k2_text,
            "0 1 -1 1\n0 1 -1 2\n1",
            r"line 2: state 0 has two final weights",
        ),
        (graphs.from_k2_text, "0 1 x 0.5\n1", r"line 1 is '0 1 x 0.5'; it must be numbers"),
        (graphs.from_k2_text, "0 0 1 0.5\n1", r"no final state can be reached from a start"),
        (graphs.from_openfst_text, "0 1 0 0.5\n1", r"line 1: label 0 is epsilon; it must be"),
        (graphs.from_openfst_text, "nan 1 2\n1", r"state is nan; it must be a whole number"),
        (graphs.from_openfst_text, "0 1 2\n1\n1 2", r"line 3: state 1 has two final weights"),
        (graphs.from_openfst_text, "0 1 2 2 0.5\n1", r"line 1 has 5 fields; it must have 1 to 4"),
    ],
)
def test_malformed_text(read, text, message):
    with pytest.raises(ValueError, match=f"^{message}.*\\.$"):
        read(text)
