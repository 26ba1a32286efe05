"""Checks of the arguments of CTC's searches, and of what these hand on."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxctc.core import checks
from jaxctc.ctc.beam_state import BeamState
from jaxctc.decoding.hypotheses import Hypotheses
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer


def beam_state(name: str, value: Any) -> None:
    """Checks that `value` is the state of a beam search."""
    if not isinstance(value, BeamState):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a BeamState.")


def transcripts(name: str, value: Any, logits: checks.ArrayLike | None) -> jax.Array:
    """The labels of transcripts that are to be aligned with logits."""
    if isinstance(value, tuple) or logits is None:
        raise TypeError(
            f"{name} has type {type(value).__name__}; it must be Hypotheses, or labels with logits."
        )
    labels = checks.labels_array(name, value)
    if checks.concrete(value) is None:
        raise TypeError(f"{name} is traced; it must be known, outside `jit`.")
    return labels


def hypotheses(name: str, value: Any) -> None:
    """Checks that `value` is what a decoder returns."""
    if not isinstance(value, Hypotheses):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be Hypotheses.")
    if checks.concrete(value.labels) is None:
        raise TypeError(f"{name} is traced; it must be known, outside `jit`.")


def scorer_of(name: str, state: BeamState, scorer: Scorer | None) -> None:
    """Checks that a search was started with such a scorer."""
    if not language_checks.state_fits(state.beam.scorer_state, scorer, state.beam.last.shape):
        raise ValueError(
            f"{name} was started with another scorer; `ctc_beam_start` must be given the one "
            "that follows."
        )


def weight(
    scorer: Scorer | None,
    value: checks.ArrayLike,
    classes: int | None = None,
    blank_id: int | None = None,
) -> jax.Array:
    """The checked factor of the scores of a scorer, which is checked too."""
    if scorer is not None:
        language_checks.scorer("scorer", scorer, classes)
        language_checks.methods("scorer", scorer)
        if blank_id is not None:
            language_checks.readable("scorer", scorer, blank_id)
    return jnp.asarray(checks.finite("scorer_weight", value))


def thresholds(beam: Any, label: Any, blank_skip: Any) -> list[jax.Array | None]:
    """The thresholds of a search, None where there is none."""
    named = {"beam_threshold": beam, "class_threshold": label}
    found = [x if x is None else checks.real_from_zero(n, x) for n, x in named.items()]
    if blank_skip is not None:
        blank_skip = checks.probability("blank_skip_threshold", blank_skip)
    return [x if x is None else jnp.asarray(x) for x in (*found, blank_skip)]
