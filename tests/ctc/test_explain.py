"""Why a loss is infinite, in exact words, and that it is explained whenever it is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxctc

FLAT = np.zeros((6, 5), np.float32)


def masked(*places, by=-np.inf):
    """Six frames of five classes, with -inf, or `by`, at places (frames, classes)."""
    logits = FLAT.copy()
    for place in places:
        logits[place] = by
    return logits


def changed(**values):
    logits = FLAT.copy()
    logits[2, 3] = values.get("one", 0)
    logits[4, 1] = values.get("other", 0)
    return logits


EVERY = slice(None)
CASES = {
    "nothing": (FLAT, [1, 2, 2], ""),
    "no label": (FLAT, [], ""),
    "a class too high": (FLAT, [1, 9], "labels[1] is 9; it must be a class, in 0…4."),
    "a negative label": (FLAT, [-3, 1], "labels[0] is -3; it must be a class, in 0…4."),
    "the blank": (FLAT, [1, 2, 0], "labels[2] is 0, the blank; it must be another class."),
    "many blanks": (
        FLAT,
        [1, 0, 0, 0, 0],
        "labels[1] is 0, the blank; it must be another class. "
        "labels[2] is 0, the blank; it must be another class. "
        "labels[3] is 0, the blank; it must be another class. "
        "It is so with 1 more. "
        "labels need 8 frames, 3 of them for blanks between equal labels; there are 6.",
    ),
    "too few frames": (FLAT[:2], [1, 2, 3], "labels need 3 frames; there are 2."),
    "no frames": (FLAT[:0], [1], "labels need 1 frame; there are 0."),
    "too few for repeats": (
        FLAT[:4],
        [1, 1, 2, 2],
        "labels need 6 frames, 2 of them for blanks between equal labels; there are 4.",
    ),
    "nan": (changed(one=np.nan), [1], "logits[2, 3] is nan; it must be finite or -inf."),
    "inf": (
        changed(one=np.inf, other=np.nan),
        [1],
        "logits[2, 3] is inf; it must be finite or -inf. It is the first of 2 such numbers.",
    ),
    "a class masked where it could stand": (
        masked((slice(1, 5), 3)),
        [1, 3, 2],
        "labels[1] is 3; it can stand only at frames 1 to 4, and there its logits are -inf.",
    ),
    "a class masked at its only frame": (
        masked((1, 3))[:3],
        [1, 3, 2],
        "labels[1] is 3; it can stand only at frame 1, and there its logits are -inf.",
    ),
    "a class masked elsewhere": (masked((0, 3), (5, 3)), [1, 3, 2], ""),
    "two classes masked": (
        masked((EVERY, 1), (EVERY, 2)),
        [1, 2],
        "labels[0] is 1; it can stand only at frames 0 to 4, and there its logits are -inf. "
        "labels[1] is 2; it can stand only at frames 1 to 5, and there its logits are -inf.",
    ),
    "a frame of nothing": (
        masked((3, EVERY)),
        [1],
        "logits[3] is -inf at all classes; one must be possible.",
    ),
    "a frame without what is needed": (
        masked((2, slice(0, 3))),
        [1, 2],
        "logits[2] is -inf at classes 0, 1, 2; the labels need one of these at this frame.",
    ),
    "the blank between equal labels": (
        masked((EVERY, 0)),
        [1, 1],
        "logits[4] is -inf at class 0; the labels need it at this frame.",
    ),
    "the blank alone": (
        masked((3, 0)),
        [],
        "logits[3] is -inf at class 0; the labels need it at this frame.",
    ),
    "a class masked by the lowest number": (
        masked((EVERY, 1), by=np.finfo(np.float32).min),
        [1],
        "The best alignment has the log-probability -3.4e+38, too low for float32. "
        "If logits are masked, mask them with -inf.",
    ),
    "low numbers whose sum is too low": (
        masked((EVERY, 1), by=-2e38),
        [1, 1],
        "The best alignment has the log-probability -4e+38, too low for float32. "
        "If logits are masked, mask them with -inf.",
    ),
    "a low number": (masked((EVERY, 1), by=-2e38), [1], ""),
    "probabilities": (
        np.exp(FLAT) / 5,
        [1],
        "Hint: logits[0] sums to 1 and is nowhere negative, as all frames are. "
        "If these are probabilities, take their logarithms.",
    ),
    "log-probabilities": (np.log(np.exp(FLAT) / 5), [1], ""),
    "probabilities, and too few": (
        np.exp(FLAT[:1]) / 5,
        [1, 2],
        "labels need 2 frames; there are 1.",
    ),
}


@pytest.mark.parametrize(("logits", "labels", "reason"), CASES.values(), ids=CASES)
def test_reasons(logits, labels, reason):
    found = jaxctc.explain(logits, labels, label_lengths=len(labels))
    assert found == [reason]
    loss, gradient = jax.value_and_grad(jaxctc.ctc_loss)(
        jnp.asarray(logits), labels, label_lengths=len(labels)
    )
    assert np.isfinite(loss) == (not reason or reason.startswith("Hint: "))
    if loss == np.inf:
        assert not gradient.any()


@settings(max_examples=200)
@given(st.data())
def test_every_infinite_loss_has_a_reason_and_no_other(data):
    """Tiny cases, and all their alignments."""
    frames, size = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 3))
    labels = data.draw(st.lists(st.integers(1, 2), min_size=size, max_size=size))
    possible = data.draw(st.lists(st.booleans(), min_size=frames * 3, max_size=frames * 3))
    possible = np.array(possible, bool).reshape(frames, 3)
    logits = np.where(possible, 0, -np.inf).astype(np.float32)
    feasible = any(
        all(possible[t, c] for t, c in enumerate(path))
        and [c for c, _ in itertools.groupby(path) if c] == labels
        for path in itertools.product(range(3), repeat=frames)
    )
    (reason,) = jaxctc.explain(logits, labels)
    assert (reason == "") == feasible


def test_batches_lengths_and_the_blank():
    logits = np.stack([FLAT, changed(one=np.nan)])
    labels = [[4, 4, -1], [1, 2, 3]]
    few = "labels need 3 frames, 1 of them for blanks between equal labels; there are 2."
    assert jaxctc.explain(logits, labels, [3, 2]) == ["", "labels need 3 frames; there are 2."]
    assert jaxctc.explain(logits, labels, [2, 6], [2, 1])[0] == few
    assert jaxctc.explain(logits, labels, 2, 1) == ["", ""]
    blank = "labels[0] is 4, the blank; it must be another class. "
    blank += "labels[1] is 4, the blank; it must be another class."
    assert jaxctc.explain(logits, labels, [6, 2], [2, 1], blank_id=4) == [blank, ""]
    # Batch axes in order, and broadcast.
    shaped = jaxctc.explain(FLAT, np.array([[[1, 1]], [[1, 2]]]), [[1, 3]])
    assert [bool(x) for x in shaped] == [True, False, True, False]
    assert jaxctc.explain(np.zeros((0, 6, 5), np.float32), np.zeros((0, 2), int)) == []
    assert jaxctc.explain(jnp.asarray(FLAT, jnp.bfloat16), [9]) == [
        "labels[0] is 9; it must be a class, in 0…4."
    ]


def test_numbers_are_quoted_as_they_were_given():
    wide = np.where(changed(one=1.0) == 1.0, 1e300, FLAT.astype(np.float64))
    (reason,) = jaxctc.explain(wide, [2**40])
    assert reason == (
        "labels[0] is 1099511627776; it must be a class, in 0…4. "
        "logits[2, 3] is 1e+300, which float32 does not have; it must be finite or -inf."
    )


def test_what_the_dtype_of_the_loss_or_of_the_logits_rounds_away():
    assert jaxctc.explain(np.full((2, 3), -1e39), [1]) == [
        "logits[0] is -inf in float32 at all classes; one must be possible."
    ]
    probabilities = jax.nn.softmax(jax.random.normal(jax.random.key(0), (6, 40))).astype(
        jnp.bfloat16
    )
    (hint,) = jaxctc.explain(probabilities, [1, 2])
    assert hint.startswith("Hint: logits[0] sums to")


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"^labels has rows of different lengths; they must ha"):
        jaxctc.explain(np.stack([FLAT, FLAT]), [[1], [1, 2]])
    with pytest.raises(TypeError, match=r"^logits is traced; it must be concrete: call explain ou"):
        jax.jit(lambda x: jaxctc.explain(x, [1])[0] and x)(FLAT)
    with pytest.raises(TypeError, match=r"^logit_lengths is traced; it must be concrete: call ex"):
        jax.jit(lambda n: jaxctc.explain(FLAT, [1], n)[0] and n)(3)
    with pytest.raises(ValueError, match=r"^logit_lengths has the value 7; it must be in 0…6\.$"):
        jaxctc.explain(FLAT, [1], 7)
