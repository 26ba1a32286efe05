"""Checkpoints of recognisers: directories of runs, or files of weights."""

from pathlib import Path
from typing import Any

from flax import nnx

import training
from recognition import weights


def load_config(checkpoint: str | Path) -> dict[str, Any]:
    """Returns the settings in a run's directory or a file of weights.

    Raises:
      SystemExit: If there is no such checkpoint or file.
    """
    source = weights if weights.is_weights(checkpoint) else training
    return source.load_config(checkpoint)


def load_into(checkpoint: str | Path, model: nnx.Module) -> None:
    """Fills `model` with the weights of a run's latest checkpoint, or of a file."""
    if weights.is_weights(checkpoint):
        weights.load_weights(checkpoint, model)
    else:
        training.load_model(checkpoint, model)
