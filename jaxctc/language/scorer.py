"""`Scorer`: what a search knows besides the logits, and sums of scorers."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks
from jaxctc.language import checks as language_checks

State = Any  # a pytree of arrays of fixed shapes
FORBIDDEN = -np.inf


@runtime_checkable
class Scorer(Protocol):
    """What a search knows besides the logits: a score for each label of one hypothesis.

    The methods are for one hypothesis, without batch axes; a search vectorises them by `jax.vmap`.
    A scorer is a pytree whose leaves are arrays, so it is an argument of a compiled search:
    another one of the same structure and sizes does not compile anew. A frozen dataclass with
    `jax.tree_util.register_dataclass` is one. Scores are natural logarithms, or anything
    that may be added to them.

    A scorer may have more:

    * `classes`, an int: how many labels it knows. A search then compares it with the logits.
    * ``extend_scores(state, labels [K]) -> scores [K]``: the scores that `extend` gives for several
      labels, without the states. A search needs many more scores than states. Without this method
      it calls `extend` for all of the labels.
    * ``extend_unknown(state) -> (state, score)``, of a model of words: the state after a word that
      is not in the list, and its score, which is 0 where nothing has to be given or taken back;
      ``-inf`` forbids such a word here. Without this method, the start and 0.
    * ``next_segment(state) -> state``: the state with which the next segment begins, where the
      sequence before has ended in this one; see `scorer_state`. Without this method, the same.
    * ``unigram_scores() -> scores [C]``, of a model of words: scores of words in no particular
      context, for the look-ahead of a `Lexicon`. Without this method, those at the start.

    Examples:
      >>> import dataclasses, jax, jax.numpy as jnp, jaxctc
      >>> @jax.tree_util.register_dataclass
      ... @dataclasses.dataclass(frozen=True)
      ... class Once:  # adds `penalty` for a label that repeats the one before
      ...     penalty: jax.Array
      ...     def start(self):
      ...         return jnp.int32(-1)
      ...     def extend(self, state, label):
      ...         return label, jnp.where(label == state, self.penalty, 0.0)
      ...     def final(self, state):
      ...         return jnp.float32(0)
      >>> print(jaxctc.score_sequence(Once(jnp.float32(-2)), [3, 3, 1, 3]))
      -2.0
    """

    def start(self) -> State:
        """The state before the first label."""
        ...

    def extend(self, state: State, label: jax.Array) -> tuple[State, jax.Array]:
        """The state after one more label (int32 scalar), and its score; ``-inf`` forbids it."""
        ...

    def final(self, state: State) -> jax.Array:
        """The score of the end; ``-inf`` where no sequence may end."""
        ...


def extend_scores(scorer: Scorer, state: State, labels: jax.Array) -> jax.Array:
    """The scores of several labels ``[K]`` after one state, in the fastest way the scorer has."""
    if hasattr(scorer, "extend_scores"):
        return scorer.extend_scores(state, labels)  # type: ignore[attr-defined]
    return jax.vmap(lambda label: scorer.extend(state, label)[1])(labels)


def extend_unknown(scorer: Scorer, state: State) -> tuple[State, jax.Array]:
    """The state of a model of words after a word that is not in the list, and its score."""
    if hasattr(scorer, "extend_unknown"):
        return scorer.extend_unknown(state)  # type: ignore[attr-defined]
    return scorer.start(), jnp.float32(0)


def next_segment(scorer: Scorer, state: State) -> State:
    """The state with which a segment begins after another one."""
    if hasattr(scorer, "next_segment"):
        return scorer.next_segment(state)  # type: ignore[attr-defined]
    return state


def unigram_scores(scorer: Scorer, words: int) -> jax.Array:
    """Scores ``[words]`` of words in no particular context."""
    if hasattr(scorer, "unigram_scores"):
        return scorer.unigram_scores()  # type: ignore[attr-defined]
    return extend_scores(scorer, scorer.start(), jnp.arange(words, dtype=jnp.int32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Combined:
    """The weighted sum of several scorers, computed while searching; `combine` makes it."""

    scorers: tuple[Scorer, ...]
    weights: jax.Array | np.ndarray  # float [len(scorers)]

    @property
    def classes(self) -> int | None:
        """What the parts that know their number of labels say."""
        return next((c for s in self.scorers if (c := classes_of(s)) is not None), None)

    def start(self) -> State:
        return tuple(scorer.start() for scorer in self.scorers)

    def extend(self, state: State, label: jax.Array) -> tuple[State, jax.Array]:
        both = [s.extend(x, label) for s, x in zip(self.scorers, state, strict=True)]
        return tuple(after for after, _ in both), self._sum([score for _, score in both])

    def final(self, state: State) -> jax.Array:
        return self._sum([s.final(x) for s, x in zip(self.scorers, state, strict=True)])

    def extend_scores(self, state: State, labels: jax.Array) -> jax.Array:
        parts = zip(self.scorers, state, strict=True)
        return self._sum([extend_scores(s, x, labels) for s, x in parts])

    def extend_unknown(self, state: State) -> tuple[State, jax.Array]:
        both = [extend_unknown(s, x) for s, x in zip(self.scorers, state, strict=True)]
        return tuple(after for after, _ in both), self._sum([score for _, score in both])

    def next_segment(self, state: State) -> State:
        return tuple(next_segment(s, x) for s, x in zip(self.scorers, state, strict=True))

    def unigram_scores(self) -> jax.Array:
        words = self.classes
        if words is None:
            raise ValueError("no part of the sum has `classes`; one must, to say how many words.")
        return self._sum([unigram_scores(s, words) for s in self.scorers])

    def _sum(self, scores: list[Any]) -> jax.Array:
        weights = jnp.asarray(self.weights)
        parts = [weighted(jnp.asarray(x, weights.dtype), weights[i]) for i, x in enumerate(scores)]
        return functools.reduce(operator.add, parts)


def weighted(score: jax.Array, weight: jax.Array) -> jax.Array:
    """A score times a weight; what is forbidden stays so, even with a weight of 0."""
    allowed = score > FORBIDDEN
    return jnp.where(allowed, jnp.where(allowed, score, 0) * weight, FORBIDDEN)


def classes_of(scorer: Scorer) -> int | None:
    """How many labels a scorer knows, if it says so."""
    return getattr(scorer, "classes", None)


def combine(scorers: Sequence[Scorer], *, weights: Sequence[float] | None = None) -> Combined:
    """The sum of several scorers, each times its weight, 1 by default.

    What one of them forbids is forbidden, even with a weight of 0. Nothing is multiplied out:
    each hypothesis of a search carries the states of all parts.

    Args:
      scorers: At least one `Scorer`.
      weights: A finite number for each; they may be traced.

    Raises:
      TypeError: If one of `scorers` is not a scorer.
      ValueError: If there is no scorer, weights do not fit, or scorers read different numbers of
        classes.

    Examples:
      >>> import jaxctc
      >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).scorer()
      >>> known = jaxctc.Hotwords({(2, 3): 1.5}, classes=4).scorer()
      >>> both = jaxctc.combine([plate, known], weights=[1, 2])
      >>> print(jaxctc.score_sequence(both, [2, 3]), jaxctc.score_sequence(both, [1, 3]))
      3.0 0.0
    """
    language_checks.several("scorers", scorers, "scorers")
    scorers = tuple(scorers)
    if weights is not None:
        language_checks.several("weights", weights, "numbers")
    weights = [1.0] * len(scorers) if weights is None else list(weights)
    if not scorers or len(weights) != len(scorers):
        raise ValueError(
            f"weights has length {len(weights)}; it must be that of scorers, and at least 1."
        )
    classes = None
    for i, (scorer, weight) in enumerate(zip(scorers, weights, strict=True)):
        language_checks.scorer(f"scorers[{i}]", scorer, classes)
        classes = classes_of(scorer) if classes is None else classes
        checks.finite(f"weights[{i}]", weight)
    known = checks.concrete(weights)
    array = jnp.stack(weights) if known is None else known  # a host array costs no transfer here
    return Combined(scorers, array.astype(np.float32))
