"""The prefixes of a beam, and what stays the same while they are searched."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.language.scorer import Scorer

NOTHING = -(2**30)  # the length in an empty place of the beam, which has no parent and no child


class Beam(NamedTuple):
    """The prefixes of a beam, in any order; arrays begin with ``[B, W]``."""

    blank: jax.Array  # log-probability of the alignments that end in a blank
    label: jax.Array  # log-probability of the alignments that end in the last label
    best_blank: jax.Array  # log-probability of the best single alignment of each kind
    best_label: jax.Array
    last: jax.Array  # int32: the last label, -1 where there is none
    length: jax.Array  # int32
    high: jax.Array  # uint32: the prefix's hash
    low: jax.Array  # uint32: and its second word
    parent_high: jax.Array  # uint32: the hash of the prefix without its last label
    parent_low: jax.Array
    scorer_state: Any  # a pytree, () without a scorer
    scorer_score: jax.Array
    # Of prefixes for which there was no room, a bound of the rank that the best would have by now.
    lost: jax.Array  # [B]
    full: jax.Array  # bool [B]: was it ever above all that were kept?


class Search(NamedTuple):
    """What stays the same over the frames of a search."""

    chosen: np.ndarray | None  # the candidates considered; None with a scorer, which takes all
    max_labels: int
    capped: bool  # may there be more frames than `max_labels`?
    scorer: Scorer | None
    weight: jax.Array  # of its scores
    threshold: jax.Array | None  # how far below the best a prefix may be


def start(width: int, dtype, scorer_state: Any, scorer_score: jax.Array) -> Beam:
    """A beam of the empty prefix and W - 1 empty places.

    The scorer's state and score, ``[B]``, have the batch's axis.
    """
    batch = scorer_score.shape[0]
    first = jnp.broadcast_to((jnp.arange(width, dtype=jnp.int32) == 0)[None, :], (batch, width))
    nothing = jnp.full((batch, width), -jnp.inf, dtype)
    sure = jnp.where(first, jnp.zeros((), dtype), nothing)
    integers = jnp.zeros((batch, width), jnp.int32)
    words = jnp.zeros((batch, width), jnp.uint32)
    return Beam(
        blank=sure,
        label=nothing,
        best_blank=sure,
        best_label=nothing,
        last=integers - 1,
        length=jnp.where(first, integers, NOTHING),
        high=words,
        low=words,
        parent_high=words,
        parent_low=words,
        scorer_state=jax.tree.map(
            lambda x: jnp.broadcast_to(x[:, None], (batch, width, *x.shape[1:])), scorer_state
        ),
        scorer_score=jnp.broadcast_to(scorer_score.astype(dtype)[:, None], (batch, width)),
        lost=nothing[:, 0],
        full=jnp.zeros(batch, bool),
    )
