"""Scores of general automata: the total weight of all paths with one arc per frame.

A path has T arcs for T frames, and leads from a start state to a final one. Its weight is that of
its arcs and of the frames' scores of their labels::

    log w(path) = start[q_0] + Σ_t (weight[a_t] + log_probs[t, label[a_t]]) + final[q_T]

One frame moves weight along all arcs at once. The sum into each state is a scatter-add, whose cost
depends on the number of arcs only, however uneven the degrees are. There are no epsilon arcs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.automata import checks as automata_checks
from jaxctc.automata.arcs import Fsa
from jaxctc.core import checks, meshes, recursion
from jaxctc.core.emissions import wide
from jaxctc.core.semirings import PROBABILITY, Semiring, State, Weight, take


class Frames(NamedTuple):
    """The scores of the frames, frames first; past a sequence's end the state does not change."""

    scores: jax.Array  # [T, C, B], or [T, A, B]
    stay: jax.Array  # [T, B]: 0 past the end, else -inf


class FsaTopology(NamedTuple):
    """The automata of a batch. Index arrays are ``[A]`` if all share one automaton, else [A, B]."""

    source: jax.Array
    destination: jax.Array
    place: jax.Array  # index of the arc's score among those of a frame
    weight: jax.Array  # [A, 1] or [A, B]
    start_weight: jax.Array  # [S, B]
    final_weight: jax.Array  # [S, 1] or [S, B]

    @property
    def axis(self) -> int:
        return 0

    @property
    def neutral(self) -> Frames:
        return Frames(jnp.float32(-jnp.inf), jnp.float32(0))

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        state = (semiring.from_log(self.start_weight.astype(dtype)),)
        return semiring.rescale(state, self.axis)

    def step(self, semiring: Semiring, state: State, weights: Frames) -> State:
        return self.move(semiring, state, weights, self.weight)

    def move(self, semiring: Semiring, state: State, weights: Frames, arcs: jax.Array) -> State:
        """One step with `arcs` as the weights of the arcs."""
        (before,) = state
        moved = semiring.times(take(before, self._rows(self.source)), semiring.from_log(arcs))
        moved = semiring.times(moved, take(weights.scores, self._rows(self.place)))
        shape = self.start_weight.shape
        after = semiring.scatter_sum(moved, self._rows(self.destination), shape)
        stay = jax.tree.map(lambda x: x[None, :], weights.stay)
        return (semiring.plus(after, semiring.times(before, stay)),)

    def finish(self, semiring: Semiring, state: State) -> Weight:
        states, batch = self.start_weight.shape
        total = semiring.times(state[0], semiring.from_log(self.final_weight))
        total = semiring.scatter_sum(total, (jnp.zeros(states, jnp.int32),), (1, batch))
        return jax.tree.map(lambda x: x[0], total)

    def _rows(self, index: jax.Array) -> tuple[jax.Array, ...]:
        return (
            (index,)
            if index.ndim == 1
            else (index, jnp.arange(index.shape[1], dtype=jnp.int32)[None, :])
        )


class Lattice(NamedTuple):
    """Automata and log-probabilities ``[B, T, C]`` in the form the recursion reads."""

    topology: FsaTopology
    scores: Frames
    valid: jax.Array  # bool [B]: are all scores and weights free of NaN and inf, lengths in range?


