"""Automata on the recursion, against all their paths."""

import jax
import jax.numpy as jnp
import numpy as np
from conformance import Case, LatticeConformance
from oracles import fsa_paths

import jaxctc
from jaxctc.automata import score as fsa_module


class FsaConformance(LatticeConformance):
    """Weights of arcs are 0 here, since a path is given as counts of the scores."""

    lengths = (4, 2, 3)
    classes = 3

    def automata(self):
        raise NotImplementedError("one automaton, or one for each sequence")

    def lattice(self, dtype=jnp.float32, seed=0):
        fsa = jax.tree.map(jnp.asarray, self.automata())
        fsa = fsa._replace(
            weight=jnp.zeros_like(fsa.weight),
            start=jnp.where(fsa.start > -jnp.inf, 0.0, -jnp.inf),
            final=jnp.where(fsa.final > -jnp.inf, 0.0, -jnp.inf),
        )
        shape = (len(self.lengths), max(self.lengths), self.classes)
        log_probs = (2 * jax.random.normal(jax.random.key(seed), shape)).astype(dtype)
        topology, scores, _ = fsa_module.lattice(fsa, log_probs, jnp.array(self.lengths))
        return Case(topology, scores)

    def of_sequence(self, case, scores, b):
        return jax.tree.map(lambda x: np.asarray(x[..., b]), scores)

    def paths(self, case, b):
        fsa = self.automata()
        fsa = fsa if fsa.label.ndim == 1 else jaxctc.Fsa(*(x[b] for x in fsa))
        place = np.asarray(case.topology.place)
        place = place if place.ndim == 1 else place[:, b]
        found = []
        for first, arcs, last in fsa_paths(fsa, self.lengths[b]):
            if fsa.start[first] > -np.inf and fsa.final[last] > -np.inf:
                counts = jax.tree.map(np.zeros_like, self.of_sequence(case, case.scores, b))
                for t, a in enumerate(arcs):
                    counts.scores[t, place[a]] = 1
                counts.stay[len(arcs) :] = 1
                found.append(counts)
        return found


class TestOneForEach(FsaConformance):
    """Fewer arcs than classes: scores are picked before. The second has no path."""

    classes = 9

    def automata(self):
        return jaxctc.Fsa.stack(
            [jaxctc.ctc_fsa([1]), jaxctc.ctc_fsa([2, 2]), jaxctc.linear_fsa([3, 1, 2])]
        )

    def test_the_second_has_no_path(self):
        assert self.paths(self.lattice(), 1) == []
