"""What searches of several families do with a scorer, beside asking it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer, extend_scores
from jaxctc.language.sequences import segment_start


class Fusion(NamedTuple):
    """A scorer, if there is one, and the factor of its scores."""

    scorer: Scorer | None
    weight: jax.Array

    def total(self, score: jax.Array, scorer_score: jax.Array) -> jax.Array:
        """What hypotheses are ranked by."""
        return score if self.scorer is None else score + self.weight * scorer_score

    def added(self, states: Any, like: jax.Array) -> jax.Array:
        """The scorer's scores of every class after N states, an array like ``[N, classes]``."""
        scorer = self.scorer
        assert scorer is not None
        every = jnp.arange(like.shape[1], dtype=jnp.int32)
        score = jax.vmap(lambda state: extend_scores(scorer, state, every), axis_size=like.shape[0])
        return score(states).astype(like.dtype)


def weight(scorer: Scorer | None, value: checks.ArrayLike, classes: int | None = None) -> jax.Array:
    """The checked factor of a checked scorer's scores."""
    if scorer is not None:
        language_checks.scorer("scorer", scorer, classes)
        language_checks.methods("scorer", scorer)
    return jnp.asarray(checks.finite("scorer_weight", value))


def start(
    scorer: Scorer | None, batch: tuple[int, ...], state: Any = None
) -> tuple[Any, jax.Array]:
    """The scorer's states before the first label, and the scores that they begin with.

    The states are those given as `scorer_state`, which are checked, or else the scorer's start.
    """
    if scorer is not None:
        return segment_start(scorer, batch, state)
    if state is not None:
        raise ValueError("scorer_state is given without a scorer; it must be given with one.")
    return (), jnp.zeros(batch)


def ended(scorer: Scorer | None, state: Any, score: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The scorer's scores with those of the end, and where it allows an end; arrays of any axes.

    Where it does not, its score is that of the labels so far.
    """
    if scorer is None:
        return score, jnp.ones_like(score, bool)
    final = scorer.final
    for size in reversed(score.shape):
        final = jax.vmap(final, axis_size=size)
    last = final(state).astype(score.dtype)
    complete = last > -jnp.inf
    return jnp.where(complete, score + last, score), complete


def order(scores: jax.Array, total: jax.Array, complete: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The places ``[N]`` of one beam's hypotheses, the best first, and which of them exist.

    Those that may end come first. Of equals, the first of the beam.

    Args:
      scores: Log-probabilities ``[N]``, NaN of a sequence whose logits have one.
      total: Those with the scorer's weighted scores.
      complete: Which may end.
    """
    rank = jnp.where(scores > -jnp.inf, total, -jnp.inf)
    place = lax.iota(jnp.int32, rank.size)
    _, rank, place = lax.sort((~complete, -rank, place), num_keys=3)
    return place, rank < jnp.inf
