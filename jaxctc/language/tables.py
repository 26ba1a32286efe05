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
from jaxctc.language.scorer import Scorer, extend_scores, extend_unknown

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
      unknown_transition: int32 ``[states]``, of an automaton of words: the state after a word that
        a `Lexicon` does not list. Without these two, its `scorer` can not take ``unknown=``.
      unknown_score: float ``[states]``, of such a word; ``-inf`` forbids it.

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
    unknown_transition: Array | None = None
    unknown_score: Array | None = None

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

    def extend_unknown(self, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.unknown_transition is None or self.unknown_score is None:
            raise ValueError(
                "an Automaton has no unknown_transition or unknown_score; for a Lexicon with "
                "`unknown` it must have both, as from `tabulate` with `unknown`."
            )
        after = jnp.asarray(self.unknown_transition)[state].astype(jnp.int32)
        return after, jnp.asarray(self.unknown_score)[state]


def build(
    start: S,
    expand: Callable[[S], tuple[Iterable[tuple[int, S, float]], float]],
    classes: int,
    unknown: Callable[[S], tuple[S, float] | None] | None = None,
) -> Automaton:
    """The automaton of all states that can be reached from a start.

    Args:
      start: The first state, anything hashable.
      expand: For a state, its arcs as (label, next state, score), and its final score.
      classes: The number of classes C.
      unknown: Of automata of words: for a state, that after a word that is not in the list, and its
        score; it returns None where there can be none.
    """
    classes = checks.positive("classes", classes)
    number, states, rows = {start: 0}, [start], []

    def number_of(state: S) -> int:
        if state not in number:
            number[state] = len(states)
            states.append(state)
        return number[state]

    for state in states:  # grows as states are found
        arcs, final = expand(state)
        transition = np.zeros(classes, np.int32)
        score = np.full(classes, -np.inf, np.float32)
        for label, following, weight in arcs:
            label = checks.class_id("label", label, classes)
            transition[label], score[label] = number_of(following), weight
        after = unknown and unknown(state)
        after = (0, -np.inf) if after is None else (number_of(after[0]), after[1])
        rows.append((transition, score, final, *after))
    transition, score, final, after, gained = zip(*rows, strict=True)
    known = np.stack(transition), np.stack(score), np.array(final, np.float32)
    if unknown is None:
        return Automaton(*known)
    return Automaton(*known, np.array(after, np.int32), np.array(gained, np.float32))


def tabulate(
    scorer: Scorer,
    *,
    classes: int | None = None,
    max_states: int = 100_000,
    unknown: bool = False,
) -> Automaton:
    """A small scorer as dense tables, with all states that can be reached from its start.

    A search reads tables faster than it computes, and `graphs.from_scorer` needs them. The
    scorer's states must be finite in number: those of an n-gram model are, those of a neural
    model are not.

    Args:
      scorer: A `Scorer`.
      classes: The number of classes C; None asks the scorer.
      max_states: An error, not a full memory, if there are more states than this.
      unknown: Whether the tables say too what follows a word that is not in the list, for a
        model of words in a `Lexicon` with `unknown`.

    Raises:
      TypeError: If `scorer` is not a scorer, or is traced.
      ValueError: If the number of classes is unknown or differs, or there are too many states.

    Examples:
      >>> import jaxctc
      >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).scorer()
      >>> known = jaxctc.Hotwords({(2, 3): 1.5}, classes=4).scorer()
      >>> jaxctc.tabulate(jaxctc.combine([plate, known])).score.shape
      (4, 4)
    """
    language_checks.scorer("scorer", scorer, classes)
    language_checks.methods("scorer", scorer, unknown=unknown)
    language_checks.known("scorer", scorer)
    classes = getattr(scorer, "classes", None) if classes is None else classes
    if classes is None:
        raise ValueError("classes is None; it must be a number, since the scorer has none.")
    classes = checks.positive("classes", classes)
    if isinstance(scorer, Automaton):
        tables = jax.tree.map(np.asarray, scorer)
        if not unknown or scorer.unknown_transition is not None:
            return tables
    with jax.ensure_compile_time_eval():  # on the host, also within a caller's `jit`
        return _tabulate(scorer, classes, max_states, unknown)


def _tabulate(scorer: Scorer, classes: int, max_states: int, unknown: bool) -> Automaton:
    every = jnp.arange(classes, dtype=jnp.int32)

    @functools.partial(jax.jit, static_argnums=1)
    def expand(states, count):
        def one(state):
            after, _ = jax.vmap(scorer.extend, (None, 0))(state, every)
            score = extend_scores(scorer, state, every)
            if unknown:  # the last column: a word that is not in the list
                other, gained = extend_unknown(scorer, state)
                other = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), other, after)
                after = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), after, other)
                score = jnp.append(score, jnp.asarray(gained, score.dtype))
            return after, score, scorer.final(state)

        return jax.vmap(one, axis_size=count)(states)

    first = scorer.start()
    structure = jax.tree.structure(first)
    leaves = [np.asarray(jnp.asarray(x))[None] for x in jax.tree.leaves(first)]
    number = {_key(leaves, 0): 0}
    transitions, scores, finals = [], [], []
    while leaves[0].shape[0] if leaves else not transitions:
        count = leaves[0].shape[0] if leaves else 1
        padded = 1 << (count - 1).bit_length()  # few sizes, since each is compiled
        batch = [np.concatenate([x, np.repeat(x[:1], padded - count, axis=0)]) for x in leaves]
        after, score, final = jax.device_get(expand(jax.tree.unflatten(structure, batch), padded))
        score, rows = score[:count], jax.tree.leaves(after)
        transition = np.zeros(score.shape, np.int32)
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
    transition, score = np.concatenate(transitions), np.concatenate(scores)
    final = np.concatenate(finals)
    if not unknown:
        return Automaton(transition, score, final)
    parts = transition[:, :-1], score[:, :-1], final, transition[:, -1], score[:, -1]
    return Automaton(*map(np.ascontiguousarray, parts))


def _key(leaves: list[np.ndarray], index: int) -> bytes:
    return b"".join(x[index].tobytes() for x in leaves)
