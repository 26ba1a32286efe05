"""Small transducers, their searches in plain Python, and calls of the decoders on them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from oracles import confidence, log_softmax

import jaxctc

BATCH, T, D, C, BLANK, STATES = 8, 9, 3, 4, 1, 7
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(STATES, D)).astype(np.float32)
WEIGHTS = (3 * RNG.normal(size=(D, C))).astype(np.float32)
LENGTHS = np.array([T, 1, 0, 5, 8, T, 2, 3])
same = functools.partial(jax.tree.map, np.testing.assert_array_equal)


def predictor(state, label):
    """A transducer that depends on all labels before; its state is a tree."""
    place = (3 * state["place"] + label + 1) % STATES
    return jnp.asarray(TABLE)[place], {"place": place, "count": state["count"] + 1.0}


def joint(frame, output):
    return jnp.tanh(frame + output) @ WEIGHTS


START = {"place": np.int32(0), "count": 0.0}


class Plain:
    """The same transducer over one sequence ``[T, D]``, in numpy."""

    def __init__(self, encoder):
        self.encoder = np.asarray(encoder, np.float64)

    @functools.cache  # noqa: B019
    def log_probs(self, t, labels):
        place = 0
        for label in (BLANK, *labels):
            place = (3 * place + label + 1) % STATES
        return log_softmax(np.tanh(self.encoder[t] + TABLE[place]) @ WEIGHTS.astype(np.float64))


LABELS = [c for c in range(C) if c != BLANK]


def enumerate_alignments(plain, labels_of, max_symbols, max_labels=math.inf, monotonic=False):
    """All scores of every label sequence, each with the frames of its labels."""
    total = {}

    def visit(t, symbols, labels, frames, score):
        if t == len(plain.encoder):
            total.setdefault(labels, []).append((score, frames))
            return
        log_probs = plain.log_probs(t, labels)
        visit(t + 1, 0, labels, frames, score + log_probs[BLANK])
        if symbols < max_symbols and len(labels) < max_labels:
            for c in labels_of:
                after = (t + 1, 0) if monotonic else (t, symbols + 1)
                visit(*after, (*labels, c), (*frames, t), score + log_probs[c])

    visit(0, 0, (), (), 0.0)
    return total


def plain_greedy(plain, max_symbols, max_labels=math.inf, monotonic=False):
    labels, frames, score = (), (), 0.0
    for t in range(len(plain.encoder)):
        for symbols in range(max_symbols + 1):
            log_probs = plain.log_probs(t, labels)
            may = symbols < max_symbols and len(labels) < max_labels
            c = int(np.argmax(log_probs)) if may else BLANK
            score += log_probs[c]
            if c == BLANK:
                break
            labels, frames = (*labels, c), (*frames, t)
            if monotonic:
                break
    return labels, frames, score


def plain_beam(plain, width, max_symbols, max_labels=math.inf, monotonic=False):
    def best(beam):
        ranked = sorted(beam, key=beam.get, reverse=True)[:width]
        return {labels: beam[labels] for labels in ranked}

    def add(beam, other):
        for labels, score in other.items():
            beam[labels] = np.logaddexp(beam.get(labels, -np.inf), score)
        return best(beam)

    beam = {(): 0.0}
    for t in range(len(plain.encoder)):
        ended, opened = {}, beam
        for symbols in range(max_symbols + 1):
            log_probs = {labels: plain.log_probs(t, labels) for labels in opened}
            ended = add(ended, {y: score + log_probs[y][BLANK] for y, score in opened.items()})
            opened = best(
                {
                    (*y, c): score + log_probs[y][c]
                    for y, score in opened.items()
                    for c in LABELS
                    if len(y) < max_labels
                }
            )
            if monotonic:
                ended = add(ended, opened)
                break
            full = min(ended.values()) if len(ended) == width else -np.inf
            if symbols == max_symbols or not opened or max(opened.values()) <= full:
                break
        beam = ended
    return beam


def enumerate_lasting(plain, max_symbols, max_labels):
    """For each label sequence, all its paths: their scores, frames and durations.

    `plain.arcs` says what may come: a label, or None for a blank; its duration; its score.
    """
    total = {}

    def visit(t, symbols, labels, frames, lasting, score):
        if t >= len(plain.encoder):
            total.setdefault(labels, []).append((score, frames, lasting))
            return
        for c, d, gain in plain.arcs(t, labels, symbols, max_symbols, max_labels):
            after = t + d, symbols + 1 if d == 0 else 0
            if c is None:
                visit(*after, labels, frames, lasting, score + gain)
            else:
                visit(*after, (*labels, c), (*frames, t), (*lasting, d), score + gain)

    visit(0, 0, (), (), (), 0.0)
    return total


def assert_labels_say(plain, found, monotonic=False):
    """What is said of each label of one hypothesis is what the transducer said there."""
    labels = tuple(found.labels[: found.lengths].tolist())
    said = [plain.log_probs(t, labels[:u]) for u, t in enumerate(found.frames[: found.lengths])]
    scores = [log_probs[y] for log_probs, y in zip(said, labels, strict=True)]
    n = len(labels)
    np.testing.assert_allclose(found.label_scores[:n], scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.confidences[:n], [*map(confidence, said)], atol=1e-5)
    assert (found.durations[:n] == int(monotonic)).all()
    for x in (found.durations, found.label_scores, found.confidences):
        assert (x[n:] == 0).all()


def decoded(decode, *args, **options):
    """The hypotheses of a jitted decoder, as numpy arrays."""
    found = jax.jit(functools.partial(decode, **options))(*args)
    return jax.tree.map(np.asarray, found)


def one(found, b):
    return jax.tree.map(lambda x: x[b], found)


def as_dict(found):
    """Scores of one sequence's hypotheses, in their order."""
    exists = found.scores > -np.inf
    n = int(exists.sum())
    assert exists[:n].all()
    assert (np.diff(found.scores[:n]) <= 0).all()
    padding = np.arange(found.labels.shape[1]) >= found.lengths[:, None]
    assert ((found.labels == -1) == padding).all()
    assert ((found.frames == -1) == padding).all()
    assert (found.lengths[n:] == 0).all()
    return {tuple(found.labels[i, : found.lengths[i]].tolist()): found.scores[i] for i in range(n)}


greedy = functools.partial(jaxctc.rnnt_greedy_decode, joint, predictor, START, blank_id=BLANK)
beam = functools.partial(jaxctc.rnnt_beam_search, joint, predictor, START, blank_id=BLANK)


def shown(frame, output):
    """A joint network that returns the frame as logits."""
    return frame


STATELESS = shown, lambda state, label: (None, state), ()
show_greedy = functools.partial(jaxctc.rnnt_greedy_decode, *STATELESS)
show_beam = functools.partial(jaxctc.rnnt_beam_search, *STATELESS)
