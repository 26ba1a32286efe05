"""The transducer topologies on the recursion, in both layouts, against all their paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import Case, KernelConformance, LatticeConformance
from oracles import duration_paths, transducer_paths

import jaxctc
from jaxctc.transducer import durations, lattice, tdt


class TransducerConformance(LatticeConformance):
    monotonic = False
    max_symbols = None
    frames = (4, 3)
    labels = (2, 3)

    def arcs(self, dtype, seed):
        keys = jax.random.split(jax.random.key(seed))
        shape = (len(self.frames), max(self.frames), max(self.labels) + 1)
        blank = jax.random.normal(keys[0], shape) - 1
        label = jax.random.normal(keys[1], shape)[:, :, 1:] - 1
        return blank.astype(dtype), label.astype(dtype)

    def lattice(self, dtype=jnp.float32, seed=0):
        lengths = jnp.array(self.frames), jnp.array(self.labels)
        emission = lattice.Emission(self.monotonic, self.max_symbols)
        topology, scores, _ = lattice.lattice(*self.arcs(dtype, seed), *lengths, emission)
        return Case(topology, scores)

    def of_sequence(self, case, scores, b):
        # Past the end, where weights only wait, a path has an index that is not an arc's.
        return jax.tree.map(lambda x: self.by_cell(case, x, b), scores)

    def by_cell(self, case, x, b):
        """Scores ``[T, U + 1]`` of one sequence, whatever their layout."""
        x = np.asarray(x[:, :, b] if case.topology.axis == 0 else x[:, b])
        frames, spaces = self.frames[b], self.labels[b] + 1
        if self.monotonic or self.max_symbols is not None:
            return x[:frames, :spaces]
        return np.array([[x[t + u, u] for u in range(spaces)] for t in range(frames)])

    def paths(self, case, b):
        found = []
        for path in transducer_paths(
            self.frames[b], self.labels[b], self.monotonic, self.max_symbols
        ):
            shape = (self.frames[b], self.labels[b] + 1)
            counts = lattice.TransducerArcs(np.zeros(shape), np.zeros(shape))
            for t, u, is_label in path:
                counts[is_label][t, u] = 1
            found.append(counts)
        return found


class TestFewLabelledSequences(KernelConformance, TransducerConformance):
    """States along the last axis."""


class TestManySequences(KernelConformance, TransducerConformance):
    """States along the first axis, the batch along the last."""

    frames = (3, 2, 1, 3)
    labels = (2, 0, 2, 1)

    def test_the_layout(self):
        assert self.lattice().topology.axis == 0


class TestMonotonic(KernelConformance, TransducerConformance):
    monotonic = True
    frames = (5, 4, 2)
    labels = (2, 3, 3)

    def test_three_labels_do_not_fit_in_two_frames(self):
        assert self.paths(self.lattice(), 2) == []


class TestFewLabelsAFrame(KernelConformance, TransducerConformance):
    max_symbols = 2
    frames = (3, 1)
    labels = (4, 3)

    def test_three_labels_do_not_fit_in_one_frame(self):
        assert self.paths(self.lattice(), 1) == []


class TestDurations(TransducerConformance):
    durations = (0, 2, 3)  # none of 1: weights then wait on an arc that is not the model's
    frames = (5, 4)
    labels = (2, 3)

    def lattice(self, dtype=jnp.float32, seed=0):
        size, frames, spaces = len(self.frames), max(self.frames), max(self.labels) + 1
        keys = jax.random.split(jax.random.key(seed))
        logits = jax.random.normal(keys[0], (size, frames, spaces, 3)).astype(dtype)
        lasting = jax.random.normal(keys[1], (*logits.shape[:3], len(self.durations)))
        return Case(
            *tdt.lattice(
                logits,
                lasting.astype(dtype),
                jnp.ones((size, spaces - 1), int),
                jnp.array(self.frames),
                jnp.array(self.labels),
                0,
                self.durations,
                None,
                0.0,
            )[0][:2]
        )

    def paths(self, case, b):
        used = case.topology.of_blanks, case.topology.of_labels
        found = []
        for path in duration_paths(self.frames[b], self.labels[b], self.durations):
            shape = (self.frames[b], self.labels[b] + 1)
            counts = durations.DurationArcs(*(tuple(np.zeros(shape) for _ in d) for d in used))
            for t, u, is_label, duration in path:
                counts[is_label][used[is_label].index(duration)][t, u] = 1
            found.append(counts)
        return found


@pytest.mark.parametrize("axis", [0, 1])
def test_skewed_arrays_have_diagonals_as_rows(axis):
    x = jnp.arange(24.0).reshape(2, 3, 4)
    y = np.asarray(lattice.skew(x, -1, axis))
    y = y.transpose(2, 0, 1) if axis == 0 else y.transpose(1, 0, 2)
    assert y.shape == (2, 6, 4)
    for n in range(6):
        for u in range(4):
            want = x[:, n - u, u] if 0 <= n - u < 3 else -jnp.ones(2)
            np.testing.assert_array_equal(y[:, n, u], want)


@pytest.mark.parametrize(("is_monotonic", "most"), [(False, None), (True, None), (False, 2)])
def test_ties_emit_labels_as_early_as_possible(is_monotonic, most):
    generator = np.random.default_rng(7)
    batch, frames, spoken = 60, 4, 3
    blank = -generator.integers(0, 2, (batch, frames, spoken + 1)).astype(np.float32)
    label = -generator.integers(0, 2, (batch, frames, spoken)).astype(np.float32)
    found = jaxctc.rnnt_align(blank, label, monotonic=is_monotonic, max_symbols=most)
    ties = 0
    for b in range(batch):
        scores = {}
        for path in transducer_paths(frames, spoken, is_monotonic, most):
            places = tuple(t for t, _, is_label in path if is_label)
            scores[places] = sum((label if y else blank)[b, t, u] for t, u, y in path)
        best = [places for places, score in scores.items() if score == max(scores.values())]
        ties += len(best) > 1
        assert tuple(found.frames[b].tolist()) == min(best, key=lambda places: places[::-1])
    assert ties > batch / 4
