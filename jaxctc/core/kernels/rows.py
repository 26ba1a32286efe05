"""A recursion's step on rows of states, of which each thread of a GPU has a part.

`Rows` replaces what such a row can't do as it is: the shift of states, and values of the first
place. Outside a kernel, it records the shifts of a step (`survey`).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core.kernels.parts import steps
from jaxctc.core.kernels.plans import Form, Plan
from jaxctc.core.kernels.retarget import each


class Sum(NamedTuple):
    """A value at the first place only: the sum over all places, computed after the launch."""

    of: jax.Array
    here: jax.Array | None = None  # to be added, at all places


class Rows:
    """A recursion's functions on rows of states; each thread has every 128th state.

    A value with only one place is stored as a row of equal numbers. Outside a kernel, this class
    is used to record the shifts of a step.
    """

    def __init__(self, plan: Plan, form: Form, place: jax.Array):
        self.plan, self.form, self.place = plan, form, place
        self.firsts = []  # pairs: a row, and a row filled with its first value
        self.shifts = []  # recorded shifts: up or down, and the value shifted in
        rules = {
            "pad": self._pad,
            "add_any": each(self._add),
            "broadcast_in_dim": each(self._broadcast),
            "reduce_sum": each(self._sum),
            "reshape": each(self._reshape),
            "slice": each(self._slice),
            "stop_gradient": each(lambda x: x),
        }
        self.steps = steps(form.recursion, rules)

    def topology(self, rows):
        """The topology on rows, whose states are along the only axis."""
        return dataclasses.replace(self.form.topology_of(rows), axis=0)

    def row(self, x) -> jax.Array:
        return jnp.full((self.plan.states,), x, jnp.float32)

    def shift(self, moves: list) -> list:
        """Rows shifted up or down by one place; each move has the value that is shifted in."""
        self.shifts += [(up, fill) for _, fill, up in moves]
        return [jnp.where(self.place == 0, fill, jnp.roll(x, 1)) for x, fill, _ in moves]

    def _pad(self, group):
        def of(operands, padding_config):
            return *operands, tuple(int(n) for n in padding_config[0][:2])

        made = [of(operands, **parameters) for operands, parameters in group]
        moves = [
            (x, fill, edges == (1, -1)) for x, fill, edges in made if edges in ((1, -1), (-1, 1))
        ]
        moved = iter(self.shift(moves) if moves else [])
        return [
            next(moved) if edges in ((1, -1), (-1, 1)) else self._at_first(x, fill)
            for x, fill, edges in made
        ]

    def _at_first(self, x, fill):
        return x if isinstance(x, Sum) else jnp.where(self.place == 0, x, fill)

    def _add(self, a, b):
        if isinstance(b, Sum):
            a, b = b, a
        return a._replace(here=b) if isinstance(a, Sum) else a + b

    def _broadcast(self, x, *, shape, **_):
        return jnp.broadcast_to(x, (self.plan.states,)) if shape == (1,) else NotImplemented

    def _sum(self, x, **_):
        return Sum(x)

    def _reshape(self, x, *, new_sizes, **_):
        return x if new_sizes == (1,) else NotImplemented

    def _slice(self, x, *, limit_indices, **_):
        if limit_indices == (1,):
            return next(first for row, first in self.firsts if row is x)
        return x if limit_indices == x.shape else NotImplemented


def survey(plan: Plan, form: Form) -> dict[str, list]:
    """The shifts of a step, and of its derivative."""
    met = {}

    def run():
        for name in ("step", "pull_step"):
            rows = Rows(plan, form, lax.iota(jnp.int32, plan.states))
            recursion = form.recursion
            arrays = [rows.row(0) for _ in range(recursion.state.num_leaves)]
            weights = rows.steps.weights(
                form.scores_of([rows.row(0)] * recursion.scores.num_leaves)
            )
            rows.firsts = [(x, x) for x in weights]
            topology = rows.topology([rows.place for _ in form.flags])
            if name == "step":
                rows.steps.step(topology, arrays, weights)
            else:
                rows.steps.pull_step(topology, arrays, weights, recursion.split(arrays)[0])
            met[name] = rows.shifts

    jax.eval_shape(run)
    return met
