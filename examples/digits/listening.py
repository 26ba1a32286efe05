"""Digits heard in many streams at once, by one compiled program."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

import jaxctc
from digits import data, models, streaming

ROOM = 24  # the most digits of a hypothesis that are not handed out yet
Array = jax.Array | np.ndarray
THRESHOLD = 8.0  # hypotheses this far below the best, in log-probability, leave the beam
UNIT = 2  # encodings of a piece
PIECE = UNIT * models.STRIDE * data.HOP  # samples; 100 milliseconds


class Knowledge(NamedTuple):
    """What is known of the digits besides the sound, such as a language model."""

    scorer: Any = None  # a `jaxctc` scorer
    weight: Any = 1.0


class Heard(NamedTuple):
    """The digits of each stream that are sure since the piece before."""

    labels: Array  # int32 [streams, ROOM]; class d + 1 is digit d
    frames: Array  # int32 [streams, ROOM], of `models.SECONDS_A_FRAME`
    confidences: Array  # float32 [streams, ROOM]: 1 minus the entropy as a share of the highest
    counts: Array  # int32 [streams]: how many digits these are
    full: Array  # bool [streams]: were more than ROOM digits not sure? Then some are lost.


class Rows(NamedTuple):
    """A piece of each stream."""

    sound: np.ndarray  # float32 [streams, PIECE + 2 AROUND]: with what windows need on either side
    frames: np.ndarray  # int32 [streams]: all its features; `streaming.UNKNOWN` while it goes on
    begins: np.ndarray  # bool [streams]: is this the first piece of a stream?
    listens: np.ndarray  # bool [streams]: is there a piece? Otherwise nothing changes.
    ends: np.ndarray  # bool [streams]: is it the last, so that all digits are handed out?


class Listener:
    """Recognises digits in so many streams, which begin and end at any piece.

    Args:
      model: one of `models.MODELS`.
      streams: how many.
      beam_width: the number of hypotheses; with 1, the search is greedy.
      knowledge: what is known of the digits.
    """

    def __init__(
        self,
        model: nnx.Module,
        streams: int,
        beam_width: int = 1,
        knowledge: Knowledge | None = None,
    ):
        self.streams = streams
        graph, self._weights = nnx.split(model)
        self._knowledge = jax.device_put(knowledge or Knowledge())
        self._hear = functools.partial(_hear, graph)
        self._state = self._fresh = _begin(
            graph, streams, beam_width, self._weights, self._knowledge
        )
        self.hear(self.silence())  # compiles now, not when the first piece waits

    def silence(self) -> Rows:
        """Returns rows without a piece."""
        sound = np.zeros((self.streams, PIECE + 2 * data.AROUND), np.float32)
        frames, no = np.zeros(self.streams, np.int32), np.zeros(self.streams, bool)
        return Rows(sound, frames, no, no.copy(), no.copy())

    def hear(self, rows: Rows) -> Heard:
        """Listens to the next piece of each stream."""
        given = data.energies(rows.sound), *rows[1:]
        self._state, heard = self._hear(
            self._weights, self._knowledge, self._fresh, self._state, *given
        )
        return jax.tree.map(np.asarray, heard)


def _networks(model: models.Transducer):
    return model.join, lambda state, label: (model.predictor(label), state)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _begin(graph, streams, beam_width, weights, knowledge):
    """Returns the encoder's memory and the search of each stream before its first piece."""
    model = nnx.merge(graph, weights)
    options = {"batch": (streams,), "max_labels": ROOM, "scorer": knowledge.scorer}
    if isinstance(model, models.Transducer):
        width = None if beam_width == 1 else beam_width
        search = jaxctc.rnnt_decode_start(_networks(model)[1], (), beam_width=width, **options)
        memory = streaming.begin(model.encoder, streams)
    else:
        search = jaxctc.ctc_beam_start(beam_width=beam_width, **options)
        memory = streaming.begin(model, streams)
    # Without weak types, which `_hear` does not return, and which would compile it once more.
    return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype), (memory, search))


@functools.partial(jax.jit, static_argnums=0)
def _hear(graph, weights, knowledge, fresh, state, features, frames, begins, listens, ends):
    model = nnx.merge(graph, weights)
    state = _rows(begins, fresh, state)
    memory, search = state
    encoder = model.encoder if isinstance(model, models.Transducer) else model
    x, start, memory = streaming.encode(encoder, memory, features, frames)
    # The first encodings are none of the stream's: those that are come to the front.
    before = jnp.clip(-start, 0, UNIT)
    place = jnp.minimum(jnp.arange(UNIT) + before[:, None], UNIT - 1)
    x = jnp.take_along_axis(x, place[:, :, None], 1)
    lengths = jnp.clip(frames // models.STRIDE - start, 0, UNIT)
    lengths = jnp.maximum(lengths - before, 0)
    if isinstance(model, models.Transducer):
        best, labels, full, search = _transduce(model, search, model.project(x), lengths, knowledge)
    else:
        best, labels, full, search = _search(search, model.head(x), lengths, knowledge)
    counts = jnp.where(ends, best.lengths, (labels >= 0).sum(1))
    heard = Heard(best.labels, best.frames, best.confidences, jnp.where(listens, counts, 0), full)
    return _rows(listens, (memory, search), state), heard


def _search(state, logits, lengths, knowledge):
    """CTC: the best hypothesis, what is sure of it, whether room ran out, and the state."""
    options = {"scorer": knowledge.scorer, "scorer_weight": knowledge.weight}
    state = jaxctc.ctc_beam_extend(state, logits, lengths, beam_threshold=THRESHOLD, **options)
    best = jax.tree.map(lambda x: x[:, 0], jaxctc.ctc_beam_finish(state, **options))
    labels, _, state = jaxctc.ctc_beam_commit(state, **options)
    return best, labels, state.beam.full, state


def _transduce(model, state, x, lengths, knowledge):
    """The same for a transducer."""
    options = {"scorer": knowledge.scorer, "scorer_weight": knowledge.weight}
    state = jaxctc.rnnt_decode_extend(
        state, *_networks(model), x, lengths, monotonic=True, **options
    )
    best = jaxctc.rnnt_decode_finish(state, **options)
    if best.labels.ndim == 3:  # with a beam
        best = jax.tree.map(lambda x: x[:, 0], best)
    labels, _, state = jaxctc.rnnt_decode_commit(state, **options)
    return best, labels, state.full, state


def _rows(mask: jax.Array, yes: Any, no: Any) -> Any:
    """The rows of `yes` where the mask is True, else those of `no`."""

    def choose(a, b):
        return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)
