"""Topologies: which sequences of classes, one per frame, are alignments of which labels.

| topology      | a label is                                               | blank in between  |
|---------------|----------------------------------------------------------|-------------------|
| `CTC`         | one or more frames of its class                          | required          |
| `CompactCTC`  | one or more frames of its class                          | optional          |
| `MinimalCTC`  | one frame of its class                                   | optional          |
| `OneStateHMM` | one or more frames of its class                          | there is no blank |
| `TwoStateHMM` | a frame of its class, then any number of a second class  | there is no blank |

`compose` turns any graph of labels into the automaton of all their alignments.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from jaxctc.automata import checks as automata_checks
from jaxctc.automata.arcs import Fsa
from jaxctc.automata.graphs import linear_fsa, trim
from jaxctc.core import checks

Moves = list[tuple[int, int]]  # the class of the frame, and the state after it


class FrameTopology(Protocol):
    """A small transducer from frames to labels. States are ints, all of them final."""

    @property
    def start(self) -> int: ...

    def stay(self, state: int) -> Moves:
        """Moves by a frame that begins no label."""
        ...

    def read(self, state: int, label: int) -> Moves:
        """Moves by a frame that begins this label."""
        ...


@dataclasses.dataclass(frozen=True)
class CTC:
    """A run of one class is one label, blanks are removed (Graves et al. 2006)."""

    blank_id: int = 0

    @property
    def start(self) -> int:
        return self.blank_id

    def stay(self, state: int) -> Moves:
        """The same class again, or a blank. A state is the class of the last frame."""
        return [(c, c) for c in dict.fromkeys((state, self.blank_id))]

    def read(self, state: int, label: int) -> Moves:
        """Any other class."""
        _not_blank(label, self.blank_id)
        return [(label, label)] if label != state else []


@dataclasses.dataclass(frozen=True)
class CompactCTC(CTC):
    """CTC in which equal labels may follow each other without a blank (Laptev et al. 2022).

    The same as k2's modified topology.
    """

    def read(self, state: int, label: int) -> Moves:
        """Any class, the same included."""
        _not_blank(label, self.blank_id)
        return [(label, label)]


@dataclasses.dataclass(frozen=True)
class MinimalCTC(CTC):
    """Every label takes one frame; all other frames are blanks (Laptev et al. 2022)."""

    def stay(self, state: int) -> Moves:
        """Blanks."""
        return [(self.blank_id, state)]

    def read(self, state: int, label: int) -> Moves:
        """Any class, for one frame."""
        _not_blank(label, self.blank_id)
        return [(label, state)]


@dataclasses.dataclass(frozen=True)
class OneStateHMM:
    """Every label takes one frame or more of its class; there is no blank."""

    @property
    def start(self) -> int:
        return -1

    def stay(self, state: int) -> Moves:
        """The same class again."""
        return [] if state < 0 else [(state, state)]

    def read(self, state: int, label: int) -> Moves:
        """Any class."""
        return [(label, label)]


@dataclasses.dataclass(frozen=True)
class TwoStateHMM(OneStateHMM):
    """A label's first frame has its class, further ones class `labels` + label (Povey et al. 2016).

    Attributes:
      labels: The number of labels; there are twice as many classes.
    """

    labels: int

    def stay(self, state: int) -> Moves:
        """The second class of the label."""
        return [] if state < 0 else [(self.labels + state, state)]

    def read(self, state: int, label: int) -> Moves:
        """The first class of any label."""
        checks.class_id("label", label, self.labels)
        return [(label, label)]


def _not_blank(label: int, blank_id: int) -> None:
    if label == blank_id:
        raise ValueError(f"label is {label}; it must not be the blank.")


def compose(topology: FrameTopology, graph: Fsa) -> Fsa:
    """The automaton of all alignments of the label sequences of a graph.

    The weight of a label's arc in the graph counts once, however many frames the label takes.

    Args:
      topology: How labels become frames, such as ``topologies.CTC(blank_id=0)``.
      graph: The labels, as `linear_fsa`, `ngram_fsa` or `Fsa.from_arcs` make them.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> graph = jaxctc.linear_fsa([1, 1])
      >>> for topology in (jaxctc.topologies.CTC(), jaxctc.topologies.MinimalCTC()):
      ...     fsa = jaxctc.compose(topology, graph)
      ...     print(jnp.round(jnp.exp(jaxctc.fsa_score(fsa, jnp.zeros((4, 2))))))
      5.0
      6.0

    References:
      Laptev, Majumdar, Ginsburg 2022, "CTC variations through new WFST topologies".
    """
    automata_checks.topology(topology)
    automata_checks.one_automaton("graph", graph)
    following: list[list[tuple[int, int, float]]] = [[] for _ in graph.final]
    fields = [np.asarray(x).tolist() for x in graph]
    for source, destination, label, weight in zip(*fields[:4], strict=True):
        if label >= 0:  # else it is padding
            following[source].append((label, destination, weight))
    starts = [(topology.start, q) for q, w in enumerate(fields[4]) if w != -np.inf]
    number = {pair: i for i, pair in enumerate(starts)}
    pairs, arcs = [*starts], []
    for pair in pairs:  # grows as pairs are found
        state, q = pair
        moves = [(read, (after, q), 0.0) for read, after in topology.stay(state)]
        for label, destination, weight in following[q]:
            moves += [(c, (n, destination), weight) for c, n in topology.read(state, label)]
        for read, after, weight in moves:
            if after not in number:
                number[after] = len(pairs)
                pairs.append(after)
            arcs.append((number[pair], number[after], read, weight))
    begin = {i: fields[4][q] for i, (_, q) in enumerate(starts)}
    end = {i: fields[5][q] for i, (_, q) in enumerate(pairs) if fields[5][q] != -np.inf}
    return trim(Fsa.from_arcs(arcs, start=begin, final=end))


def ctc_fsa(
    labels: Sequence[int],
    *,
    blank_id: int = 0,
    star_id: int | None = None,
    star_weight: float = 0.0,
    star_excludes_next: bool = False,
    weight: float = 0.0,
) -> Fsa:
    """The automaton of all alignments of one label sequence; minus its `fsa_score` is `ctc_loss`.

    Args:
      labels: The labels, without blanks or padding.
      blank_id: The class that is the blank.
      star_id: If given, labels may be missing before, between and after those given: any
        number of stars, labels of this class, may be there. `with_star` adds such a
        class to log-probabilities.
      star_weight: The weight of each star; a negative weight makes stars less likely.
      star_excludes_next: Whether a star before a label matches any label but that one, so that
        it can not take the label's place. The star of any label but k is then class
        ``star_id + 1 + k``, as from ``with_star(excluding=True)``.
      weight: The weight of all paths, such as the score of the labels in a language model.

    Raises:
      ValueError: If a label is the blank, the star, or negative, or `weight` is not finite.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> log_probs = jax.nn.log_softmax(jnp.arange(12.0).reshape(4, 3) % 5)
      >>> score = jaxctc.fsa_score(jaxctc.ctc_fsa([1, 2]), log_probs)
      >>> print(jnp.allclose(-score, jaxctc.ctc_loss(log_probs, jnp.array([1, 2]))))
      True
      >>> log_probs = jax.nn.log_softmax(5 * jax.nn.one_hot(jnp.array([3, 0, 1, 2]), 4))
      >>> partly = jaxctc.ctc_fsa([1], star_id=4)  # something before it, something after
      >>> path = jaxctc.fsa_best_path(partly, jaxctc.with_star(log_probs))
      >>> print(path.labels)
      [4 0 1 4]

    References:
      Graves et al. 2006, "Connectionist temporal classification".
      Pratap, Hannun, Synnaeve, Collobert 2022, "Star temporal classification".
      Cai et al. 2022, "W-CTC: a connectionist temporal classification loss with wild cards".
    """
    labels = automata_checks.label_list("labels", labels)
    if not np.isfinite(weight):
        raise ValueError(f"weight is {weight}; it must be finite.")
    star_excludes_next = checks.flag("star_excludes_next", star_excludes_next)
    graph = linear_fsa(labels)
    if star_id is not None:
        star_id = checks.wildcard_label("star_id", star_id, blank_id)
        if star_id in labels:
            raise ValueError(f"label is {star_id}; it must not be the star.")
        stars = [(q, q, star_id, star_weight) for q in range(len(labels) + 1)]
        if star_excludes_next:
            if max(labels, default=0) >= star_id:
                raise ValueError(
                    f"label is {max(labels)}; with star_excludes_next it must be below the star, "
                    f"{star_id}."
                )
            stars[:-1] = [(q, q, star_id + 1 + k, star_weight) for q, k in enumerate(labels)]
        steps = [(i, i + 1, label, 0.0) for i, label in enumerate(labels)]
        graph = Fsa.from_arcs(stars + steps, final={len(labels)})
    return compose(CTC(blank_id), graph._replace(start=graph.start + np.float32(weight)))
