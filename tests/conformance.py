"""Tests that every lattice must pass: inherit them, and enumerate the paths of the lattice.

A subclass gives `lattice`, and `paths`: for every path of a sequence, how often it uses each score.
The log-weight of a path is the sum of these counts times the scores.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxctc.core import recursion
from jaxctc.core.kernels import choice, dispatch, tpu
from jaxctc.core.semirings import LOG, MAX_TROPICAL, PROBABILITY

posteriors_of = jax.jit(recursion.posteriors, static_argnums=2)
best_path_of = jax.jit(recursion.best_path)
log_partition_of = jax.jit(recursion.log_partition, static_argnums=2)


if dispatch.GPU:
    from jaxctc.core.kernels import gpu

# Kernels that can be interpreted here: of GPUs only with jax 0.11 or later.
INTERPRETERS = ["tpu", "gpu"] if dispatch.GPU else ["tpu"]


class Case(NamedTuple):
    """A batch of lattices: `sequence(scores, b)` are the scores of one of them."""

    topology: Any
    scores: Any


class LatticeConformance:
    """Inherit and implement the first three."""

    def lattice(self, dtype=jnp.float32, seed=0) -> Case:
        raise NotImplementedError("a conformance suite says what its lattice is")

    def paths(self, case: Case, b: int) -> list[Any]:
        """All paths of sequence b: pytrees like `of_sequence` gives, of counts."""
        raise NotImplementedError("a conformance suite says what its paths are")

    def of_sequence(self, case: Case, scores: Any, b: int) -> Any:
        """The part of `scores` which belongs to sequence b, as numpy arrays in a pytree."""
        raise NotImplementedError("a conformance suite says where a sequence's scores are")

    def by_enumeration(self, case, b):
        """log Z, posteriors, the best score and the best path of one sequence."""
        scores = [
            np.asarray(x, np.float64)
            for x in jax.tree.leaves(self.of_sequence(case, case.scores, b))
        ]
        paths = [jax.tree.leaves(p) for p in self.paths(case, b)]
        if not paths:
            nothing = [np.zeros_like(s) for s in scores]
            return -np.inf, nothing, -np.inf, nothing
        with np.errstate(invalid="ignore"):
            weights = np.array(
                [
                    sum(np.where(n > 0, n * s, 0).sum() for n, s in zip(p, scores, strict=True))
                    for p in paths
                ]
            )
        log_z = np.logaddexp.reduce(weights)
        share = np.exp(weights - log_z)
        posteriors = [
            sum(w * p[i] for w, p in zip(share, paths, strict=True)) for i in range(len(scores))
        ]
        best = int(weights.argmax())
        return log_z, posteriors, weights[best], paths[best]

    def assert_those_of_all_paths(self, case, log_z, posteriors):
        for b in range(len(log_z)):
            want_z, want, *_ = self.by_enumeration(case, b)
            np.testing.assert_allclose(log_z[b], want_z, rtol=2e-6, atol=2e-6)
            for x, y in zip(
                jax.tree.leaves(self.of_sequence(case, posteriors, b)), want, strict=True
            ):
                np.testing.assert_allclose(x, y, atol=2e-6)

    @pytest.mark.parametrize("semiring", [PROBABILITY, LOG], ids=["probability", "log"])
    def test_totals_and_posteriors_are_those_of_all_paths(self, semiring):
        for seed in range(3):
            case = self.lattice(seed=seed)
            self.assert_those_of_all_paths(case, *posteriors_of(*case, semiring))

    def test_best_path_is_the_best_of_all_paths(self):
        for seed in range(3):
            case = self.lattice(seed=seed)
            score, path = best_path_of(*case)
            for b in range(len(score)):
                *_, want_score, want = self.by_enumeration(case, b)
                np.testing.assert_allclose(score[b], want_score, rtol=2e-6, atol=2e-6)
                for x, y in zip(
                    jax.tree.leaves(self.of_sequence(case, path, b)), want, strict=True
                ):
                    np.testing.assert_array_equal(x, y)

    def test_chunks_change_nothing(self, monkeypatch):
        case = self.lattice()
        whole = posteriors_of(*case)
        monkeypatch.setattr(recursion, "MAX_CHUNK", 2)  # the last chunk is then padded
        monkeypatch.setattr(recursion, "MIN_CHUNK", 2)
        chunked = jax.jit(lambda *case: recursion.posteriors(*case))(*case)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), whole, chunked)

    def test_forward_and_reverse_mode_agree(self):
        with jax.enable_x64(True):
            topology, scores = self.lattice(jnp.float64)
            finite = jax.tree.map(lambda x: x > -jnp.inf, scores)
            tangent = jax.tree.map(lambda x: jnp.where(x > -jnp.inf, jnp.sin(x), 0), scores)
            value, along = jax.jit(
                lambda x, dx: jax.jvp(lambda s: recursion.log_partition(topology, s), [x], [dx])
            )(scores, tangent)
            log_z, gradient = posteriors_of(topology, scores)
            np.testing.assert_allclose(value, log_z, rtol=1e-15)
            products = jax.tree.map(
                lambda g, t, m: jnp.where(m, g * t, 0).sum(), gradient, tangent, finite
            )
            np.testing.assert_allclose(along.sum(), sum(jax.tree.leaves(products)), rtol=1e-12)

    def test_hessian_vector_product_is_the_difference_of_gradients(self):
        with jax.enable_x64(True):
            topology, scores = self.lattice(jnp.float64)
            direction = jax.tree.map(lambda x: jnp.where(x > -jnp.inf, jnp.cos(x), 0), scores)
            gradient = jax.jit(jax.grad(lambda s: recursion.log_partition(topology, s)[0]))
            _, product = jax.jvp(gradient, [scores], [direction])
            step = 1e-6
            ahead = gradient(jax.tree.map(lambda x, d: x + step * d, scores, direction))
            behind = gradient(jax.tree.map(lambda x, d: x - step * d, scores, direction))
            difference = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, atol=1e-8), product, difference
            )

    def test_the_same_bits_every_time_and_under_jit(self):
        case = self.lattice()
        first, second = posteriors_of(*case), posteriors_of(*case)
        jax.tree.map(np.testing.assert_array_equal, first, second)
        eager = recursion.posteriors(*case)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), first, eager)

    def test_frames_without_scores_leave_the_total_as_it_is(self):
        topology, scores = self.lattice()
        more = jax.tree.map(
            lambda x, fill: jnp.concatenate([x, jnp.broadcast_to(fill, x[:3].shape)]),
            scores,
            topology.neutral,
        )
        for semiring in (PROBABILITY, MAX_TROPICAL):
            np.testing.assert_allclose(
                log_partition_of(topology, scores, semiring),
                log_partition_of(topology, more, semiring),
                rtol=1e-6,
            )


class KernelConformance:
    """A lattice that has kernels inherits this as well, before its suite."""

    @pytest.fixture(params=INTERPRETERS)
    def interpreter(self, request):
        with choice.interpreted(request.param):
            yield request.param

    def test_kernels_give_what_all_paths_give(self, interpreter):
        case = self.lattice()
        assert dispatch.applies(*case, PROBABILITY)
        found = posteriors_of(*case)
        self.assert_those_of_all_paths(case, *found)
        # This is the kernel that keeps no states for a second launch.
        np.testing.assert_array_equal(log_partition_of(*case), found[0])

    def test_chunks_of_kernels_change_nothing(self, interpreter, monkeypatch):
        for module in [tpu, gpu] if dispatch.GPU else [tpu]:
            monkeypatch.setattr(module, "MAX_CHUNK", 2)
        monkeypatch.setattr(tpu, "MIN_CHUNK", 2)
        case = self.lattice()
        # The last chunk is padded, if frames are odd.
        found = jax.jit(lambda *case: recursion.posteriors(*case))(*case)
        self.assert_those_of_all_paths(case, *found)
