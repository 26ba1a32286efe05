"""Orbax checkpoints of runs."""

import json
import logging
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from training.processes import agree
from training.steps import State

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
        values = nnx.to_pure_dict(nnx.state(model))
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(values), config=ocp.args.JsonSave(config)
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
        return _config_at(checkpoints, step)


def _config_at(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    args = ocp.args.Composite(config=ocp.args.JsonRestore())
    return checkpoints.restore(step, args=args)["config"]


def load_model(directory: str | Path, model: nnx.Module) -> None:
    """Fills `model` with the weights of a run's latest checkpoint: the averaged ones, if any."""
    with open_checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        held = Path(directory, "checkpoints", str(step), "average").is_dir()
        item = "average" if held else "model"
        state = nnx.state(model)
        # Restored as numpy arrays, so that the devices of the run need not exist here.
        arrays = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(arrays)})
        values = checkpoints.restore(step, args=args)[item]
    nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.asarray, values))
    nnx.update(model, state)


def save_run(
    checkpoints: ocp.CheckpointManager,
    step: int,
    state: State,
    batches: grain.DatasetIterator,
    config: dict[str, Any],
) -> None:
    """Writes everything that is needed to continue after `step`."""
    parts = {name: nnx.to_pure_dict(part) for name, part in state._asdict().items() if part}
    items = ocp.args.Composite(
        **{name: ocp.args.StandardSave(part) for name, part in parts.items()},
        batches=ocp.args.JsonSave(batches.get_state()),
        config=ocp.args.JsonSave(config),
    )
    checkpoints.save(step, args=items)


def resume_run(
    checkpoints: ocp.CheckpointManager,
    state: State,
    batches: grain.DatasetIterator,
    config: dict[str, Any],
    out: Path,
) -> int:
    """Restores `state` and `batches` from the latest checkpoint and returns its step; 0 if none.

    Arrays get the shardings of those in `state`, whatever devices the checkpoint was written on.
    """
    agree(config, "their settings")
    step = checkpoints.latest_step()
    seen = [out.is_dir(), step]
    agree(seen, f"their checkpoints: {out} must be one directory, shared by all")
    if step is None:
        return 0
    # Converted to JSON and back, since tuples become lists.
    now = json.loads(json.dumps(config))
    if differing := _differences(_config_at(checkpoints, step), now):
        raise SystemExit(
            f"{out} holds a run with other settings ({'; '.join(differing)}). "
            "Give the same settings to continue it, or another --out."
        )
    parts = {name: part for name, part in state._asdict().items() if part}
    items = ocp.args.Composite(
        **{name: ocp.args.StandardRestore(nnx.to_pure_dict(part)) for name, part in parts.items()},
        batches=ocp.args.JsonRestore(),
    )
    restored = checkpoints.restore(step, args=items)
    for name, part in parts.items():
        nnx.replace_by_pure_dict(part, restored[name])
    batches.set_state(restored["batches"])
    return step


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} there, {new} here")
    return found