def lattice(fsa: Fsa, log_probs: jax.Array, lengths: jax.Array) -> Lattice:
    """The lattice of a flat batch. Nothing past a length and no padded arc is ever read."""
    batch, frames, classes = log_probs.shape
    states, arcs = fsa.final.shape[-1], fsa.label.shape[-1]
    shared = fsa.label.ndim == 1
    dtype = wide(log_probs.dtype)
    source, destination, label = (jnp.asarray(x, jnp.int32).T for x in fsa[:3])
    weight, start, final = (jnp.asarray(x).T for x in fsa[3:])
    used = (label >= 0) & (label < classes)
    for state in (source, destination):
        used &= (state >= 0) & (state < states)
    source, destination, label = (jnp.where(used, x, 0) for x in (source, destination, label))
    weight = jnp.where(used, weight, -jnp.inf)

    inside = jnp.arange(frames, dtype=jnp.int32)[None, :] < lengths[:, None]
    scores = jnp.where(inside[:, :, None], log_probs.astype(dtype), -jnp.inf)
    valid = jnp.all(scores < jnp.inf, axis=(1, 2)) & (lengths >= 0) & (lengths <= frames)
    for x in (weight, start, final):
        valid &= jnp.all(x < jnp.inf, axis=0)
    scores = scores.transpose(1, 2, 0)
    if arcs < classes:  # then picking the scores of the arcs first reads less
        batch_index = () if shared else (jnp.arange(batch, dtype=jnp.int32)[None, :],)
        scores, label = scores[:, label, *batch_index], jnp.arange(arcs, dtype=jnp.int32)
    weight, start, final = (
        (x[:, None] if shared else x).astype(dtype) for x in (weight, start, final)
    )
    topology = FsaTopology(
        source, destination, label, weight, jnp.broadcast_to(start, (states, batch)), final
    )
    stay = jnp.where(inside.T, -jnp.inf, 0).astype(dtype)
    return Lattice(topology, Frames(scores, stay), valid)


def fsa_score(
    fsa: Fsa,
    log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    semiring: Semiring = PROBABILITY,
) -> jax.Array:
    r"""The log of the total weight of all paths of an automaton through the frames.

    $$ \log \sum_{a_1 \dots a_T} \exp \Bigl( \mathrm{start}(a_1)
       + \sum_{t=1}^{T} \bigl( w(a_t) + x_t(\ell(a_t)) \bigr) + \mathrm{final}(a_T) \Bigr) $$

    where the sum is over all paths with one arc per frame. The gradient with respect
    to `log_probs` is the posterior of each class at each frame, and with respect to
    ``fsa.weight`` the expected number of times each arc is taken; both are exact in float32
    at any length, as those of `ctc_loss` are.

    Args:
      fsa: One automaton for all sequences, or a batch of them (`Fsa.stack`) with the batch axes
        of `log_probs`.
      log_probs: float ``[*batch, T, C]``: scores of the classes, not normalised here. Normalise
        them first if they are to be probabilities. ``-inf`` masks a class out. Half precision is
        computed in float32.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      semiring: One of `jaxctc.semirings`; `MAX_TROPICAL` gives the score of the best path.

    Returns:
      float ``[*batch]``; ``-inf``, with gradient 0, if no path has that many arcs. If a sequence's
      own scores or weights contain NaN or ``+inf``, its result is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, states or labels are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> fsa = jaxctc.ctc_fsa([1, 2])
      >>> total = jaxctc.fsa_score(fsa, jnp.zeros((4, 3)))
      >>> print(jnp.round(jnp.exp(total)))  # the number of alignments with four frames
      15.0

    References:
      Mohri 2002, "Semiring frameworks and algorithms for shortest-distance problems".
      Hannun et al. 2020, "Differentiable weighted finite-state transducers".
    """
    return _fsa_score(*_checked(fsa, log_probs, logit_lengths), checks.semiring(semiring))


def _checked(fsa, log_probs, logit_lengths):
    log_probs = checks.logits_array("log_probs", log_probs)
    *batch, frames, classes = log_probs.shape
    automata_checks.automaton("fsa", fsa, tuple(batch), classes)
    return (
        fsa,
        log_probs,
        checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames),
    )


def _flat_lattice(fsa, log_probs, lengths):
    """The lattice with all leading batch axes merged into one."""
    if fsa.label.ndim > 1:
        fsa = Fsa(*(x.reshape(lengths.size, x.shape[-1]) for x in fsa))
    log_probs = log_probs.reshape(lengths.size, *log_probs.shape[-2:])
    return lattice(fsa, log_probs, lengths.reshape(-1))


