"""Checks of what CTC's searches hand on."""

from typing import Any

from jaxctc.ctc.beam_state import BeamState
from jaxctc.decoding.hypotheses import Hypotheses


def beam_state(name: str, value: Any) -> None:
    """Checks that `value` is the state of a beam search."""
    if not isinstance(value, BeamState):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be a BeamState.")


def hypotheses(name: str, value: Any) -> None:
    """Checks that `value` is what a decoder returns."""
    if not isinstance(value, Hypotheses):
        raise TypeError(f"{name} has type {type(value).__name__}; it must be Hypotheses.")
