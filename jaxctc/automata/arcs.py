"""Weighted automata as arrays of arcs: made, checked and stacked on the host, with numpy."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxctc.automata import checks as automata_checks
from jaxctc.core import checks

Array = np.ndarray | jax.Array


class Fsa(NamedTuple):
    """A weighted automaton as arrays: one, or a batch of them padded to one size by `stack`.

    Weights are natural logarithms; ``-inf`` forbids a state or an arc. Arcs of the label -1 are
    padding and never read. `from_arcs` makes an automaton and checks it; `jaxctc.graphs`
    and `jaxctc.topologies` have ready-made ones.

    The weights can be trained: replace them with ``fsa._replace(weight=...)``. The gradient of
    a score with respect to them is the expected number of times each arc is used.

    Attributes:
      source: int32 ``[*batch, A]``: the state each arc leaves.
      destination: int32 ``[*batch, A]``: the state it enters.
      label: int32 ``[*batch, A]``: the class whose score the arc takes.
      weight: float ``[*batch, A]``: what it adds to the score of a path.
      start: float ``[*batch, S]``: ``-inf`` where no path may begin.
      final: float ``[*batch, S]``: ``-inf`` where no path may end.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> arcs = [(0, 0, 1, 0.0), (0, 1, 2, -0.5), (1, 1, 1, 0.0)]  # 1s, one 2, 1s
      >>> fsa = jaxctc.Fsa.from_arcs(arcs, final={1})
      >>> score = lambda weight: jaxctc.fsa_score(fsa._replace(weight=weight), jnp.zeros((4, 3)))
      >>> print(jax.grad(score)(jnp.asarray(fsa.weight)))  # three of the four frames are 1
      [1.5 1.  1.5]
    """

    source: Array
    destination: Array
    label: Array
    weight: Array
    start: Array
    final: Array

    @classmethod
    def from_arcs(
        cls,
        arcs: Iterable[Sequence[float]],
        *,
        final: Mapping[int, float] | Collection[int],
        start: Mapping[int, float] | Collection[int] = (0,),
    ) -> "Fsa":
        """One automaton, checked.

        Args:
          arcs: For each arc its source, destination, label and weight, or an array ``[A, 4]``
            of them. If paths tie, the arc that comes first is preferred.
          final: The final states, all with weight 0, or a mapping from states to weights.
          start: The start states, likewise.

        Raises:
          ValueError: If a state or label is negative or not a whole number, a weight is NaN or
            ``inf``, or no path leads from a start state to a final one. Also if a state number is
            1000 + 10 n or more, where n is the number of states used: every number up to
            the largest takes memory.

        Examples:
          >>> import jaxctc
          >>> jaxctc.Fsa.from_arcs([(0, 1, 2, 0.0)], final={2: 0.0})
          Traceback (most recent call last):
          ...
          ValueError: no final state can be reached from a start state; it must be possible.
        """
        try:
            table = arcs if isinstance(arcs, np.ndarray) else np.array([*arcs], np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                "arcs has rows that are not four numbers; it must be [A, 4]."
            ) from None
        table = table.reshape(0, 4) if table.size == 0 else table
        if table.ndim != 2 or table.shape[1] != 4:
            raise ValueError(f"arcs has shape {table.shape}; it must be [A, 4].")
        ends = [_weight_by_state("start", start), _weight_by_state("final", final)]
        states = np.array([*ends[0], *ends[1], *table[:, 0], *table[:, 1]])
        for name, numbers in (("state", states), ("label", table[:, 2])):
            wrong = ~((numbers >= 0) & (numbers < 2**31 - 1) & (numbers == np.floor(numbers)))
            if wrong.any():
                number = numbers[wrong][0]
                raise ValueError(f"{name} is {number:g}; it must be a whole number from 0 up.")
        for name, weights in (
            ("start weight", np.array([*ends[0].values()])),
            ("final weight", np.array([*ends[1].values()])),
            ("arc weight", table[:, 3]),
        ):
            good = (np.abs(weights) <= np.finfo(np.float32).max) | (weights == -np.inf)
            if not good.all():
                raise ValueError(
                    f"{name} is {weights[~good][0]}; it must be finite or -inf, in float32."
                )
        automata_checks.few_gaps(states)
        source, destination, label = table[:, :3].T.astype(np.int32)
        at_start, at_final = np.full((2, int(states.max(initial=0)) + 1), -np.inf, np.float32)
        for weights, end in zip((at_start, at_final), ends, strict=True):
            for state, weight in end.items():
                weights[int(state)] = weight
        reached = reachable(source, destination, at_start > -np.inf)
        if not np.any(reached & (at_final > -np.inf)):
            raise ValueError(
                "no final state can be reached from a start state; it must be possible."
            )
        weight = table[:, 3].astype(np.float32)
        return cls(source, destination, label, weight, at_start, at_final)

    @classmethod
    def stack(
        cls, automata: Sequence["Fsa"], *, states: int | None = None, arcs: int | None = None
    ) -> "Fsa":
        """A batch of automata, padded to one size.

        Args:
          automata: One or more, without a batch axis.
          states: The number of states to pad to; None means that of the largest.
          arcs: The number of arcs to pad to, likewise. Give both if automata change from call
            to call: each new size is compiled again.

        Examples:
          >>> import jaxctc
          >>> batch = jaxctc.Fsa.stack([jaxctc.ctc_fsa([1, 2]), jaxctc.ctc_fsa([3])])
          >>> batch.final.shape, batch.weight.shape
          ((2, 5), (2, 10))
        """
        automata_checks.several_automata("automata", automata)

        def padded(field: str, name: str, size: int | None, fill: float) -> np.ndarray:
            rows = [np.asarray(getattr(fsa, field)) for fsa in automata]
            least = max(len(row) for row in rows)
            size = least if size is None else checks.at_least(name, size, least)
            rows = [np.pad(row, (0, size - len(row)), constant_values=fill) for row in rows]
            return np.stack(rows)

        return cls(
            padded("source", "arcs", arcs, 0),
            padded("destination", "arcs", arcs, 0),
            padded("label", "arcs", arcs, -1),
            padded("weight", "arcs", arcs, -np.inf),
            padded("start", "states", states, -np.inf),
            padded("final", "states", states, -np.inf),
        )

    def score_sequence(self, labels: Iterable[int]) -> float:
        """The log of the total weight of one label sequence, up to its first negative label.

        It is computed on the host.

        Examples:
          >>> import jaxctc
          >>> fsa = jaxctc.linear_fsa([2, 1], weights=[-0.5, -0.25])
          >>> fsa.score_sequence([2, 1]), fsa.score_sequence([1])
          (-0.75, -inf)
        """
        automata_checks.one_automaton("fsa", self)
        arrays = [np.asarray(x) for x in self]
        source, destination, label, weight, state, final = arrays
        state = state.astype(np.float64)
        for read in labels:
            if read < 0:  # the padding of `Hypotheses`
                break
            used = label == read
            after = np.full_like(state, -np.inf)
            np.logaddexp.at(after, destination[used], state[source[used]] + weight[used])
            state = after
        return float(np.logaddexp.reduce(state + final))


def _weight_by_state(name: str, value: Mapping[int, float] | Collection[int]) -> dict[int, float]:
    """The weight of each start or final state."""
    try:
        weights = {**value} if isinstance(value, Mapping) else dict.fromkeys(value, 0.0)
        np.array([[*weights], [*weights.values()]], np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be states, or weights by state.") from None
    return weights


def reachable(source: Array, destination: Array, begin: Array) -> np.ndarray:
    """Which states can be reached from those of `begin`, themselves included, bool ``[S]``."""
    source, destination, begin = (np.asarray(x) for x in (source, destination, begin))
    order = np.argsort(source, kind="stable")
    first = np.searchsorted(source[order], np.arange(begin.shape[0] + 1))
    seen = begin.copy()
    frontier = [int(q) for q in np.flatnonzero(begin)]
    following = destination[order]
    while frontier:
        q = frontier.pop()
        for n in following[first[q] : first[q + 1]].tolist():
            if not seen[n]:
                seen[n] = True
                frontier.append(n)
    return seen