@meshes.jit(trailing=(None, 2, 0), static_argnums=3)
def _fsa_score(fsa, log_probs, lengths, semiring):
    topology, scores, valid = _flat_lattice(fsa, log_probs, lengths)
    log_z = recursion.log_partition(topology, scores, semiring)
    return jnp.where(valid, log_z, jnp.nan).reshape(lengths.shape)


class FsaPath(NamedTuple):
    """The best path. If there is none, the score is ``-inf`` and all else -1.

    Attributes:
      arcs: int32 ``[*batch, T]``: indices into the arrays of the Fsa, -1 past the length.
      labels: int32 ``[*batch, T]``: the label of each arc, -1 past the length.
      score: float ``[*batch]``: log-weight of the path, with the scores of its frames.
    """

    arcs: jax.Array
    labels: jax.Array
    score: jax.Array


class _Numbered(NamedTuple):
    """Frames with one variable each, which is 0.

    The derivative of the best score with respect to it is the index of the arc taken.
    """

    frames: Frames
    number: jax.Array  # [T, B]


class _NumberedTopology(NamedTuple):
    """The automata, with the arc's index times the frame's variable added to each arc's weight."""

    fsa: FsaTopology

    @property
    def axis(self) -> int:
        return self.fsa.axis

    @property
    def neutral(self) -> _Numbered:
        return _Numbered(self.fsa.neutral, jnp.float32(0))

    def start(self, semiring: Semiring, dtype) -> tuple[State, Weight]:
        return self.fsa.start(semiring, dtype)

    def step(self, semiring: Semiring, state: State, weights: _Numbered) -> State:
        frames, number = weights
        arcs = jnp.arange(self.fsa.weight.shape[0], dtype=number.dtype)
        arcs = self.fsa.weight + number[None, :] * arcs[:, None]
        return self.fsa.move(semiring, state, frames, arcs)

    def finish(self, semiring: Semiring, state: State) -> Weight:
        return self.fsa.finish(semiring, state)


def fsa_best_path(
    fsa: Fsa, log_probs: checks.ArrayLike, logit_lengths: checks.ArrayLike | None = None
) -> FsaPath:
    """The best path of an automaton through the frames (Viterbi 1967), arc by arc.

    Arguments and errors are those of `fsa_score`. If arcs into one state tie, the first is
    taken; if final states tie, the first is taken. The path is the derivative of its
    own score; no back-pointers are kept.

    Returns:
      `FsaPath`: int32 ``arcs`` and ``labels [*batch, T]``, float ``score [*batch]``. To
      differentiate the score, use `fsa_score` in ``semirings.MAX_TROPICAL``.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> log_probs = jax.nn.log_softmax(5 * jax.nn.one_hot(jnp.array([0, 1, 1, 0, 1, 2]), 3))
      >>> path = jaxctc.fsa_best_path(jaxctc.ctc_fsa([1, 1, 2]), log_probs)
      >>> print(path.labels)
      [0 1 1 0 1 2]
    """
    return _fsa_best_path(*_checked(fsa, log_probs, logit_lengths))


@meshes.jit(trailing=(None, 2, 0))
def _fsa_best_path(fsa, log_probs, lengths):
    topology, scores, valid = _flat_lattice(fsa, jax.lax.stop_gradient(log_probs), lengths)
    numbered = _Numbered(scores, jnp.zeros_like(scores.stay))
    score, path = recursion.best_path(_NumberedTopology(topology), numbered)
    score = jnp.where(valid, score, jnp.nan)
    found = (score > -jnp.inf)[None, :] & (scores.stay == -jnp.inf)
    arcs = jnp.where(found, path.number, -1).astype(jnp.int32).T.reshape(log_probs.shape[:-1])
    labels = jnp.broadcast_to(
        jnp.asarray(fsa.label, jnp.int32), (*lengths.shape, fsa.label.shape[-1])
    )
    labels = jnp.pad(labels, [(0, 0)] * lengths.ndim + [(1, 0)], constant_values=-1)
    labels = jnp.take_along_axis(labels, arcs + 1, axis=-1)
    return FsaPath(arcs, labels, score.reshape(lengths.shape))
