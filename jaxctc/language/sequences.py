"""Whole label sequences read by a scorer: their scores, and the states after them."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks, meshes
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer, State, classes_of, next_segment


def score_sequence(
    scorer: Scorer, labels: checks.ArrayLike, *, final: bool = True, classes: int | None = None
) -> jax.Array:
    """The score of whole label sequences: of all their labels, and of the end.

    Args:
      scorer: A `Scorer`.
      labels: integer ``[*batch, L]``; a sequence ends at its first negative label, as those
        of `Hypotheses` do.
      final: Whether the score of the end is added.
      classes: If given, labels must be below this number. By default the scorer's own number, if
        it has one.

    Returns:
      float ``[*batch]``; ``-inf`` where the scorer forbids a sequence.

    Raises:
      TypeError: If `scorer` is not a scorer, or labels are not integers.
      ValueError: If a label is no class of the scorer.

    Examples:
      >>> import jaxctc
      >>> plate = jaxctc.Grammar([[{1, 2}, {3}]], classes=4).scorer()
      >>> print(jaxctc.score_sequence(plate, [[2, 3], [3, 2]]))
      [  0. -inf]
    """
    labels = _checked(scorer, labels, classes)
    return _score_sequence(scorer, labels, checks.flag("final", final))


def scorer_state(
    scorer: Scorer,
    labels: checks.ArrayLike,
    *,
    state: State | None = None,
    classes: int | None = None,
) -> State:
    """The state of a scorer after label sequences: what the next segment of each goes on from.

    Segments that are decoded one by one then have one context: the state after what was decoded is
    the `scorer_state` of `ctc_beam_search` or `ctc_beam_start`. A lexicon whose words have a
    separator between them must read it too, or the next segment would continue the word.

    What such a search adds counts from the score of the labels before, with that of their end, if
    they may end: the scores of the segments add up to that of the whole.

    Args:
      scorer: A `Scorer`.
      labels: integer ``[*batch, L]``; a sequence ends at its first negative label, as those
        of `Hypotheses` do.
      state: The states before the labels, arrays ``[*batch, ...]``; None means the start.
      classes: If given, labels must be below this number. By default the scorer's own number, if
        it has one.

    Returns:
      A pytree of arrays ``[*batch, ...]``.

    Raises:
      TypeError: If `scorer` is not a scorer, or labels are not integers.
      ValueError: If a label is no class of the scorer, or states do not fit.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> plate = jaxctc.Grammar([[{1}, {2}, {3}]], classes=4).scorer()
      >>> after = jaxctc.scorer_state(plate, [1, 2])
      >>> rest = 5.0 * jnp.eye(4)[jnp.array([0, 3])]
      >>> print(jaxctc.ctc_beam_search(rest, scorer=plate, scorer_state=after).labels[0])
      [ 3 -1]
    """
    labels = _checked(scorer, labels, classes)
    begun = start_states(scorer, labels.shape[:-1], state, "state")
    return _scorer_state(scorer, labels, begun)


def start_states(
    scorer: Scorer, batch: tuple[int, ...], state: State | None, name: str = "scorer_state"
) -> State:
    """The states that sequences begin with: those given, checked, or else the scorer's start."""
    if state is None:
        begun = scorer.start()
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, *jnp.shape(x))), begun)
    known = jax.tree.map(lambda x: x if hasattr(x, "dtype") else np.asarray(x), state)
    language_checks.state(name, known, scorer, batch)
    return jax.tree.map(jnp.asarray, known)


def segment_start(scorer: Scorer, batch: tuple[int, ...], state: State | None) -> tuple[State, Any]:
    """The states that segments begin with, and the scores that they begin with, ``[*batch]``.

    The segment before has the score of its end, which is subtracted. A hotword that has begun in it
    has been taken back there, and is given in advance again.
    """
    begun = start_states(scorer, batch, state)
    if state is None:
        return begun, jnp.zeros(batch)
    first = jax.tree.leaves(begun)[:1]
    return _segment_start(len(batch), *[x.ndim - len(batch) for x in first])(
        scorer, begun, jnp.zeros(batch)
    )


@functools.cache
def _segment_start(axes: int, trailing: int | None = None):
    @meshes.jit(trailing=(None, trailing, 0))
    def run(scorer, state, score):
        def one(state, score):
            state = next_segment(scorer, state)
            end = jnp.asarray(scorer.final(state), score.dtype)
            return state, jnp.where(end > -jnp.inf, score - end, score)

        for _ in range(axes):
            one = jax.vmap(one)
        return one(state, score)

    return run


def _checked(scorer: Scorer, labels: checks.ArrayLike, classes: int | None) -> jax.Array:
    """Label sequences that a scorer can read."""
    language_checks.scorer("scorer", scorer, None)
    language_checks.methods("scorer", scorer)
    labels = checks.integer_array("labels", labels)
    known, most = checks.concrete(labels), classes_of(scorer) if classes is None else classes
    if known is not None and known.size and most is not None and known.max() >= most:
        raise ValueError(f"labels has the value {known.max()}; it must be below {most}.")
    return labels


@meshes.jit(trailing=(None, 1), static_argnums=2)
def _score_sequence(scorer, labels, final):
    def one(labels):
        state, total = read(scorer, labels, scorer.start())
        return total + scorer.final(state) if final else total

    *batch, length = labels.shape
    return jax.vmap(one)(labels.reshape(math.prod(batch), length)).reshape(batch)


@meshes.jit(trailing=(None, 1, None))
def _scorer_state(scorer, labels, state):
    def one(labels, state):
        return read(scorer, labels, state)[0]

    for _ in labels.shape[:-1]:
        one = jax.vmap(one)
    return one(labels, state)


def read(scorer: Scorer, labels: jax.Array, state: State) -> tuple[State, jax.Array]:
    """The state after the labels ``[L]`` before the first negative one, and their score."""

    def step(carry, label):
        state, total, inside = carry
        inside &= label >= 0
        after, score = scorer.extend(state, jnp.maximum(label, 0))
        state = jax.tree.map(lambda x, y: jnp.where(inside, x, y), after, state)
        total = jnp.where(inside, total + jnp.asarray(score, total.dtype), total)
        return (state, total, inside), None

    carry = (state, jnp.zeros_like(scorer.final(state)), jnp.bool_(True))
    (state, total, _), _ = meshes.scan(step, carry, labels)
    return state, total
