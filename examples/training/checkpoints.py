"""Orbax checkpoints of runs."""

import logging
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from flax import nnx

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every save


def open_checkpoints(directory: str | Path, *, read_only: bool = False) -> ocp.CheckpointManager:
    """Returns the checkpoints in a run's directory; saves are atomic."""
    options = ocp.CheckpointManagerOptions(
        max_to_keep=2,
        read_only=read_only,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(Path(directory).absolute() / "checkpoints", options=options)


def save_model(directory: str | Path, model: nnx.Module, config: dict[str, Any]) -> None:
    """Writes a checkpoint of a model and its config, without optimiser and data."""
    with open_checkpoints(directory) as checkpoints:
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(values_of(model)), config=ocp.args.JsonSave(config)
        )
        checkpoints.save(0, args=items)


def load_config(directory: str | Path) -> dict[str, Any]:
    """Returns the config of a run's latest checkpoint."""
    if not (Path(directory) / "checkpoints").is_dir():
        raise SystemExit(f"{directory}: no checkpoint there")
    with open_checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise SystemExit(f"{directory}: no checkpoint there")
        return checkpoints.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))[
            "config"
        ]


def load_model(directory: str | Path, model: nnx.Module) -> None:
    """Fills `model` with the weights of a run's latest checkpoint."""
    with open_checkpoints(directory, read_only=True) as checkpoints:
        args = ocp.args.Composite(model=ocp.args.StandardRestore(values_of(model)))
        restored = checkpoints.restore(checkpoints.latest_step(), args=args)
    fill(model, restored["model"])


def values_of(module: nnx.Module | nnx.Optimizer):
    """Returns a module's state as nested dicts of arrays, as Orbax stores them."""
    return nnx.to_pure_dict(nnx.state(module))


def fill(module: nnx.Module | nnx.Optimizer, values) -> None:
    state = nnx.state(module)
    nnx.replace_by_pure_dict(state, values)
    nnx.update(module, state)
