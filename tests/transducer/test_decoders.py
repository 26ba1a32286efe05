"""What holds for both transducer decoders: batches, precision, ties, errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transducer_searches import (
    BATCH,
    BLANK,
    LENGTHS,
    START,
    D,
    Plain,
    T,
    as_dict,
    beam,
    decoded,
    greedy,
    joint,
    one,
    plain_beam,
    plain_greedy,
    predictor,
    same,
    show_beam,
    show_greedy,
)

import jaxctc

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
    best, path = jax.tree.map(lambda x: x[free, 0], best), one(path, free)
    assert (np.asarray(best.scores) <= 0).all()
    # Two programs may round differently, in the last bits of the probabilities of single steps.
    np.testing.assert_allclose(best.scores, path.scores, rtol=0, atol=1e-8)
    same(best._replace(scores=path.scores), path)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_empty_axes(decode):
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
    # If all classes are -inf, no label is emitted, whichever class is the blank.
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
