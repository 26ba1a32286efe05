"""The recursion as Pallas kernels for TPUs: one launch for the last state, one for posteriors.

A program runs a block of sequences. Their scores stream from HBM chunk by chunk; the state stays in
registers during a chunk and in VMEM between chunks. The first kernel can keep the state at the
start of each chunk. The second goes through the chunks backwards: it recomputes the states of a
chunk into VMEM and pulls cotangents back through each step. Of frames that are few enough to be
one chunk, the first kernel keeps all states and weights, and nothing is recomputed. The step and
its derivative are the topology's own; only states are shifted differently, by rotating registers.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxctc.core.kernels.parts import Arrays, Steps, steps
from jaxctc.core.kernels.plans import (
    Form,
    Operands,
    Plan,
    chunks_of,
    in_lists,
    round_up,
    sizes,
    varying_as,
)
from jaxctc.core.kernels.retarget import each
from jaxctc.core.semirings import MAX_CHUNK, Semiring, first_state

MIN_CHUNK = 8
VMEM = 12 * 2**20  # of the 16 MiB that a kernel may use on the smallest chips
SUBLANES, LANES = 8, 128  # a register of float32
# Frames per round of a loop: four take 12 % fewer cycles than one. Before jax 0.10.2 Mosaic takes
# only one, or all.
UNROLL = 4 if jax.__version_info__ >= (0, 10, 2) else 1
REGISTERS = 4  # of an array of the state, if there are enough sequences to fill them


def plan(topology, scores, semiring: Semiring) -> Plan | None:
    """The sizes of a run; None if fewer than `MIN_CHUNK` frames of all states fit into VMEM."""
    frames, states, batch, arrays = sizes(topology, scores, semiring)
    axis = topology.axis
    states = round_up(states, SUBLANES if axis == 0 else LANES)
    least = LANES if axis == 0 else SUBLANES
    # More sequences in a program hide the latency of a step, while the state stays in registers.
    block = least * max(
        1, min(-(-batch // least), REGISTERS * SUBLANES * LANES // (states * least))
    )
    # The memory of the second kernel. Inputs and outputs count twice: while one chunk is computed,
    # the next is copied.
    read, other = len(jax.tree.leaves(scores)), 2 * len(jax.tree.leaves(topology)) + 6 * arrays
    kept = arrays + read * len(jax.tree.leaves(semiring.zeros((), jnp.float32)))
    room = VMEM // (4 * states * block) - other
    most = min(room // (4 * read + kept), MAX_CHUNK)
    if frames == 0 or most < min(frames, MIN_CHUNK):
        return None
    whole = frames <= min(room // (4 * read + 2 * kept), MAX_CHUNK)
    chunks = chunks_of(frames, most, most // 2)
    return Plan(axis, *chunks, states, round_up(batch, block), block, whole)


class Kernels:
    """The launches, on a chip, or interpreted by Pallas."""

    def __init__(self, interpret: bool = False):
        self.interpret = interpret
        self.unroll = 1 if interpret else UNROLL  # an interpreter only takes longer to compile

    def forward(self, plan: Plan, operands: Operands, state, scale, keep: bool):
        # Of state and scale only the shapes are used: the kernel makes them, in fewer launches.
        blocks = _Blocks(plan, backwards=False)
        specs = [blocks.of_batch(state), blocks.of_batch(scale)]
        shapes = [state, scale]
        if keep and plan.whole:
            for n in (len(state), _count_weights(operands)):
                kept = jax.ShapeDtypeStruct((plan.frames, n, *state.shape[1:]), state.dtype)
                specs, shapes = [*specs, blocks.of_frames(kept, plan.frames)], [*shapes, kept]
        elif keep:
            kept = jax.ShapeDtypeStruct((plan.chunks, *state.shape), state.dtype)
            specs, shapes = [*specs, blocks.of_frames(kept, 1)], [*shapes, kept]
        state, scale, *kept = self._call(
            _forward, "recursion_forward", plan, operands, blocks, [], specs, shapes, []
        )
        return state, scale, kept

    def backward(self, plan: Plan, operands: Operands, kept, cotangents) -> Arrays:
        blocks = _Blocks(plan, backwards=True)
        tile = plan.shape(plan.block)
        scratch = [pltpu.VMEM((len(cotangents), *tile), jnp.float32)]
        if not plan.whole:
            for n in (kept[0].shape[1], _count_weights(operands)):
                scratch.append(pltpu.VMEM((plan.frames, n, *tile), jnp.float32))
        length = plan.frames if plan.whole else 1
        return self._call(
            _backward,
            "recursion_backward",
            plan,
            operands,
            blocks,
            [*kept, cotangents],
            [blocks.of_frames(x, plan.frames) for x in operands.scores],
            operands.scores,
            [
                *[blocks.of_frames(x, length) for x in kept],
                blocks.of_batch(cotangents),
            ],
            scratch=scratch,
        )

    def _call(
        self,
        kernel,
        name,
        plan,
        operands,
        blocks,
        given,
        specs,
        shapes,
        given_specs,
        scratch=(),
    ):
        form = operands.form
        scores = [blocks.of_frames(x, plan.frames) for x in operands.scores]
        topology = [blocks.of_batch(x) for x in operands.topology]
        counts = len(scores), len(topology), len(given), len(specs), len(scratch)

        def body(*refs):
            kernel(form, steps(form.recursion, _RULES), self.unroll, *in_lists(refs, counts))

        return pl.pallas_call(
            body,
            grid=(plan.batch // plan.block, plan.chunks),
            in_specs=[*scores, *topology, *given_specs],
            out_specs=specs,
            out_shape=[varying_as(operands.scores[0], x) for x in shapes],
            scratch_shapes=scratch,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            name=name,
            interpret=self.interpret,
        )(*operands.scores, *operands.topology, *given)


def _count_weights(operands: Operands) -> int:
    """The number of arrays that the weights of a frame have."""
    return len(operands.scores) * operands.form.recursion.weight.num_leaves


class _Blocks:
    """The part of an array that a program reads or writes at one chunk."""

    def __init__(self, plan: Plan, backwards: bool):
        self.plan, self.backwards = plan, backwards

    def of_batch(self, x) -> pl.BlockSpec:
        """Of an array ``[..., *weight]``: the block's sequences."""
        return pl.BlockSpec(self._shape(x, x.shape[:-2]), lambda b, c: self._at(x.ndim, b))

    def of_frames(self, x, length: int) -> pl.BlockSpec:
        """Of an array ``[T, ..., *weight]``: the block's sequences, `length` of each chunk."""
        last = self.plan.chunks - 1
        return pl.BlockSpec(
            self._shape(x, (length, *x.shape[1:-2])),
            lambda b, c: (last - c if self.backwards else c, *self._at(x.ndim, b)[1:]),
        )

    def _shape(self, x, before) -> tuple[int, ...]:
        batch = 1 - self.plan.axis
        return *before, *(self.plan.block if i == batch else n for i, n in enumerate(x.shape[-2:]))

    def _at(self, ndim: int, block):
        return *[0] * (ndim - 2), *((0, block) if self.plan.axis == 0 else (block, 0))


