"""The recursion: one `lax.scan` that every objective of the package runs.

A topology says which states there are and how one frame moves weight between them; a semiring
says what sums and products of weights are. The scan takes the state from frame to frame::

    state_0 = start,   state_t = step(state_{t-1}, scores_t),   Z = finish(state_T)

Posteriors and best paths are gradients of log Z; there is no other code for them.

The scan is cut into chunks of a few dozen frames. Chunks are checkpointed, so that
differentiation keeps one state per chunk and recomputes the rest. Between chunks, weights are
rescaled.

If `jaxctc.kernels.use` asks for a kernel and the platform has one, it runs instead of the scan.
"""

from collections.abc import Callable
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import meshes
from jaxctc.core.kernels import dispatch
from jaxctc.core.kernels.plans import chunks_of
from jaxctc.core.semirings import (
    MAX_CHUNK,
    MAX_TROPICAL,
    PROBABILITY,
    Semiring,
    State,
    Weight,
)

MIN_CHUNK = 24
# Frames per round of the inner loop, by the platform that JAX uses by default. On a GPU two are
# nearly half the launches and compile little longer; see docs/accelerators.md. To leave it to the
# platform that a program is lowered for, both loops would be traced, which takes twice the time.
UNROLL = {"gpu": 2}

Scores = chex.ArrayTree  # arrays of log-scores with the frames as leading axis


class Topology(Protocol):
    """How one frame moves weight between states, in any semiring.

    A topology that may run as a kernel has ``entries``, for its start is `semirings.first_state` of
    them. Its scores have the shape of weights, and its step moves weights only by `semirings.shift`
    and reads only arrays of that shape.
    """

    @property
    def axis(self) -> int:
        """The axis of a weight that runs over the states; the others are batch axes."""
        ...

    @property
    def neutral(self) -> Scores:
        """The scores of a frame that does not change the total."""
        ...

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        """The state before the first frame and its scale, as `rescale` returns them."""
        ...

    def step(self, semiring: Semiring, state: State, weights: Any) -> State:
        """The state after one more frame; `weights` are its scores as weights of the semiring."""
        ...

    def finish(self, semiring: Semiring, state: State) -> Weight:
        """The total weight, without the axis of the states."""
        ...


def states_axis(batch: int, states: int) -> int:
    """Where the states are: the longer axis is last, along the vector registers.

    An exported program may have symbols for sizes, which cannot be compared: then states are last.
    """
    return 0 if isinstance(batch, int) and isinstance(states, int) and batch > states else 1


def log_partition(
    topology: Topology, scores: Scores, semiring: Semiring = PROBABILITY
) -> jax.Array:
    """Log of the total weight of all paths, ``log Z``; ``-inf`` where there is no path.

    Args:
      topology: The states and arcs.
      scores: Log-scores of the arcs, arrays ``[T, ...]`` as the topology reads them.
      semiring: What sums and products are; `Probability` by default.

    Returns:
      ``log Z``, one number per sequence.
    """
    if dispatch.applies(topology, scores, semiring):
        return dispatch.log_partition(topology, scores, semiring, _SCAN)
    return _log_partition(topology, scores, semiring)


def _log_partition(topology: Topology, scores: Scores, semiring: Semiring) -> jax.Array:
    state, scale, _ = _scan(topology, scores, semiring, lambda state, scale: None)
    return _finish(topology, semiring, state, scale)


def _finish(topology: Topology, semiring: Semiring, state: State, scale: Weight) -> jax.Array:
    total = topology.finish(semiring, state)
    scale = jax.tree.map(lambda x: jnp.squeeze(x, topology.axis), scale)
    return semiring.to_log(semiring.times(total, scale))


def negative_log_likelihood(log_z: jax.Array) -> jax.Array:
    """``-log_z``, clipped to be never negative, as `never_negative` does."""
    return never_negative(-log_z)


def never_negative(x: jax.Array) -> jax.Array:
    """`x`, clipped to be never negative, since rounding may make it so; with the same gradient."""
    return x + lax.stop_gradient(jnp.maximum(-x, 0))


