"""A recursion on plain lists of arrays, as all kernels use it.

A state is a tuple of weights, and a weight is one or two arrays; kernels hold these in a list. The
first array of a weight has a derivative (it is "moving"). The second, the exponent of an
extended-range float, is a constant ("fixed").
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxctc.core.kernels.retarget import Rules, retarget
from jaxctc.core.semirings import Semiring
from jaxctc.core.xfloat import derivatives_at_once

Arrays = list[jax.Array]


class Recursion(NamedTuple):
    """The structure of states and weights, and the functions of a frame on lists of arrays.

    The topology and the scores given to them consist of arrays that a kernel has loaded.
    """

    semiring: Semiring
    state: Any  # the tree structure of a state
    weight: Any  # that of a weight
    scores: Any  # that of a frame's scores

    def split(self, arrays) -> tuple[Arrays, Arrays]:
        """The arrays that have derivatives (moving), and the others (fixed)."""
        every = self.weight.num_leaves
        fixed = [x for i, x in enumerate(arrays) if i % every]
        return list(arrays[::every]), fixed

    def join(self, moving, fixed) -> Arrays:
        """The inverse of `split`."""
        every, fixed = self.weight.num_leaves, iter(fixed)
        return [x for first in moving for x in (first, *(next(fixed) for _ in range(every - 1)))]

    def weights(self, scores) -> Arrays:
        """The weights of a frame's scores."""
        return jax.tree.leaves(jax.tree.map(self.semiring.from_log, scores))

    def step(self, topology, arrays, weights) -> Arrays:
        """The state after one more frame."""
        state = jax.tree.unflatten(self.state, arrays)
        weights = jax.tree.unflatten(self.scores, self._in_weights(weights))
        state = topology.step(self.semiring, state, weights)
        return jax.tree.leaves(state)

    def rescale(self, topology, arrays, scale) -> tuple[Arrays, Arrays]:
        """The state back in range, and the scale times the factor divided out."""
        state = jax.tree.unflatten(self.state, arrays)
        state, factor = self.semiring.rescale(state, topology.axis)
        scale = self.semiring.times(jax.tree.unflatten(self.weight, scale), factor)
        return jax.tree.leaves(state), jax.tree.leaves(scale)

    def _in_weights(self, arrays) -> list:
        every = self.weight.num_leaves
        parts = [arrays[i : i + every] for i in range(0, len(arrays), every)]
        return [jax.tree.unflatten(self.weight, part) for part in parts]

    def pull_weights(self, weights, cotangents) -> Arrays:
        """Cotangents of a frame's scores, from those of the moving arrays of its weights."""
        pairs = zip(self._in_weights(weights), cotangents, strict=True)
        return [self.semiring.pull_from_log(weight, cotangent) for weight, cotangent in pairs]

    def pull_step(self, topology, arrays, weights, cotangents) -> tuple[Arrays, Arrays]:
        """Cotangents of the moving arrays of a state and of weights, from the next state's."""
        moving, fixed = self.split(arrays)
        moving_weights, fixed_weights = self.split(weights)

        def forward(moving, weights):
            arrays, weights = self.join(moving, fixed), self.join(weights, fixed_weights)
            return self.split(self.step(topology, arrays, weights))[0]

        with derivatives_at_once():  # a kernel keeps nothing for them
            return jax.vjp(forward, moving, moving_weights)[1](cotangents)

    def pull_rescale(self, topology, arrays, cotangents) -> Arrays:
        """Cotangents of a state's moving arrays, from those of the state back in range."""
        moving, fixed = self.split(arrays)

        def forward(moving):
            state = jax.tree.unflatten(self.state, self.join(moving, fixed))
            return self.split(jax.tree.leaves(self.semiring.rescale(state, topology.axis)[0]))[0]

        return jax.vjp(forward, moving)[1](cotangents)[0]


class Steps(NamedTuple):
    """A recursion's functions, with the operations of a platform."""

    weights: Callable
    step: Callable
    rescale: Callable
    pull_weights: Callable
    pull_step: Callable
    pull_rescale: Callable


def steps(recursion: Recursion, rules: Rules) -> Steps:
    """The functions of a recursion, with some operations replaced by a platform's."""
    return Steps(*(retarget(getattr(recursion, name), rules) for name in Steps._fields))


def take_apart(topology, scores, semiring: Semiring) -> tuple[Recursion, Arrays, Arrays]:
    """The recursion of a topology, and the arrays of its first state and of its scale."""
    leaves, tree = jax.tree.flatten(scores)
    state, scale = topology.start(semiring, leaves[0].dtype)
    recursion = Recursion(semiring, jax.tree.structure(state), jax.tree.structure(scale), tree)
    return recursion, jax.tree.leaves(state), jax.tree.leaves(scale)
