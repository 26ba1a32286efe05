"""Alignment of token-and-duration transducers: posteriors of arcs, and the best path."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.semirings import MAX_TROPICAL, PROBABILITY
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import durations as duration_lattice
from jaxctc.transducer.lattice import TransducerArcs, cells, flat_pair, unflatten
from jaxctc.transducer.tdt import log_probs_of


def tdt_posteriors(
    token_logits: checks.ArrayLike,
    duration_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    blank_id: int = 0,
    max_symbols: int | None = None,
) -> TransducerArcs:
    """Posterior probability of every arc of the lattice and of each duration, given the labels.

    Arguments and errors are those of `tdt_loss`.

    Returns:
      `TransducerArcs` with an axis of durations, float ``blank [*batch, T, U + 1, D]`` and
      ``label [*batch, T, U, D]``. Each label sums to 1 over frames and durations. Past a
      length, and where there is no path, all are 0; if a sequence's own logits contain NaN,
      all within its lengths are NaN.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> tokens, durations = jnp.zeros((2, 2, 3)), jnp.zeros((2, 2, 2))
      >>> found = jaxctc.tdt_posteriors(tokens, durations, jnp.array([1]), durations=(0, 1))
      >>> print(jnp.round(8 * found.label[:, 0]))  # at frame 0 with both durations, or at frame 1
      [[1. 6.]
       [1. 0.]]
    """
    given = token_logits, duration_logits, labels, logit_lengths, label_lengths
    of_durations, pair, known = transducer_checks.timed_pair(*given, durations, blank_id)
    most = transducer_checks.most_symbols(max_symbols)
    return _posteriors_of_batches(of_durations, *pair, known, most)


@meshes.jit(trailing=(3, 3, 1, 0, 0), static_argnums=(5, 6, 7))
def _posteriors_of_batches(
    duration_logits, logits, labels, logit_lengths, label_lengths, blank_id, durations, most
):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    duration_logits = duration_logits.reshape(*flat[0].shape[:-1], len(durations))
    found = _posteriors(duration_logits, *flat, blank_id, durations, most, PROBABILITY)
    return unflatten(found.arcs, logits.shape[:-3])


class _Posteriors(NamedTuple):
    value: jax.Array  # log Z, [B]
    arcs: TransducerArcs
    label: jax.Array  # the labels' own log-probabilities [B, T, U]


def _posteriors(
    duration_logits,
    logits,
    labels,
    logit_lengths,
    label_lengths,
    blank_id,
    durations,
    max_symbols,
    semiring,
) -> _Posteriors:
    """``log Z`` of flat batches, and its gradient in any semiring."""
    lengths = logit_lengths, label_lengths
    tokens, log_probs, broken = log_probs_of(logits, duration_logits, labels, *lengths, blank_id)
    places = {d: i for i, d in enumerate(durations)}

    def log_z(blank, label):
        by_blank = {d: blank[..., i] for d, i in places.items() if d > 0}
        by_label = {d: label[..., i] for d, i in places.items()}
        found = duration_lattice.lattice(by_blank, by_label, *lengths, max_symbols)
        return duration_lattice.total(found, broken, semiring)

    of_blanks = tokens.blank[..., None] + log_probs
    of_labels = tokens.label[..., None] + log_probs[:, :, :-1]
    value, pullback = jax.vjp(log_z, of_blanks, of_labels)
    blank, label = pullback(jnp.ones_like(value))
    _, frames, spaces, _ = logits.shape
    inside = cells(frames, spaces, *lengths)[..., None]
    unknown = broken[:, None, None, None] & inside
    blank = jnp.where(unknown, jnp.nan, jnp.where(inside, blank, 0))
    label = jnp.where(unknown[:, :, 1:], jnp.nan, jnp.where(inside[:, :, 1:], label, 0))
    return _Posteriors(value, TransducerArcs(blank, label), tokens.label)


class TDTAlignment(NamedTuple):
    """Where each label is and how long. If there is no path, scores are ``-inf``, frames -1.

    Attributes:
      frames: int32 ``[*batch, U]``: the frame each label is emitted at, -1 past the length.
      durations: int32 ``[*batch, U]``: the frames it advances, 0 past the length.
      scores: float ``[*batch, U]``: its own log-probability there, 0 past the length.
      score: float ``[*batch]``: of the whole path, with blanks and durations.
    """

    frames: jax.Array
    durations: jax.Array
    scores: jax.Array
    score: jax.Array


def tdt_align(
    token_logits: checks.ArrayLike,
    duration_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    blank_id: int = 0,
    max_symbols: int | None = None,
) -> TDTAlignment:
    """The most probable path of the labels through the lattice, with durations (Viterbi).

    Arguments and errors are those of `tdt_loss`.

    Returns:
      `TDTAlignment`: ``frames``, ``durations`` and ``scores [*batch, U]``, ``score [*batch]``. If a
      sequence's own logits contain NaN, scores are NaN and frames are -1.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> tokens = 5 * jax.nn.one_hot(jnp.array([[0, 0], [1, 0], [0, 0], [0, 0]]), 3)
      >>> lasting = 5 * jax.nn.one_hot(jnp.array([[0, 0], [1, 0], [0, 0], [0, 0]]), 2)
      >>> found = jaxctc.tdt_align(tokens, lasting, jnp.array([1]), durations=(1, 2))
      >>> print(found.frames, found.durations)
      [1] [2]
    """
    given = token_logits, duration_logits, labels, logit_lengths, label_lengths
    of_durations, pair, known = transducer_checks.timed_pair(*given, durations, blank_id)
    most = transducer_checks.most_symbols(max_symbols)
    return _align(of_durations, *pair, known, most)


@meshes.jit(trailing=(3, 3, 1, 0, 0), static_argnums=(5, 6, 7))
def _align(
    duration_logits, logits, labels, logit_lengths, label_lengths, blank_id, durations, most
):
    flat = flat_pair(logits, labels, logit_lengths, label_lengths)
    duration_logits = duration_logits.reshape(*flat[0].shape[:-1], len(durations))
    found = _posteriors(duration_logits, *flat, blank_id, durations, most, MAX_TROPICAL)
    taken = found.arcs.label > 0
    place = lax.broadcasted_iota(jnp.int32, taken.shape, 1)
    lasting = jnp.broadcast_to(jnp.asarray(np.array(durations, np.int32)), taken.shape)
    used = jnp.any(taken, axis=(1, 3))
    frames = jnp.sum(jnp.where(taken, place, 0), axis=(1, 3), dtype=jnp.int32)
    lasting = jnp.sum(jnp.where(taken, lasting, 0), axis=(1, 3), dtype=jnp.int32)
    scores = jnp.sum(jnp.where(jnp.any(taken, axis=3), found.label, 0), axis=1)
    wanted = lax.broadcasted_iota(jnp.int32, used.shape, 1) < flat[3][:, None]
    nothing = jnp.where(jnp.isnan(found.value), jnp.nan, -jnp.inf).astype(scores.dtype)
    scores = jnp.where(wanted & ~used, nothing[:, None], scores)
    result = TDTAlignment(jnp.where(used, frames, -1), lasting, scores, found.value)
    batch = logits.shape[:-3]
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), result)
