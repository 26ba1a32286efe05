"""A training loop that can be stopped at any time and continued to exactly the same result.

Everything a run depends on is in its checkpoints: weights, optimiser, the position in the data,
and the settings it was started with. The loop works for any Flax NNX model and any Grain iterator.
"""

import json
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from tqdm import tqdm

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
            model=ocp.args.StandardSave(_values(model)), config=ocp.args.JsonSave(config)
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
        args = ocp.args.Composite(model=ocp.args.StandardRestore(_values(model)))
        restored = checkpoints.restore(checkpoints.latest_step(), args=args)
    _fill(model, restored["model"])


def _values(module: nnx.Module | nnx.Optimizer):
    """Returns a module's state as nested dicts of arrays, as Orbax stores them."""
    return nnx.to_pure_dict(nnx.state(module))


def _fill(module: nnx.Module | nnx.Optimizer, values) -> None:
    state = nnx.state(module)
    nnx.replace_by_pure_dict(state, values)
    nnx.update(module, state)


def make_optimizer(
    model: nnx.Module, *, learning_rate: float, weight_decay: float, steps: int
) -> nnx.Optimizer:
    """Returns AdamW; its rate warms up for a tenth of the steps, then falls to 0 as a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps=steps // 10, decay_steps=steps
    )
    matrices = lambda parameters: jax.tree.map(lambda p: p.ndim > 1, parameters)  # noqa: E731
    adamw = optax.adamw(schedule, weight_decay=weight_decay, mask=matrices)
    return nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), adamw), wrt=nnx.Param)


def train(
    train_step: Callable[..., dict[str, jax.Array]],
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    batches: grain.DatasetIterator,
    *,
    out: str | Path,
    steps: int,
    batch_size: int,
    config: dict[str, Any],
    unit: str = "examples",
    log_every: int = 20,
    save_every: int = 250,
) -> None:
    """Trains `model` in place for `steps` steps in all, starting from `out`'s last checkpoint.

    Ctrl-C (or SIGTERM) finishes the step, saves, and ends the program with status 130. After a
    crash, the steps since the last checkpoint are repeated. Either way the result is bit for bit
    that of an uninterrupted run.

    Args:
      train_step: `train_step(model, optimizer, batch)` updates both and returns scalars by name.
      model, optimizer: as built for a new run.
      batches: yields `batch`; its state is saved, so it must be a function of that state.
      out: the directory for `checkpoints/` and `metrics.jsonl`.
      steps: the step to stop after.
      batch_size: examples per batch, for the rate shown.
      config: JSON values, stored with each checkpoint. A run in `out` whose config differs is
        not continued: the program ends and prints the differences.
      unit: what the examples are, for the rate shown.
      log_every: steps between lines in `metrics.jsonl`.
      save_every: steps between checkpoints.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    stop = _StopRequest()
    with open_checkpoints(out) as checkpoints, stop:
        done = _resume(checkpoints, model, optimizer, batches, config, out)
        metrics = _MetricsFile(out / "metrics.jsonl", done)

        def save(step: int) -> None:
            items = ocp.args.Composite(
                model=ocp.args.StandardSave(_values(model)),
                optimizer=ocp.args.StandardSave(_values(optimizer)),
                batches=ocp.args.JsonSave(batches.get_state()),
                config=ocp.args.JsonSave(config),
            )
            checkpoints.save(step, args=items)

        recent, since = [], time.perf_counter()
        with tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True) as bar:
            for step in range(done + 1, steps + 1):
                recent.append(train_step(model, optimizer, next(batches)))
                bar.update()
                if step % log_every == 0 or step == steps:
                    # Only here does the loop wait for the device.
                    values = {k: float(np.mean([r[k] for r in recent])) for k in recent[0]}
                    now = time.perf_counter()
                    values[f"{unit}/s"] = len(recent) * batch_size / (now - since)
                    recent, since = [], now
                    metrics.write(step, values)
                    bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()})
                if stop.requested or step % save_every == 0 or step == steps:
                    save(step)
                    if stop.requested and step < steps:
                        bar.close()
                        print(
                            f"Stopped after step {step} of {steps}. "
                            "The same command continues from there."
                        )
                        raise SystemExit(130)


def _resume(checkpoints, model, optimizer, batches, config, out: Path) -> int:
    """Restores everything from the latest checkpoint and returns its step; 0 if there is none."""
    step = checkpoints.latest_step()
    if step is None:
        return 0
    args = ocp.args.Composite(config=ocp.args.JsonRestore())
    before = checkpoints.restore(step, args=args)["config"]
    # Converted to JSON and back, since tuples become lists.
    if differing := _differences(before, json.loads(json.dumps(config))):
        raise SystemExit(
            f"{out} holds a run with other settings ({'; '.join(differing)}). "
            "Give the same settings to continue it, or another --out."
        )
    args = ocp.args.Composite(
        model=ocp.args.StandardRestore(_values(model)),
        optimizer=ocp.args.StandardRestore(_values(optimizer)),
        batches=ocp.args.JsonRestore(),
    )
    restored = checkpoints.restore(step, args=args)
    _fill(model, restored["model"])
    _fill(optimizer, restored["optimizer"])
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


class _StopRequest:
    """A context that records the first SIGINT or SIGTERM; the second one acts as usual."""

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.requested = True
        signal.signal(number, self._previous[number])

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class _MetricsFile:
    """One JSON object per line; lines that a continued run will write again are removed."""

    def __init__(self, path: Path, step: int):
        self._path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if _step_of(line) <= step))

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line cut off by a crash
