"""Topologies against plain Python."""

import itertools

import numpy as np
import pytest
from oracles import collapse, fsa_paths

import jaxctc
from jaxctc.automata import topologies

CLASSES = 6  # blank 0, labels 1 and 2; in HMMs of two states 3 more than a label is its second


def runs(path):
    """Frames as runs: (class, how many)."""
    return [(c, len([*g])) for c, g in itertools.groupby(path)]


def splits(path, labels):
    """The number of alignments in which each label is one frame or more of its class."""
    if not labels:
        return int(not path)
    whole = 0
    for n in range(1, len(path) + 1):
        if all(c == labels[0] for c in path[:n]):
            whole += splits(path[n:], labels[1:])
    return whole


def readings(topology, path, labels):
    """The number of ways in which a sequence of classes is an alignment of the labels."""
    if isinstance(topology, topologies.TwoStateHMM):
        first = [c if c < 3 else None for c in path]
        second = [None, *path][: len(path)]
        good = all(
            c < 3 or (before is not None and before in (c, c - 3))
            for c, before in zip(path, second, strict=True)
        )
        return int(good and tuple(c for c in first if c is not None) == labels)
    if isinstance(topology, topologies.OneStateHMM):
        return splits(path, labels)
    if isinstance(topology, topologies.MinimalCTC):
        return int(tuple(c for c in path if c != 0) == labels)
    if isinstance(topology, topologies.CompactCTC):
        pieces = [p for p in runs(path) if p[0] != 0]
        ways = {0: 1}
        for c, n in pieces:  # each run of frames is some labels in turn
            ways = {
                end: sum(
                    count * splits((c,) * n, labels[start:end])
                    for start, count in ways.items()
                    if start < end
                )
                for end in range(len(labels) + 1)
            }
        return ways.get(len(labels), 0)
    return int(collapse(path, 0) == labels)


@pytest.mark.parametrize(
    "topology",
    [
        topologies.CTC(),
        topologies.CompactCTC(),
        topologies.MinimalCTC(),
        topologies.OneStateHMM(),
        topologies.TwoStateHMM(labels=3),
    ],
    ids=lambda t: type(t).__name__,
)
@pytest.mark.parametrize("labels", [(1, 2), (1, 1), (2,), (1, 2, 2), ()])
def test_topologies_have_the_alignments_of_their_definition(topology, labels):
    fsa = jaxctc.compose(topology, jaxctc.linear_fsa(labels))
    for frames in range(5):
        found = {}
        for first, arcs, last in fsa_paths(fsa, frames):
            if fsa.start[first] > -np.inf and fsa.final[last] > -np.inf:
                path = tuple(fsa.label[list(arcs)].tolist())
                found[path] = found.get(path, 0) + 1
        for path in itertools.product(range(CLASSES), repeat=frames):
            assert found.get(path, 0) == readings(topology, path, labels), path
