"""A wrong scorer gets one sentence, in every function that takes one, not a traceback of a scan."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc

C = 4
LOGITS = np.zeros((3, C), np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counter:
    """A right scorer: its score is the number of labels before."""

    unit: Any = dataclasses.field(default_factory=lambda: np.float32(1))

    def start(self):
        return {"count": jnp.int32(0)}

    def extend(self, state, label):
        return {"count": state["count"] + 1}, self.unit * state["count"]

    def final(self, state):
        return jnp.float32(0)


def wrong(**methods):
    """A scorer that differs from a right one in these methods."""
    own = {name: lambda self, *a, f=f: f(*a) for name, f in methods.items()}
    kind = type("Wrong", (Counter,), own)
    return jax.tree_util.register_dataclass(kind, ["unit"], [])()


class NoPytree(Counter):
    pass


RIGHT = jaxctc.Hotwords({(1, 2): 1.0}, classes=C).scorer()
ZERO = jnp.float32(0)


@pytest.mark.parametrize(
    ("scorer", "error", "sentence"),
    [
        (3, TypeError, "scorer has type int; it must be a Scorer"),
        (Counter, TypeError, "scorer has type type; it must be a Scorer"),
        (
            jaxctc.NGram({("a",): (-1, 0)}, ["a"]),
            TypeError,
            "scorer has type NGram; it must be a Sc",
        ),
        (NoPytree(), TypeError, "scorer has type NoPytree, which is not a pytree; it must be one"),
        (
            Counter("much"),
            TypeError,
            r"scorer\.unit has type str; it must be an array, or a field that is static",
        ),
        (
            wrong(final=lambda state: jnp.zeros(2)),
            ValueError,
            r"scorer\.final returns a score of shape \(2,\) and dtype float32; it must be",
        ),
        (
            wrong(final=lambda state: None),
            TypeError,
            r"scorer\.final returns a score of type NoneType; it must be a number",
        ),
        (
            wrong(extend=lambda state, label: (state, label)),
            ValueError,
            r"scorer\.extend returns a score of shape \(\) and dtype int32; it must be a floating",
        ),
        (
            wrong(extend=lambda state, label: ZERO),
            TypeError,
            r"scorer\.extend returns a value of type \w+; it must return two, a state and a score",
        ),
        (
            wrong(extend=lambda state, label: (state, ZERO, ZERO)),
            TypeError,
            r"scorer\.extend returns 3 values; it must return two, a state and a score",
        ),
        (
            wrong(extend=lambda state, label: ({"count": 0.5 * state["count"]}, ZERO)),
            ValueError,
            r"scorer\.extend returns the state {'count': float32\[\]}; it must be like that of",
        ),
        (
            wrong(extend=lambda state, label: (state | {"last": label}, ZERO)),
            ValueError,
            r"returns the state {'count': int32\[\], 'last': int32\[\]}; it must be like that of",
        ),
        (
            wrong(extend_scores=lambda state, labels: ZERO),
            ValueError,
            r"scorer\.extend_scores returns a score of shape \(\) and dtype float32; it must be",
        ),
        (
            wrong(classes="four"),
            TypeError,
            r"scorer\.classes has type \w+; it must be an int",
        ),
        (
            jaxctc.Hotwords({(1, 2): 1.0}, classes=C + 1).scorer(),
            ValueError,
            f"scorer reads {C + 1} classes; it must read {C}",
        ),
    ],
)
def test_searches_say_what_is_wrong(scorer, error, sentence):
    with pytest.raises(error, match=sentence):
        jaxctc.ctc_beam_search(LOGITS, scorer=scorer)


BAD = wrong(final=lambda state: jnp.zeros(2))
STATE = jaxctc.ctc_beam_start(beam_width=2, max_labels=3, scorer=Counter())
SENTENCE = r"scorer(s\[1\]|\.scorers\[1\])?\.final returns a score of shape \(2,\)"


@pytest.mark.parametrize(
    "call",
    [
        lambda: jaxctc.ctc_beam_search(LOGITS, scorer=jaxctc.combine([RIGHT, BAD])),
        lambda: jaxctc.ctc_beam_start(beam_width=2, max_labels=3, scorer=BAD),
        lambda: jaxctc.ctc_beam_extend(STATE, LOGITS, scorer=BAD),
        lambda: jaxctc.ctc_beam_finish(STATE, scorer=BAD),
        lambda: jaxctc.ctc_beam_rescore(STATE, scorer=BAD),
        lambda: jaxctc.score_sequence(BAD, [1]),
        lambda: jaxctc.scorer_state(BAD, [1]),
        lambda: jaxctc.tabulate(BAD, classes=C),
        lambda: jaxctc.ctc_mwer_loss(LOGITS[None], np.array([[1]]), beam_width=2, scorer=BAD),
    ],
)
def test_every_function_that_takes_a_scorer_says_so(call):
    with pytest.raises(ValueError, match=SENTENCE):
        call()


def test_models_of_words_are_asked_what_a_lexicon_asks():
    lexicon = jaxctc.Lexicon([[1], [2]], C, 3)
    with pytest.raises(ValueError, match=r"language_model\.final returns a score of shape"):
        lexicon.scorer(language_model=BAD)
    short = wrong(unigram_scores=lambda: jnp.zeros(3))
    with pytest.raises(ValueError, match=r"unigram_scores returns a score of shape \(3,\)"):
        lexicon.scorer(language_model=short)
    old = wrong(extend_unknown=lambda state: state)
    lexicon.scorer(language_model=old)
    with pytest.raises(TypeError, match=r"extend_unknown returns a value of type dict; it must"):
        lexicon.scorer(language_model=old, unknown=(-1, -1))


def test_sums_take_sequences():
    with pytest.raises(TypeError, match="scorers has type Automaton; it must be a sequence of sc"):
        jaxctc.combine(RIGHT)
    with pytest.raises(TypeError, match="weights has type float; it must be a sequence of numbers"):
        jaxctc.combine([RIGHT], weights=2.0)


def test_a_state_of_another_scorer():
    for state in ("last", {"count": "two"}, {"count": np.float32(2)}, [1, 2]):
        with pytest.raises(ValueError, match="scorer_state does not fit; it must have a state of"):
            jaxctc.ctc_beam_search(LOGITS, scorer=Counter(), scorer_state=state)
    bare = jaxctc.ctc_beam_start(beam_width=2, max_labels=3)
    with pytest.raises(ValueError, match="state was started with another scorer"):
        jaxctc.ctc_beam_extend(bare, LOGITS, scorer=Counter())
