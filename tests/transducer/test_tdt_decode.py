"""Decoding with durations against plain Python, and against the enumeration of all paths."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import confidence, log_softmax
from transducer_searches import (
    BLANK,
    LABELS,
    LENGTHS,
    START,
    STATES,
    TABLE,
    D,
    Plain,
    as_dict,
    decoded,
    enumerate_lasting,
    joint,
    one,
    predictor,
)

import jaxctc

DURATIONS = (0, 3, 1)
DURATION_WEIGHTS = (3 * np.random.default_rng(5).normal(size=(D, 3))).astype(np.float32)
BOUNDS: dict[str, Any] = {"max_symbols": 2, "max_labels": 3}


def joint_with_durations(frame, output):
    return joint(frame, output), jnp.tanh(frame + output) @ DURATION_WEIGHTS


functions = joint_with_durations, predictor, START
settings = {"durations": DURATIONS, "blank_id": BLANK}
greedy = functools.partial(jaxctc.tdt_greedy_decode, *functions, **settings)
beam = functools.partial(jaxctc.tdt_beam_search, *functions, **settings)


class PlainTDT(Plain):
    @functools.cache  # noqa: B019
    def durations(self, t, labels):
        place = 0
        for label in (BLANK, *labels):
            place = (3 * place + label + 1) % STATES
        return log_softmax(np.tanh(self.encoder[t] + TABLE[place]) @ DURATION_WEIGHTS)

    def arcs(self, t, labels, symbols, max_symbols, max_labels):
        """All that may come: label or None, duration, log-probability."""
        tokens, durations = self.log_probs(t, labels), self.durations(t, labels)
        may = symbols < max_symbols and len(labels) < max_labels
        for place, d in enumerate(DURATIONS):
            if d > 0:
                yield None, d, tokens[BLANK] + durations[place]
            for c in LABELS if may else ():
                yield c, d, tokens[c] + durations[place]


def assert_labels_say(plain, found):
    labels = tuple(found.labels[: found.lengths].tolist())
    said = [plain.log_probs(t, labels[:u]) for u, t in enumerate(found.frames[: found.lengths])]
    scores = [log_probs[y] for log_probs, y in zip(said, labels, strict=True)]
    np.testing.assert_allclose(found.label_scores[: len(labels)], scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found.confidences[: len(labels)], [*map(confidence, said)], atol=1e-5
    )


@pytest.mark.parametrize("bounds", [{"max_symbols": 3, "max_labels": 20}, BOUNDS], ids=str)
def test_greedy_takes_the_best_pairs(bounds, encoder):
    found = decoded(greedy, encoder, LENGTHS, **bounds)
    skipped = 0
    for b, n in enumerate(LENGTHS):
        plain, (labels, frames, lasting) = PlainTDT(encoder[b, :n]), ((), (), ())
        t = symbols = score = 0
        while t < n:
            c, d, gain = max(plain.arcs(t, labels, symbols, **bounds), key=lambda arc: arc[2])
            if c is not None:
                labels, frames, lasting = (*labels, c), (*frames, t), (*lasting, d)
            score, symbols = score + gain, symbols + 1 if d == 0 else 0
            skipped += d > 1
            t += d
        got = one(found, b)
        length = int(got.lengths)
        said = (x[:length].tolist() for x in (got.labels, got.frames, got.durations))
        assert tuple(map(tuple, said)) == (labels, frames, lasting)
        assert (got.labels[length:] == -1).all()
        assert (got.durations[length:] == 0).all()
        np.testing.assert_allclose(got.scores, score, rtol=1e-5, atol=1e-5)
        assert_labels_say(plain, got)
    assert skipped > 5


def test_with_a_wide_beam_all_scores_are_exact(encoder):
    frames, lengths = encoder[:4, :3], np.array([3, 2, 3, 0])
    found = decoded(beam, frames, lengths, beam_width=41, **BOUNDS)
    for b, n in enumerate(lengths):
        plain = PlainTDT(frames[b, :n])
        want, got = enumerate_lasting(plain, **BOUNDS), as_dict(one(found, b))
        assert got.keys() == want.keys()
        exact = [np.logaddexp.reduce([path[0] for path in want[y]]) for y in got]
        np.testing.assert_allclose(list(got.values()), exact, atol=2e-5)
        for place, y in enumerate(got):
            best = one(one(found, b), place)
            said = tuple(x[: len(y)].tolist() for x in (best.frames, best.durations))
            assert tuple(map(tuple, said)) == max(want[y])[1:]
            assert_labels_say(plain, best)


def plain_beam(plain, width, max_symbols, max_labels):
    """The same search in plain Python: a beam for each frame that is reached."""

    def best(beam):
        ranked = sorted(beam, key=beam.get, reverse=True)[:width]
        return {labels: beam[labels] for labels in ranked}

    beams = {0: {(): 0.0}}
    for t in range(len(plain.encoder)):
        opened = beams.pop(t, {})
        for symbols in range(max_symbols + 1):
            new, staying = {}, {}
            for y, score in opened.items():
                for c, d, gain in plain.arcs(t, y, symbols, max_symbols, max_labels):
                    if c is None:
                        new.setdefault((d, "blank"), {})[y] = score + gain
                    elif d:
                        new.setdefault((d, "label"), {})[*y, c] = score + gain
                    else:
                        staying[*y, c] = score + gain
            reached = {d for d, _ in new}
            for d in reached:
                sums = dict(beams.get(t + d, {}))
                for kind in ("blank", "label"):
                    # Of each kind only the best may come.
                    for y, score in best(new.get((d, kind), {})).items():
                        sums[y] = np.logaddexp(sums.get(y, -np.inf), score)
                beams[t + d] = best(sums)
            opened = best(staying)
            least = [
                min(beams[t + d].values()) if len(beams[t + d]) == width else -np.inf
                for d in reached
            ]
            if not opened or max(opened.values()) <= min(least):
                break
    total = {}
    for beam in beams.values():
        for y, score in beam.items():
            total[y] = np.logaddexp(total.get(y, -np.inf), score)
    return best(total)


def test_small_beams_equal_the_plain_search(encoder):
    found = decoded(beam, encoder, LENGTHS, beam_width=3, max_symbols=2, max_labels=6)
    for b, n in enumerate(LENGTHS):
        want = plain_beam(PlainTDT(encoder[b, :n]), 3, max_symbols=2, max_labels=6)
        got = as_dict(one(found, b))
        assert list(got) == list(want)
        np.testing.assert_allclose(list(got.values()), list(want.values()), atol=1e-4)


def test_errors_name_the_argument():
    encoder = np.zeros((4, D), np.float32)
    with pytest.raises(TypeError, match="joint returns type ShapeDtypeStruct; it must be a pair"):
        jaxctc.tdt_greedy_decode(joint, predictor, START, encoder)
    with pytest.raises(ValueError, match=r"duration logits of shape \(3,\); it must be \(2,\)"):
        greedy(encoder, durations=(0, 1))
    with pytest.raises(ValueError, match=r"durations is \(0,\); it must be different ints"):
        beam(encoder, durations=(0,))
    with pytest.raises(TypeError, match=r"durations is 3; it must be a sequence of ints"):
        beam(encoder, durations=3)
    with pytest.raises(TypeError, match=r"duration logits of dtype int32; it must be floating"):
        jaxctc.tdt_beam_search(
            lambda frame, output: (frame, jnp.arange(5)), predictor, START, encoder
        )
    assert jax.eval_shape(greedy, encoder).labels.shape == (40,)
