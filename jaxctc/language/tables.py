"""Deterministic automata over labels as dense tables, which a search reads besides the logits.

Language models (`ngram`) and constraints (`constraints`) are all turned into this one
form on the host, and can be combined there. A search reads it by indexing.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from jaxctc.core import checks
from jaxctc.language import checks as language_checks

S = TypeVar("S", bound=Hashable)
Array = np.ndarray | jax.Array


class Automaton(NamedTuple):
    """A deterministic automaton: reading a label adds a score and leads to the next state.

    State 0 is the start. The score of a sequence is the sum of the scores of its labels, plus
    `final` of the last state. Scores of probabilities are natural logarithms.
    """

    transition: Array  # int32 [states, C]
    score: Array  # float32 [states, C]: -inf forbids the label
    final: Array  # float32 [states]: -inf where no sequence may end

    def score_sequence(self, labels: Iterable[int]) -> float:
        """The score of one label sequence, up to its first negative label, computed on the host.

        Example:
          >>> import jaxctc
          >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).automaton()
          >>> plate.score_sequence([2, 3]), plate.score_sequence([3, 2])
          (0.0, -inf)
        """
        state, total = 0, 0.0
        for label in labels:
            if label < 0:  # the padding of `Hypotheses`
                break
            label = checks.class_id("label", label, self.score.shape[1])
            total += float(self.score[state, label])
            state = int(self.transition[state, label])
        return total + float(self.final[state])


def build(
    start: S,
    expand: Callable[[S], tuple[Iterable[tuple[int, S, float]], float]],
    classes: int,
) -> Automaton:
    """The automaton of all states that can be reached from a start.

    Args:
      start: The first state, anything hashable.
      expand: For a state, its arcs as (label, next state, score), and its final score.
      classes: The number of classes C.
    """
    classes = checks.positive("classes", classes)
    number, states, rows = {start: 0}, [start], []
    for state in states:  # grows as states are found
        arcs, final = expand(state)
        transition = np.zeros(classes, np.int32)
        score = np.full(classes, -np.inf, np.float32)
        for label, following, weight in arcs:
            label = checks.class_id("label", label, classes)
            if following not in number:
                number[following] = len(states)
                states.append(following)
            transition[label], score[label] = number[following], weight
        rows.append((transition, score, final))
    transitions, scores, finals = zip(*rows, strict=True)
    return Automaton(np.stack(transitions), np.stack(scores), np.array(finals, np.float32))


def combine(automata: Sequence[Automaton], *, weights: Sequence[float] | None = None) -> Automaton:
    """One automaton from several: the sum of their scores, each times its weight, 1 by default.

    What one of them forbids is forbidden, even with a weight of 0. Only pairs of states that
    can be reached are kept.

    Example:
      >>> import jaxctc
      >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).automaton()
      >>> known = jaxctc.Hotwords({(2, 3): 1.5}, classes=4).automaton()
      >>> both = jaxctc.combine([plate, known], weights=[1, 2])
      >>> both.score_sequence([2, 3]), both.score_sequence([1, 3])
      (3.0, 0.0)
    """
    weights = [1.0] * len(automata) if weights is None else list(weights)
    if not automata or len(weights) != len(automata):
        raise ValueError(
            f"weights has length {len(weights)}; it must be that of automata, and at least 1."
        )
    for i, (automaton, weight) in enumerate(zip(automata, weights, strict=True)):
        language_checks.tables(f"automata[{i}]", automaton)
        if not np.isfinite(weight):
            raise ValueError(f"weights has the value {weight}; it must be finite.")
    scaled = [_scale(a, w) for a, w in zip(automata, weights, strict=True)]
    result = scaled[0]
    for other in scaled[1:]:
        if other.score.shape[1] != result.score.shape[1]:
            raise ValueError(
                f"automata read {other.score.shape[1]} and {result.score.shape[1]} classes; "
                "they must read the same number."
            )
        result = _product(result, other)
    return result


def _scale(automaton: Automaton, weight: float) -> Automaton:
    def times(x):
        x = np.asarray(x, np.float32)
        return np.where(x > -np.inf, np.where(x > -np.inf, x, 0) * np.float32(weight), -np.inf)

    return Automaton(
        np.asarray(automaton.transition), times(automaton.score), times(automaton.final)
    )


def _product(a: Automaton, b: Automaton) -> Automaton:
    """The automaton of all pairs of states that can be reached, found breadth-first."""
    size = b.final.shape[0]
    order, known, frontier = [], np.zeros(0, np.int64), np.zeros(1, np.int64)
    while frontier.size:
        order.append(frontier)
        known = np.union1d(known, frontier)
        first, second = np.divmod(frontier, size)
        following = a.transition[first].astype(np.int64) * size + b.transition[second]
        allowed = a.score[first] + b.score[second] > -np.inf
        frontier = np.setdiff1d(following[allowed], known)
    pairs = np.concatenate(order)
    first, second = np.divmod(pairs, size)
    score = (a.score[first] + b.score[second]).astype(np.float32)
    following = a.transition[first].astype(np.int64) * size + b.transition[second]
    by_code = np.argsort(pairs)
    place = np.searchsorted(pairs[by_code], np.where(score > -np.inf, following, 0))
    return Automaton(
        by_code[place].astype(np.int32),
        score,
        (a.final[first] + b.final[second]).astype(np.float32),
    )
