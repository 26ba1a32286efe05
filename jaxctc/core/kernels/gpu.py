"""The recursion as Pallas kernels for GPUs (Mosaic GPU): one launch for the last state, one for
posteriors.

A block of 128 threads runs one sequence and keeps its states in registers over all frames. States
are shifted through shared memory: a thread writes a state, and its neighbour reads it.
Two buffers alternate, so one barrier per frame is enough. The first kernel can keep the state at
the start of each chunk. The second goes through the chunks backwards: it recomputes the states of
a chunk into shared memory and pulls cotangents back through each step. The step and its derivative
are the topology's own.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxctc.core.kernels.parts import Arrays
from jaxctc.core.kernels.plans import (
    Operands,
    Plan,
    chunks_of,
    in_lists,
    round_up,
    sizes,
    varying_as,
)
from jaxctc.core.kernels.rows import Rows, Sum, survey
from jaxctc.core.semirings import MAX_CHUNK, Semiring

THREADS = 128
MAX_STATES = 1024  # 8 per thread: more would not fit into registers
SHARED_MEMORY = 200 * 2**10  # of the 227 KiB that a block may have on Hopper


def plan(topology, scores, semiring: Semiring) -> Plan | None:
    """The sizes of a run; None if there are more states than `MAX_STATES`. States come last."""
    frames, states, batch, arrays = sizes(topology, scores, semiring)
    states = round_up(states, THREADS)
    if frames == 0 or states > MAX_STATES:
        return None
    # Besides the states of a chunk there are three or four pairs of buffers for shifts.
    most = (SHARED_MEMORY // (4 * states) - 16) // arrays
    most = min(most, MAX_CHUNK)
    return Plan(1, *chunks_of(frames, most, most // 2), states, batch, 1)


class Kernels:
    """The launches, on a GPU or interpreted."""

    def __init__(self, interpret: bool = False):
        self.interpret = interpret

    def forward(self, plan: Plan, operands: Operands, state, scale, keep: bool):
        rows = jax.ShapeDtypeStruct((len(scale), plan.batch, plan.states), scale.dtype)
        shapes = [state, rows]
        if keep:
            shapes.append(jax.ShapeDtypeStruct((plan.chunks, *state.shape), state.dtype))
        state, scale, *kept = self._call(
            _forward, "recursion_forward", plan, operands, [state], shapes
        )
        return state, scale[:, :, :1], kept

    def backward(self, plan: Plan, operands: Operands, kept, cotangents) -> Arrays:
        found = self._call(
            _backward,
            "recursion_backward",
            plan,
            operands,
            [*kept, cotangents],
            [x for x in operands.scores for _ in range(2)],
            [plgpu.SMEM((plan.frames, kept[0].shape[1], plan.states), jnp.float32)],
        )
        first = lax.broadcasted_iota(jnp.int32, found[0].shape, 2) == 0
        return [
            here + jnp.where(first, jnp.sum(summed, 2, keepdims=True), 0)
            for here, summed in zip(found[::2], found[1::2], strict=True)
        ]

    def _call(self, body, name, plan, operands, given, shapes, scratch=()):
        # All barriers are explicit here; the interpreter checks for races.
        lane = plgpu.LoweringSemantics.Lane
        options = plgpu.CompilerParams(lowering_semantics=lane, unsafe_no_auto_barriers=True)
        # Not in jax 0.10, where this module is not used.
        interpreter = getattr(plgpu, "InterpretGPUParams", None)
        interpret = interpreter(detect_races=True) if interpreter and self.interpret else None
        lists = operands.scores, operands.topology, given, shapes, [None, *scratch]
        shifts = survey(plan, operands.form)
        count = sum(len(x) for x in shifts.values())
        buffers = plgpu.SMEM((2 * count * (plan.states + THREADS),), jnp.float32)

        def kernel(*refs):
            scores, topology, given, results, scratch = in_lists(refs, map(len, lists))
            block = _Block(plan, operands.form, scores, topology, shifts, scratch.pop(0))
            body(block, given, results, *scratch)

        kernel.__name__ = name
        return plgpu.kernel(
            kernel,
            out_type=[varying_as(operands.scores[0], x) for x in shapes],
            grid=(plan.batch,),
            grid_names=("sequence",),
            scratch_types=[buffers, *scratch],
            compiler_params=options,
            interpret=interpret,
        )(*operands.scores, *operands.topology, *given)


def _forward(block: "_Block", given, results):
    (start,) = given
    state, scale, *kept = results
    frames = block.plan.frames

    def frame(t, carry):
        arrays, scores = carry
        arrays = block.step(t, arrays, block.weights(scores))
        return arrays, block.scores(t + 1)

    def chunk(c, carry):
        arrays, factor = carry
        for ref in kept:
            block.store(ref.at[c], arrays)
        ahead = block.scores(c * frames)
        arrays, _ = lax.fori_loop(c * frames, (c + 1) * frames, frame, (arrays, ahead))
        return block.rescale(arrays, factor)

    semiring = block.form.recursion.semiring
    one = [block.row(x) for x in jax.tree.leaves(semiring.ones((), jnp.float32))]
    arrays, factor = lax.fori_loop(0, block.plan.chunks, chunk, (block.load(start), one))
    block.store(state, arrays)
    block.store(scale, factor)


def _backward(block: "_Block", given, results, states):
    kept, end = given
    frames, chunks = block.plan.frames, block.plan.chunks

    def chunk(i, cotangents):
        first = (chunks - 1 - i) * frames

        def forward(k, carry):
            arrays, scores = carry
            for j, x in enumerate(arrays):
                states[k, j] = x
            arrays = block.step(k, arrays, block.weights(scores))
            return arrays, block.scores(first + k + 1)

        def backward(i, carry):
            cotangents, scores = carry
            k = frames - 1 - i
            arrays = [block.read(states.at[k, j]) for j in range(states.shape[1])]
            weights = block.weights(scores)
            cotangents, found = block.pull_step(k, arrays, weights, cotangents)
            for ref, row in zip(results, block.pull_weights(weights, found), strict=True):
                ref[first + k, block.sequence] = row
            return cotangents, block.scores(first + k - 1)

        arrays = block.load(kept.at[chunks - 1 - i])
        arrays, _ = lax.fori_loop(0, frames, forward, (arrays, block.scores(first)))
        cotangents = block.pull_rescale(arrays, cotangents)
        ahead = block.scores(first + frames - 1)
        return lax.fori_loop(0, frames, backward, (cotangents, ahead))[0]

    lax.fori_loop(0, chunks, chunk, block.load(end))


class _Block(Rows):
    """A program: its sequence, its threads, and their shared memory."""

    def __init__(self, plan, form, scores, topology, shifts, buffers):
        self.layout = plgpu.Layout.WG_STRIDED((plan.states,), vec_size=1)
        place = plgpu.broadcasted_iota(jnp.int32, (plan.states,), 0, layout=self.layout)
        super().__init__(plan, form, place)
        self.sequence = lax.axis_index("sequence")
        self.buffers, self.stride = buffers, plan.states + THREADS
        self.scores_refs = scores
        self.slots = {"step": 0, "pull_step": len(shifts["step"])}
        self.slot, self.turn = 0, jnp.int32(0)
        self.on_rows = self.topology([self.read(ref.at[self.sequence]) for ref in topology])
        for slot, (up, fill) in enumerate(shifts["step"] + shifts["pull_step"]):
            for turn in range(2):
                # The value shifted in is before the first place, or after the last.
                start = (2 * slot + turn) * self.stride + (0 if up else THREADS)
                buffers[pl.ds(start, plan.states)] = self.row(fill)
        plgpu.commit_smem()

    def row(self, x):
        return plgpu.layout_cast(jnp.broadcast_to(jnp.float32(x), (self.plan.states,)), self.layout)

    def read(self, ref) -> jax.Array:
        # jax 0.10, which this is not for, has an index here.
        return plgpu.load(ref, layout=self.layout, optimized=False)  # pyright: ignore

    def load(self, ref) -> Arrays:
        """The sequence's rows of ``[n, B, P]``."""
        return [self.read(ref.at[i, self.sequence]) for i in range(ref.shape[0])]

    def store(self, ref, rows):
        for i, x in enumerate(rows):
            ref[i, self.sequence] = x

    def scores(self, t) -> tuple[Arrays, Arrays]:
        """The rows of a frame's scores, `t` being clipped to the frames, and their first values."""
        t = lax.max(0, lax.min(t, self.plan.chunks * self.plan.frames - 1))
        rows = [self.read(ref.at[t, self.sequence]) for ref in self.scores_refs]
        return rows, [ref[t, self.sequence, 0] for ref in self.scores_refs]

    def weights(self, scores) -> Arrays:
        rows, firsts = scores
        weights = self.steps.weights(self.form.scores_of(rows))
        firsts = self.steps.weights(self.form.scores_of([self.row(x) for x in firsts]))
        self.firsts = list(zip(weights, firsts, strict=True))
        return weights

    def step(self, t, arrays, weights) -> Arrays:
        self.slot, self.turn = self.slots["step"], lax.rem(t, 2)
        return self.steps.step(self.on_rows, arrays, weights)

    def rescale(self, arrays, scale):
        return self.steps.rescale(self.on_rows, arrays, scale)

    def pull_rescale(self, arrays, cotangents) -> Arrays:
        # Afterwards the step's buffers are reused, which no thread may still be reading.
        plgpu.commit_smem()
        return self.steps.pull_rescale(self.on_rows, arrays, cotangents)

    def pull_step(self, t, arrays, weights, cotangents):
        self.slot, self.turn = self.slots["pull_step"], lax.rem(t, 2)
        return self.steps.pull_step(self.on_rows, arrays, weights, cotangents)

    def pull_weights(self, weights, found) -> Arrays:
        """Two rows per array of scores: cotangents, and a row with a sum for the first place."""
        found = [x if isinstance(x, Sum) else Sum(self.row(0), x) for x in found]
        here = self.steps.pull_weights(weights, [x.here for x in found])
        firsts = [first for _, first in self.firsts]
        summed = self.steps.pull_weights(firsts, [x.of for x in found])
        return [x for pair in zip(here, summed, strict=True) for x in pair]

    def shift(self, moves):
        places = []
        for x, _, up in moves:
            base = (2 * self.slot + self.turn) * self.stride
            self.slot += 1
            self.buffers[pl.ds(base + (1 if up else 0), self.plan.states)] = x
            places.append(base + (0 if up else 1))
        plgpu.commit_smem()
        return [self.read(self.buffers.at[pl.ds(at, self.plan.states)]) for at in places]
