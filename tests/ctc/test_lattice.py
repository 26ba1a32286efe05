"""The CTC topology on the recursion, in both layouts, against all its paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import Case, KernelConformance, LatticeConformance

from jaxctc.ctc import lattice


class CTCConformance(LatticeConformance):
    frames = 5
    classes = 3

    def labels(self):
        raise NotImplementedError("labels and their lengths")

    def lattice(self, dtype=jnp.float32, seed=0):
        labels, lengths = self.labels()
        logits = jax.random.normal(jax.random.key(seed), (len(labels), self.frames, self.classes))
        logits = (2 * logits).astype(dtype)
        frames = jnp.full(len(labels), self.frames)
        topology, scores, *_ = lattice.lattice(logits, labels, frames, lengths, 0)
        return Case(topology, scores)

    def of_sequence(self, case, scores, b):
        return np.asarray(scores[:, :, b] if case.topology.axis == 0 else scores[:, b])

    def paths(self, case, b):
        labels, lengths = (np.asarray(x) for x in self.labels())
        labels = labels[b, : lengths[b]]
        spaces = self.labels()[0].shape[1] + 1
        found = []
        # A path goes through states 0 (blank), 1 (label 1), 2 (blank), ...: never back, and
        # over a blank only between different labels.
        states = range(2 * len(labels) + 1)
        for path in itertools.combinations_with_replacement(states, self.frames):
            moves = zip((-1, *path), path, strict=False)
            legal = all(
                b - a in (0, 1)
                or (b - a == 2 and b % 2 == 1 and (b == 1 or labels[b // 2] != labels[b // 2 - 1]))
                for a, b in moves
            )
            if legal and path[-1] >= 2 * len(labels) - 1:
                counts = np.zeros((self.frames, spaces))
                for t, s in enumerate(path):
                    counts[t, s // 2 + 1 if s % 2 else 0] = 1
                found.append(counts)
        return found


class TestFewLongSequences(KernelConformance, CTCConformance):
    """States along the last axis."""

    def labels(self):
        return jnp.array([[1, 2, 1], [2, 2, 0], [1, 1, 1]]), jnp.array([3, 2, 0])


class TestManyShortSequences(KernelConformance, CTCConformance):
    """States along the first axis, the batch along the last."""

    def labels(self):
        return (
            jnp.array([[1, 2], [2, 2], [1, 0], [1, 1], [2, 1]]),
            jnp.array([2, 2, 1, 0, 2]),
        )


class TestNoPath(KernelConformance, CTCConformance):
    """Five frames hold two equal labels, but not four."""

    def labels(self):
        return jnp.array([[1, 1, 1, 1], [1, 2, 2, 0]]), jnp.array([4, 3])

    def test_the_first_has_no_path(self):
        assert self.paths(self.lattice(), 0) == []


@pytest.mark.parametrize(("batch", "axis"), [(2, 1), (9, 0)])
def test_both_layouts_are_tested(batch, axis):
    topology = lattice.lattice(
        jnp.zeros((batch, 4, 3)),
        jnp.ones((batch, 3), int),
        jnp.full(batch, 4),
        jnp.full(batch, 3),
        0,
    ).topology
    assert topology.axis == axis
