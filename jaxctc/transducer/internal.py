"""The language model inside a transducer, which a search may take away again."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import wide
from jaxctc.decoding.normalise import normalised
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import checks as transducer_checks


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["state", "frame"],
    meta_fields=["joint", "predictor", "blanks", "classes"],
)
@dataclasses.dataclass(frozen=True)
class InternalLanguageModel:
    """A transducer's own scores of labels, without an utterance; `rnnt_internal_lm` makes it."""

    joint: Callable[[jax.Array, Any], jax.Array]
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]]
    blanks: tuple[int, ...]  # classes; the first is the start symbol
    classes: int
    state: Any
    frame: jax.Array | np.ndarray  # float [D]

    def start(self) -> Any:
        return self.predictor(self.state, jnp.int32(self.blanks[0]))

    def extend(self, state: Any, label: jax.Array) -> tuple[Any, jax.Array]:
        return self.predictor(state[1], label), self._scores(state)[label]

    def final(self, state: Any) -> jax.Array:
        return jnp.zeros((), jax.eval_shape(self._scores, state).dtype)

    def extend_scores(self, state: Any, labels: jax.Array) -> jax.Array:
        return self._scores(state)[labels]

    def _scores(self, state: Any) -> jax.Array:
        logits = self.joint(jnp.asarray(self.frame), state[0])
        is_label = jnp.asarray(~np.isin(np.arange(self.classes), self.blanks))
        logits = jnp.where(is_label, logits.astype(wide(logits.dtype)), -jnp.inf)
        return normalised(logits)[0]


def rnnt_internal_lm(
    joint: Callable[[jax.Array, Any], jax.Array],
    predictor: Callable[[Any, jax.Array], tuple[Any, Any]],
    initial_state: Any,
    frame: checks.ArrayLike,
    *,
    blank_id: int = 0,
    big_blanks: Mapping[int, int] | None = None,
) -> Scorer:
    """The language model that a transducer has learnt from its transcripts, as a `Scorer`.

    Its score of a label is the log-softmax over the labels, without the blank, of what the joint
    network says to a frame without speech. With a negative weight, a search takes it away before
    it adds a model of the texts to be recognised. Of a HAT this is its own internal model; of
    other transducers an estimate. The other way, density ratio, is to take away a language model
    trained on the transcripts: any scorer with a negative weight.

    Args:
      joint: As for `rnnt_greedy_decode`. Of a TDT, only the first of the two it returns.
      predictor: As for `rnnt_greedy_decode`, as are the next arguments.
      initial_state: The predictor's state before the start.
      frame: float ``[D]``, in place of an encoder's output: zeros, or the mean over many frames.
      blank_id: The class that is the blank.
      big_blanks: Those of a multi-blank transducer, which are no labels either.

    Returns:
      A `Scorer` without a score of the end. Use it within the function that is jitted, as the
      decoders are, since it holds the functions.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or an argument is out of range.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, jaxctc
      >>> def predictor(state, label):
      ...     return label, state
      >>> def joint(frame, label):  # no label likes to be repeated
      ...     return frame - 2.0 * (jnp.arange(3) == label)
      >>> internal = jaxctc.rnnt_internal_lm(joint, predictor, (), jnp.zeros(3))
      >>> scores = jaxctc.score_sequence(internal, [[1, -1], [1, 1], [1, 2]])
      >>> print(np.exp(scores).round(3))
      [0.5  0.06 0.44]
      >>> hot = jaxctc.Hotwords({(2, 2): 1.0}, classes=3).scorer()
      >>> scorer = jaxctc.combine([hot, internal], weights=[1, -0.3])
      >>> frames = jnp.array([[0, 0, 3.0], [3, 0, 0], [0, 0, 2]])
      >>> best = jaxctc.rnnt_greedy_decode(
      ...     joint, predictor, (), frames, max_symbols=1, scorer=scorer
      ... )
      >>> print(best.labels[: int(best.lengths)])
      [2 2]

    References:
      Variani, Rybach, Allauzen, Riley 2020, "Hybrid autoregressive transducer (HAT)", section 4,
      arXiv 2003.07705.
      McDermott, Sak, Variani 2019, "A density ratio approach to language model fusion in
      end-to-end automatic speech recognition", arXiv 2002.11268.
      Meng et al. 2021, "Internal language model estimation for domain-adaptive end-to-end speech
      recognition", arXiv 2011.01991.
    """
    frame = checks.logits_array("frame", frame, ("D",))
    if frame.ndim != 1:
        raise ValueError(f"frame has shape {frame.shape}; it must be [D].")
    state = transducer_checks.state("initial_state", initial_state)
    struct = jax.ShapeDtypeStruct(frame.shape, frame.dtype)
    logits, _ = transducer_checks.functions(joint, predictor, state, struct)
    blank_id = checks.class_id("blank_id", blank_id, logits.shape[0])
    blanks = [blank_id]
    if big_blanks is not None:
        big = transducer_checks.big_blanks("big_blanks", big_blanks, logits.shape[0], blank_id)
        blanks += [c for c, _ in big]
    # A search calls the scorer where explicit axes are automatic.
    joint, predictor = meshes.explicit(joint), meshes.explicit(predictor)
    return InternalLanguageModel(joint, predictor, tuple(blanks), logits.shape[0], state, frame)
