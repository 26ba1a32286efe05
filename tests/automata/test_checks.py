"""Error messages of malformed automata, and of malformed calls with them."""

import numpy as np
import pytest

import jaxctc
from jaxctc.automata import graphs, topologies

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
        (
            ([(0, 10**9, 1, 0.0)], {10**9}),
            r"state is 1000000000; it must be below 1020, since only 2 states are used\. Number",
        ),
        (([(0, 1, 1, 0.0)], {1, 10**9}), r"state is 1000000000; it must be below 1030, since only"),
    ],
)
def test_malformed_arcs(arguments, message):
    arcs, final = arguments
    with pytest.raises(ValueError, match=f"^{message}.*\\.$"):
        jaxctc.Fsa.from_arcs(arcs, final=final)


def test_states_may_have_small_gaps_and_labels_large_ones():
    assert jaxctc.Fsa.from_arcs([(0, 1019, 1, 0.0)], final={1019}).final.shape == (1020,)
    with pytest.raises(ValueError, match=r"^state is 1020; it must be below 1020"):
        jaxctc.graphs.from_openfst_text("0 1020 1\n1020")
    assert jaxctc.linear_fsa(range(5000)).final.shape == (5001,)
    huge = 2**31 - 2  # a large label takes no memory
    far, near = jaxctc.ngram_fsa([[huge, 7], [7]]), jaxctc.ngram_fsa([[2, 1], [1]])
    assert far.score_sequence([7, huge]) == near.score_sequence([1, 2])
    assert set(far.label.tolist()) == {7, huge}
    assert jaxctc.compose(jaxctc.topologies.CTC(), far).final.shape[0] < 20


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
def test_arguments_out_of_range(call, message):
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
def test_arguments_of_the_wrong_kind(error, call, message):
    with pytest.raises(error, match=f"^{message}.*\\.$"):
        call()
