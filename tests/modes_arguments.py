"""Small arguments for all public functions, for the modes of JAX in `test_modes.py`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc

B, T, S, C = 4, 4, 2, 4  # sequences, frames, labels, classes


class Case(NamedTuple):
    """A function of arrays whose first axis is the batch, and of arrays shared by the batch."""

    call: Callable[..., Any]
    batched: tuple  # of arrays or of pytrees of them, all [B, ...]
    shared: tuple = ()  # given after those
    differentiable: tuple[int, ...] = ()  # places among both
    batch_rank: int | None = None  # the only number of batch axes, or any
    over_classes: tuple[int, ...] = ()  # places whose last axis may be sharded over a mesh's axis
    reduces: bool = False  # whether there is one result for the whole batch
    constant: bool = False  # whether only the shapes of the arrays are read


def random(*shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LOGITS, OTHER_LOGITS = random(B, T, C), random(B, T, C, seed=1)
LABELS = np.array([[1, 2], [3, 3], [2, 0], [1, 3]], np.int32)
FRAMES = np.array([4, 4, 3, 4], np.int32)  # the frames of each sequence
LENGTHS = np.array([2, 2, 1, 2], np.int32)  # and the labels
PAIR = (LOGITS, LABELS, FRAMES, LENGTHS)

JOINT_LOGITS = random(B, T, S + 1, C)
JOINT_PAIR = (JOINT_LOGITS, LABELS, FRAMES, LENGTHS)
PREDICTOR_LOGITS = random(B, S + 1, C, seed=2)
BLANKS, ARCS = -1 - random(B, T, S + 1) ** 2, -1 - random(B, T, S, seed=1) ** 2
ARC_PAIR = (BLANKS, ARCS, FRAMES, LENGTHS)
RANGES = np.broadcast_to(np.array([[0, 1], [0, 1], [1, 2], [1, 2]], np.int32), (B, T, 2))
DURATION_LOGITS = random(B, T, S + 1, 2, seed=3)
PROJECTION = random(C, C, seed=4)
PENALTIES = {"fastemit_lambda": 0.25, "delay_penalty": 0.125}
HYPOTHESES = np.array([[1, 2, 3], [3, -1, -1], [2, 2, -1], [3, 1, 2]], np.int32)

NUMERATOR = jaxctc.Fsa.stack(
    [jaxctc.ctc_fsa(row[:n]) for row, n in zip(LABELS.tolist(), LENGTHS, strict=True)]
)
DENOMINATOR = jaxctc.ctc_denominator([[1, 2], [3, 3], [2], [1, 3]])
DECODED = jax.tree.map(np.asarray, jaxctc.ctc_greedy_decode(LOGITS))
GRAMMAR = jaxctc.Grammar([[{1, 2, 3}, {1, 2, 3}]], classes=C).scorer()


def state() -> jaxctc.BeamState:
    return jax.tree.map(np.asarray, jaxctc.ctc_beam_start(batch=(B,), beam_width=3, max_labels=T))


def prefixes():
    return jax.tree.map(np.asarray, jaxctc.ctc_prefix_start(LOGITS, FRAMES))


def predictor(projection):
    """A predictor whose output is a row of its parameters, and whose state counts labels."""
    return lambda state, label: (jnp.asarray(projection)[label], state + 1)


def joint(projection):
    return lambda frame, output: jnp.tanh(frame + output) @ projection


def joint_with_durations(projection):
    tokens = joint(projection)
    return lambda frame, output: (tokens(frame, output), tokens(frame, output)[:3])


def decoder(decode, joint_of=joint, **options):
    options = {"max_symbols": 2, "max_labels": 4, **options}

    def call(encoder, lengths, projection):
        functions = joint_of(projection), predictor(projection)
        return decode(*functions, jnp.int32(0), encoder, lengths, **options)

    return call


def transducer_start(encoder, projection):
    batch = encoder.shape[:-2]
    begun = predictor(projection), jnp.int32(0)
    options = {"batch": batch, "beam_width": 3, "max_labels": T, "dtype": encoder.dtype}
    return jaxctc.rnnt_decode_start(*begun, **options)


def transducer_state() -> jaxctc.TransducerState:
    return jax.tree.map(np.asarray, transducer_start(LOGITS, PROJECTION))


def without_internal(encoder, lengths, projection, scorer):
    functions = joint(projection), predictor(projection), jnp.int32(0)
    internal = jaxctc.rnnt_internal_lm(*functions, jnp.zeros(C, encoder.dtype))
    scorer = jaxctc.combine([scorer, internal], weights=[1, -0.5])
    return jaxctc.rnnt_beam_search(*functions, encoder, lengths, monotonic=True, scorer=scorer)


def start(logits):
    return jaxctc.ctc_beam_start(
        batch=logits.shape[:-2], beam_width=3, max_labels=T, dtype=logits.dtype
    )


def time_major(loss):
    def call(logits, *rest):
        return loss(jax.nn.log_softmax(jnp.swapaxes(logits, 0, 1)), *rest)

    return call


def padding(lengths: np.ndarray, size: int) -> np.ndarray:
    return (np.arange(size)[None, :] >= lengths[:, None]).astype(np.float32)


def flax_error_rate(hypotheses, references):
    from jaxctc.compat.flax import ErrorRate

    metric = ErrorRate()
    metric.update(hypotheses=hypotheses, references=references)
    return metric.compute()


PADDED = (LOGITS, padding(FRAMES, T), LABELS, padding(LENGTHS, S))
REFERENCES = np.where(np.arange(S) < LENGTHS[:, None], LABELS, -1).astype(np.int32)
