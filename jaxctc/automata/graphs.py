"""Graphs of labels: sequences, alternatives, language models, and automata written as text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxctc.automata import checks as automata_checks
from jaxctc.automata.arcs import Fsa, reachable
from jaxctc.core import checks
from jaxctc.language.arpa import END, START
from jaxctc.language.ngram import NGram, dense
from jaxctc.language.scorer import Scorer
from jaxctc.language.tables import Automaton, tabulate


def linear_fsa(labels: Iterable[int], *, weights: Iterable[float] | None = None) -> Fsa:
    """The automaton of one label sequence.

    Args:
      labels: The labels, one per arc.
      weights: The weight of each arc, 0 by default.

    Examples:
      >>> import jaxctc
      >>> jaxctc.linear_fsa([3, 1]).label
      array([3, 1], dtype=int32)
    """
    labels = automata_checks.label_list("labels", labels)
    weights = [0.0] * len(labels) if weights is None else [*weights]
    if len(weights) != len(labels):
        raise ValueError(f"weights has length {len(weights)}; it must be {len(labels)}.")
    arcs = [(i, i + 1, *x) for i, x in enumerate(zip(labels, weights, strict=True))]
    return Fsa.from_arcs(arcs, final={len(labels)})


def union_fsa(automata: Sequence[Fsa]) -> Fsa:
    """The union of several automata: a label sequence has the sum of its weights in each.

    Examples:
      >>> import jaxctc
      >>> either = jaxctc.union_fsa([jaxctc.linear_fsa([1, 2]), jaxctc.linear_fsa([1])])
      >>> either.score_sequence([1]), either.score_sequence([2])
      (0.0, -inf)
    """
    automata_checks.several_automata("automata", automata)
    offsets = np.cumsum([0, *(len(fsa.final) for fsa in automata)])
    parts = [
        fsa._replace(source=fsa.source + i, destination=fsa.destination + i)
        for fsa, i in zip(automata, offsets[:-1].astype(np.int32), strict=True)
    ]
    return Fsa(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def trim(fsa: Fsa) -> Fsa:
    """The same automaton without states that are on no path from a start to a final state."""
    automata_checks.one_automaton("fsa", fsa)
    fsa = Fsa(*(np.asarray(x) for x in fsa))
    kept = reachable(fsa.source, fsa.destination, fsa.start > -np.inf)
    kept &= reachable(fsa.destination, fsa.source, fsa.final > -np.inf)
    if not kept.any():
        raise ValueError("no final state can be reached from a start state; it must be possible.")
    number = np.cumsum(kept, dtype=np.int32) - 1
    arcs = kept[fsa.source] & kept[fsa.destination]
    return Fsa(
        number[fsa.source[arcs]],
        number[fsa.destination[arcs]],
        fsa.label[arcs],
        fsa.weight[arcs],
        fsa.start[kept],
        fsa.final[kept],
    )


def from_scorer(scorer: Scorer, *, classes: int | None = None) -> Fsa:
    """A small `Scorer` (`NGram`, `Lexicon`, `Grammar`, sums of them) as arcs.

    Args:
      scorer: The scorer; its states must be few, see `tabulate`.
      classes: The number of classes; None asks the scorer.

    Examples:
      >>> import jaxctc
      >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).scorer()
      >>> jaxctc.graphs.from_scorer(plate).score_sequence([2, 3])
      0.0
    """
    automaton = scorer if isinstance(scorer, Automaton) else tabulate(scorer, classes=classes)
    score, final = np.asarray(automaton.score), np.asarray(automaton.final_score)
    source, label = np.nonzero(score > -np.inf)
    destination = np.asarray(automaton.transition)[source, label]
    arcs = np.stack([source, destination, label, score[source, label]], axis=1)
    ends = {int(q): float(final[q]) for q in np.flatnonzero(final > -np.inf)}
    return trim(Fsa.from_arcs(arcs.astype(np.float64), final=ends))


def ngram_fsa(sequences: Iterable[Sequence[int]], *, order: int = 2, discount: float = 0.5) -> Fsa:
    """An n-gram model of label sequences as an automaton without epsilon arcs.

    Probabilities use interpolated absolute discounting: `discount` is subtracted from every
    count, and the probability this frees after a history is distributed as after the shorter
    history. Instead of back-off arcs, every history has an arc for every label that occurs; with
    a discount of 0, only for the labels that followed it, as in the denominators of
    Povey et al. 2016.

    Args:
      sequences: The label sequences to count. The end of a sequence is counted too.
      order: The n of the n-grams.
      discount: From 0 to 1.

    Examples:
      >>> import jaxctc
      >>> model = jaxctc.ngram_fsa([[1, 2], [1, 3], [1, 2]], order=2, discount=0)
      >>> round(model.score_sequence([1, 3]), 4)  # ln(1/3)
      -1.0986
      >>> jaxctc.ngram_fsa([[1, 2], [1, 3]]).score_sequence([3, 1]) > -20
      True

    References:
      Ney, Essen, Kneser 1994, "On structuring probabilistic dependences in stochastic language
      modelling".
    """
    order = checks.positive("order", order)
    if not 0 <= checks.non_negative("discount", discount) <= 1:
        raise ValueError(f"discount is {discount}; it must be in 0…1.")
    counts: dict[tuple[str, ...], Counter[str]] = {}
    occurring: set[int] = set()
    for sequence in sequences:
        labels = automata_checks.label_list("sequence", sequence)
        words = [START, *map(str, labels), END]
        occurring.update(labels)
        for i in range(1, len(words)):
            for n in range(min(order, i + 1)):
                counts.setdefault(tuple(words[i - n : i]), Counter())[words[i]] += 1
    if not counts:
        raise ValueError("sequences has length 0; it must be at least 1.")

    probability: dict[tuple[str, ...], float] = {}
    backoff: dict[tuple[str, ...], float] = {}
    for history in sorted(counts, key=len):
        total = sum(counts[history].values())
        taken = discount if history else 0.0
        backoff[history] = taken * len(counts[history]) / total
        for word, count in counts[history].items():
            shorter = probability[*history[1:], word] if history else 0.0
            probability[*history, word] = (count - taken) / total + backoff[history] * shorter
    probability.setdefault((START,), 0.0)
    with np.errstate(divide="ignore"):
        ngrams = {
            ngram: (float(np.log10(p)), float(np.log10(backoff.get(ngram, 1.0))))
            for ngram, p in probability.items()
        }
    # Tables have only the labels that occur: a large label takes no memory for those below it.
    labels = sorted(occurring)
    model = NGram(ngrams, [*map(str, labels)], unknown_log10=-np.inf)
    fsa = from_scorer(dense(model))
    return fsa._replace(label=np.array(labels, np.int32)[fsa.label])


def from_k2_text(text: str) -> Fsa:
    """An automaton in k2's text format: lines of source, destination, label and score.

    The last line is the final state. Arcs to it have the label -1 and read no frame, so each
    becomes the final weight of its source.

    Examples:
      >>> import jaxctc
      >>> jaxctc.graphs.from_k2_text("0 1 2 0.5\\n1 2 -1 0.25\\n2").score_sequence([2])
      0.75
    """
    arcs, final = [], {}
    *lines, last = _fields(text)
    if len(last[1]) != 1:
        raise ValueError(f"line {last[0]}: it must be the final state alone.")
    for number, fields in lines:
        if len(fields) != 4:
            raise ValueError(f"line {number} has {len(fields)} fields; it must have 4.")
        source, destination, label, weight = fields
        if (label == -1) != (destination == last[1][0]):
            raise ValueError(
                f"line {number}: label is {label:g}; it must be -1 on arcs to the final state, "
                "and on no others."
            )
        if label != -1:
            arcs.append(fields)
        elif source in final:
            raise ValueError(
                f"line {number}: state {source:g} has two final weights; it must have one."
            )
        else:
            final[source] = weight
    return Fsa.from_arcs(arcs, final=final)


def from_openfst_text(text: str) -> Fsa:
    """An acceptor in OpenFst's text format: lines of source, destination, label and cost, or of a
    final state and its cost. Costs are negative logarithms, 0 if left out.

    The start is the source of the first line. Label 0, which is epsilon in OpenFst, is an error.

    Examples:
      >>> import jaxctc
      >>> jaxctc.graphs.from_openfst_text("0 1 2 0.5\\n1 0.25").score_sequence([2])
      -0.75
    """
    arcs, final, lines = [], {}, [*_fields(text)]
    for number, fields in lines:
        if len(fields) <= 2:
            if fields[0] in final:
                raise ValueError(
                    f"line {number}: state {fields[0]:g} has two final weights; it must have one."
                )
            final[fields[0]] = -fields[1] if len(fields) == 2 else 0.0
        elif len(fields) > 4:
            raise ValueError(f"line {number} has {len(fields)} fields; it must have 1 to 4.")
        elif fields[2] == 0:
            raise ValueError(f"line {number}: label 0 is epsilon; it must be removed first.")
        else:
            arcs.append((*fields[:3], -fields[3] if len(fields) == 4 else 0.0))
    start: dict = {lines[0][1][0]: 0.0}
    return Fsa.from_arcs(arcs, start=start, final=final)


def _fields(text: str) -> Iterator[tuple[int, list[float]]]:
    """Number and fields of every line that is not empty."""
    found = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            found = True
            try:
                yield number, [float(x) for x in line.split()]
            except ValueError:
                raise ValueError(f"line {number} is {line!r}; it must be numbers.") from None
    if not found:
        raise ValueError("text is empty; it must have a final state.")
