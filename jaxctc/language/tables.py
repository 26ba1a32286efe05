"""Scorers as dense tables of states times classes, and small scorers turned into such tables."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer, extend_scores

S = TypeVar("S", bound=Hashable)
Array = np.ndarray | jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Automaton:
    """A scorer as dense tables: reading a label adds a score and leads to the next state.

    State 0 is the start. The score of a sequence is the sum of the scores of its labels, plus
    `final_score` of the last state. Scores of probabilities are natural logarithms.

    Attributes:
      transition: int32 ``[states, C]``, the state after each label.
      score: float ``[states, C]``, of each label; ``-inf`` forbids it.
      final_score: float ``[states]``; ``-inf`` where no sequence may end.

    Examples:
      >>> import jaxctc, numpy as np
      >>> even = jaxctc.Automaton(  # an even number of labels, 2 of them preferred
      ...     np.array([[1, 1, 1], [0, 0, 0]], np.int32),
      ...     np.array([[0, 0, 1], [0, 0, 1]], np.float32),
      ...     np.array([0, -np.inf], np.float32),
      ... )
      >>> print(jaxctc.score_sequence(even, [1, 2]), jaxctc.score_sequence(even, [2]))
      1.0 -inf
    """

    transition: Array
    score: Array
    final_score: Array

    @property
    def classes(self) -> int:
        """The number of classes C."""
        return self.score.shape[-1]

    def start(self) -> jax.Array:
        return jnp.int32(0)

    def extend(self, state: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        following = jnp.asarray(self.transition)[state, label].astype(jnp.int32)
        return following, jnp.asarray(self.score)[state, label]

    def final(self, state: jax.Array) -> jax.Array:
        return jnp.asarray(self.final_score)[state]

    def extend_scores(self, state: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.asarray(self.score)[state][labels]  # a whole row is read at once


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


def tabulate(scorer: Scorer, *, classes: int | None = None, max_states: int = 100_000) -> Automaton:
    """A small scorer as dense tables, with all states that can be reached from its start.

    A search reads tables faster than it computes, and `graphs.from_scorer` needs them. The
    scorer's states must be finite in number: those of an n-gram model are, those of a neural
    model are not.

    Args:
      scorer: A `Scorer`.
      classes: The number of classes C; None asks the scorer.
      max_states: An error, not a full memory, if there are more states than this.

    Raises:
      TypeError: If `scorer` is not a scorer.
      ValueError: If the number of classes is unknown or differs, or there are too many states.

    Examples:
      >>> import jaxctc
      >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).scorer()
      >>> known = jaxctc.Hotwords({(2, 3): 1.5}, classes=4).scorer()
      >>> jaxctc.tabulate(jaxctc.combine([plate, known])).score.shape
      (4, 4)
    """
    language_checks.scorer("scorer", scorer, classes)
    classes = getattr(scorer, "classes", None) if classes is None else classes
    if classes is None:
        raise ValueError("classes is None; it must be a number, since the scorer has none.")
    classes = checks.positive("classes", classes)
    if isinstance(scorer, Automaton):
        arrays = scorer.transition, scorer.score, scorer.final_score
        return Automaton(*map(np.asarray, arrays))
    with jax.ensure_compile_time_eval():  # on the host, also within a caller's `jit`
        return _tabulate(scorer, classes, max_states)


def _tabulate(scorer: Scorer, classes: int, max_states: int) -> Automaton:
    every = jnp.arange(classes, dtype=jnp.int32)

    @functools.partial(jax.jit, static_argnums=1)
    def expand(states, count):
        def one(state):
            after, _ = jax.vmap(scorer.extend, (None, 0))(state, every)
            return after, extend_scores(scorer, state, every), scorer.final(state)

        return jax.vmap(one, axis_size=count)(states)

    first = scorer.start()
    structure = jax.tree.structure(first)
    leaves = [np.asarray(x)[None] for x in jax.tree.leaves(first)]
    number = {_key(leaves, 0): 0}
    transitions, scores, finals = [], [], []
    while leaves[0].shape[0] if leaves else not transitions:
        count = leaves[0].shape[0] if leaves else 1
        padded = 1 << (count - 1).bit_length()  # few sizes, since each is compiled
        batch = [np.concatenate([x, np.repeat(x[:1], padded - count, axis=0)]) for x in leaves]
        after, score, final = jax.device_get(expand(jax.tree.unflatten(structure, batch), padded))
        score, rows = score[:count], jax.tree.leaves(after)
        transition = np.zeros((count, classes), np.int32)
        fresh = []
        for i, c in zip(*np.nonzero(score > -np.inf), strict=True):
            key = _key([x[i] for x in rows], c)
            if key not in number:
                number[key] = len(number)
                fresh.append((i, c))
            transition[i, c] = number[key]
        if len(number) > max_states:
            raise ValueError(
                f"scorer has more than {max_states} states; it must have at most max_states."
            )
        transitions.append(transition)
        scores.append(score)
        finals.append(final[:count])
        leaves = [np.stack([x[i, c] for i, c in fresh]) if fresh else x[:0, 0] for x in rows]
    return Automaton(np.concatenate(transitions), np.concatenate(scores), np.concatenate(finals))


def _key(leaves: list[np.ndarray], index: int) -> bytes:
    return b"".join(x[index].tobytes() for x in leaves)
