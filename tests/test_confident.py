"""Log-probabilities are never above 0 and losses never below 0, however confident a model is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc

BATCH, T, C = 8, 20, 5
PATH = np.repeat(np.random.default_rng(0).integers(0, C, (BATCH, T // 2)), 2, axis=1)
SHOWN = np.eye(C, dtype=np.float32)[PATH]
# A frame has the number of labels so far, and how confident the model is.
HEARD = np.cumsum(PATH > 0, axis=1, dtype=np.float32)[:, :, None] // 2


def predictor(count, label):
    """How many labels there have been, the start not counted."""
    count = count + (label > 0)
    return count, count


def joint(frame, count):
    """Emits the labels 1, 2, … 1, 2, … up to the frame's number, also those that were missed."""
    label = jnp.where(count < frame[0], 1 + count % (C - 1), 0)
    return jnp.where(jnp.arange(C) == label, frame[1], 0)


def streamed(logits):
    state = jaxctc.ctc_beam_start(batch=(BATCH,), beam_width=4, max_labels=T)
    for piece in np.split(logits, 2, axis=1):
        state = jaxctc.ctc_beam_extend(state, piece)
    return jaxctc.ctc_beam_finish(state)


def with_hotwords(logits):
    hot = jaxctc.Hotwords({(label,): 5.0 for label in range(1, C)}, classes=C).scorer()
    return jaxctc.ctc_beam_search(logits, beam_width=4, scorer=hot)


def transduced(decode, logits, **options):
    encoder = np.concatenate([HEARD, np.max(logits, axis=2, keepdims=True)], axis=2)
    run = functools.partial(decode, joint, predictor, 0.0, max_labels=T, **options)
    return jax.jit(run)(encoder)


CTC = {
    "greedy": jaxctc.ctc_greedy_decode,
    "beam": functools.partial(jaxctc.ctc_beam_search, beam_width=4),
    "stream": streamed,
    "scorer": with_hotwords,
}
TRANSDUCER = {
    "greedy": functools.partial(transduced, jaxctc.rnnt_greedy_decode),
    "beam": functools.partial(transduced, jaxctc.rnnt_beam_search, beam_width=4),
    "monotonic": functools.partial(
        transduced, jaxctc.rnnt_beam_search, beam_width=4, monotonic=True
    ),
}
DECODERS = {f"ctc {n}": f for n, f in CTC.items()}
DECODERS |= {f"transducer {n}": f for n, f in TRANSDUCER.items()}


@pytest.mark.parametrize("scale", [16, 18, 20, 30, 1e4])
@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_scores_are_log_probabilities(decode, scale):
    found = decode(np.float32(scale) * SHOWN)
    best = np.asarray(found.scores).reshape(BATCH, -1)[:, 0]
    assert (best > -1e-3).all()
    assert (best <= 0).all()
    if scale == 1e4:  # what is certain stays so
        assert (best == 0).all()
        assert not np.signbit(best).any()


@pytest.mark.parametrize("scale", [16, 18, 20, 30])
def test_scores_of_prefixes_are_log_probabilities(scale):
    logits = np.float32(scale) * SHOWN
    found = jaxctc.ctc_greedy_decode(logits)
    state = jaxctc.ctc_prefix_start(logits)
    for place in range(int(np.asarray(found.lengths).min())):
        labels = found.labels[:, None, place : place + 1]
        scores, state = jaxctc.ctc_prefix_score(state, logits, labels)
        state = jax.tree.map(lambda x: x[:, :, 0], state)
        assert (np.asarray(scores) > -1e-3).all()
        assert (np.asarray(scores) <= 0).all()
        assert (np.asarray(state.end()) <= 0).all()


def test_only_scores_are_log_probabilities():
    best = with_hotwords(20 * SHOWN)
    assert (np.asarray(best.scores + best.scorer_scores)[:, 0] > 1).all()


# Losses of transducers that emit one label, or none, with probability near 1.


def simple(logits, labels):
    predictor = np.zeros((*labels.shape, 2), np.float32)
    predictor = np.concatenate([predictor, predictor + np.array([40, 0], np.float32)], axis=1)
    return jaxctc.rnnt_loss_simple(logits, predictor, labels)


def with_durations(logits, labels):
    """Only blanks: the last lasts one frame, and the others one or two."""
    durations = np.random.default_rng(2).uniform(-3, 3, (*logits.shape[:2], 1, 2))
    durations[:, -1] = [40, 0]
    tokens = -logits[:, :, None]
    return jaxctc.tdt_loss(tokens, durations.astype(np.float32), labels[:, :0], durations=(1, 2))


@pytest.mark.parametrize(("loss", "least"), [(simple, 14), (with_durations, 20)])
def test_losses_are_not_negative_and_keep_their_gradient(loss, least):
    logits = np.random.default_rng(1).uniform(least, least + 3, (100, 6, 1)) * np.array([0, 1])
    logits = logits.astype(np.float32)
    losses, pullback = jax.vjp(lambda x: loss(x, np.ones((100, 1), int)), logits)
    assert np.asarray(losses).min() == 0
    assert np.asarray(losses).max() < 1e-5
    (gradient,) = pullback(jnp.ones_like(losses))
    sizes = np.abs(np.asarray(gradient)).max(axis=(1, 2))
    assert (sizes[np.asarray(losses) == 0] > 0).all()