def never_positive(x: jax.Array) -> jax.Array:
    """`x`, clipped to be never positive, with the same gradient."""
    return x + lax.stop_gradient(jnp.minimum(-x, 0))


def posteriors(
    topology: Topology, scores: Scores, semiring: Semiring = PROBABILITY
) -> tuple[jax.Array, Any]:
    """``log Z`` and its gradient: the posterior of every arc at every frame.

    Returns:
      ``log Z``, and for every array of `scores` one of the same shape. Where there is no
      path, all posteriors are 0.
    """
    if dispatch.applies(topology, scores, semiring):
        return dispatch.posteriors(topology, scores, semiring, _SCAN)
    return _posteriors(topology, scores, semiring)


def _posteriors(topology: Topology, scores: Scores, semiring: Semiring) -> tuple[jax.Array, Any]:
    log_z, pullback = jax.vjp(lambda scores: _log_partition(topology, scores, semiring), scores)
    return log_z, pullback(jnp.ones_like(log_z))[0]


_SCAN = dispatch.Way(_log_partition, _posteriors, _finish)


def best_path(topology: Topology, scores: Scores) -> tuple[jax.Array, Any]:
    """Score of the best path, and for every arc and frame 1 if the path uses it, else 0."""
    return posteriors(topology, scores, MAX_TROPICAL)


def forward_log_weights(
    topology: Topology, scores: Scores, semiring: Semiring = PROBABILITY
) -> tuple[jax.Array, ...]:
    """Log-weights of all states after every frame (the forward variables), arrays ``[T, ...]``."""
    frames = jax.tree.leaves(scores)[0].shape[0]

    def observe(state: State, scale: Weight) -> tuple[jax.Array, ...]:
        return tuple(semiring.to_log(semiring.times(w, scale)) for w in state)

    observed = _scan(topology, scores, semiring, observe)[2]
    return tuple(x.reshape(-1, *x.shape[2:])[:frames] for x in observed)


def _scan(
    topology: Topology,
    scores: Scores,
    semiring: Semiring,
    observe: Callable[[State, Weight], Any],
) -> tuple[State, Weight, Any]:
    """The last state, its scale, and all results of `observe`, arrays ``[chunks, frames, …]``."""
    leaf = jax.tree.leaves(scores)[0]
    state, scale = topology.start(semiring, leaf.dtype)
    chunks, frames = chunks_of(leaf.shape[0], MAX_CHUNK, MIN_CHUNK)

    def chunked(x: jax.Array, neutral: jax.Array) -> jax.Array:
        missing = chunks * frames - x.shape[0]
        if missing:
            padding = jnp.broadcast_to(neutral.astype(x.dtype), (missing, *x.shape[1:]))
            x = jnp.concatenate([x, padding])
        # Without axes of size 1: for them XLA chooses another layout, and copies the scores.
        return x.reshape(chunks, frames, *(d for d in x.shape[1:] if d != 1))

    def run_chunk(carry, chunk):
        state, scale = carry
        chunk = jax.tree.map(lambda x, whole: x.reshape(frames, *whole.shape[1:]), chunk, scores)
        # Per chunk, not per step: one vectorised pass over data that is still in the cache.
        weights = jax.tree.map(semiring.from_log, chunk)

        def run_frame(state, weights):
            state = topology.step(semiring, state, weights)
            return state, observe(state, scale)

        unroll = UNROLL.get(jax.default_backend(), 1)
        state, observed = meshes.scan(run_frame, state, weights, unroll=unroll)
        state, factor = semiring.rescale(state, topology.axis)
        return (state, semiring.times(scale, factor)), observed

    if chunks > 1:
        # Inside a scan, XLA can not merge the recomputation with the first computation anyway.
        run_chunk = jax.checkpoint(run_chunk, prevent_cse=False)
    chunked_scores = jax.tree.map(chunked, scores, topology.neutral)
    (state, scale), observed = meshes.scan(run_chunk, (state, scale), chunked_scores)
    return state, scale, observed