def _forward(form: Form, steps: Steps, unroll: int, scores, topology, _, results, __):
    """State and scale are carried from chunk to chunk in the outputs, whose blocks stay in VMEM."""
    state, scale, *kept = results

    topology = form.topology_of([ref[...] for ref in topology])

    @pl.when(pl.program_id(1) == 0)
    def _():
        semiring, entries, shape = form.recursion.semiring, topology.entries, state.shape[1:]
        first = first_state(semiring, entries, shape, topology.axis, state.dtype)
        _write(state, jax.tree.leaves(first[0]))
        _write(scale, jax.tree.leaves(first[1]))

    if len(kept) == 1:
        kept[0][0] = state[...]

    def frame(t, arrays):
        weights = steps.weights(form.scores_of([ref[t] for ref in scores]))
        if len(kept) == 2:
            _write(kept[0].at[t], arrays)
            _write(kept[1].at[t], weights)
        return steps.step(topology, arrays, weights)

    arrays = lax.fori_loop(0, scores[0].shape[0], frame, _read(state), unroll=unroll)
    arrays, factor = steps.rescale(topology, arrays, _read(scale))
    _write(state, arrays)
    _write(scale, factor)


def _backward(form: Form, steps: Steps, unroll: int, scores, topology, given, results, scratch):
    """Cotangents are carried from chunk to chunk in scratch memory."""
    *kept, end = given
    carried, *recomputed = scratch
    states, weights = recomputed or kept
    frames = scores[0].shape[0]
    topology = form.topology_of([ref[...] for ref in topology])

    @pl.when(pl.program_id(1) == 0)
    def _():
        carried[...] = end[...]

    def forward(t, arrays):
        here = steps.weights(form.scores_of([ref[t] for ref in scores]))
        _write(states.at[t], arrays)
        _write(weights.at[t], here)
        return steps.step(topology, arrays, here)

    def backward(i, cotangents):
        t = frames - 1 - i
        here = _read(weights.at[t])
        cotangents, found = steps.pull_step(topology, _read(states.at[t]), here, cotangents)
        for ref, x in zip(results, steps.pull_weights(here, found), strict=True):
            ref[t] = x
        return cotangents

    if recomputed:
        arrays = lax.fori_loop(0, frames, forward, _read(kept[0].at[0]), unroll=unroll)
    else:
        last = frames - 1
        arrays = steps.step(topology, _read(states.at[last]), _read(weights.at[last]))
    cotangents = steps.pull_rescale(topology, arrays, _read(carried))
    _write(carried, lax.fori_loop(0, frames, backward, cotangents, unroll=unroll))


def _read(ref) -> Arrays:
    return [ref[i] for i in range(ref.shape[0])]


def _write(ref, arrays):
    for i, x in enumerate(arrays):
        ref[i] = x


def _pad(x, fill, padding_config):
    """Shifts by one place, and padding after a single first place."""
    moved = [axis for axis, (low, high, _) in enumerate(padding_config) if low or high]
    if len(moved) != 1 or x.ndim != 2:
        return NotImplemented
    (axis,) = moved
    low, high, _ = padding_config[axis]
    shape = list(x.shape)
    shape[axis] += low + high
    place = lax.broadcasted_iota(jnp.int32, shape, axis)
    if (low, high) == (1, -1):
        inside, x = place > 0, pltpu.roll(x, 1, axis)
    elif (low, high) == (-1, 1):
        inside, x = place < shape[axis] - 1, pltpu.roll(x, shape[axis] - 1, axis)
    elif x.shape[axis] == 1 and low == 0:
        inside = place == 0
    else:
        return NotImplemented
    return jnp.where(inside, x, fill)


def _round(x, rounding_method):
    """Rounds to even by adding and subtracting 2**23 with the sign of x: half the operations.

    Only from 2**23 on, where all numbers are whole, the result may be another, the next even one.
    """
    if rounding_method != lax.RoundingMethod.TO_NEAREST_EVEN or x.dtype != jnp.float32:
        return NotImplemented
    large = jnp.where(x < 0, jnp.float32(-(2.0**23)), jnp.float32(2.0**23))
    return (x + large) - large


_RULES = {
    "add_any": each(lax.add),
    "pad": each(_pad),
    "round": each(_round),
    "stop_gradient": each(lambda x: x),
}
