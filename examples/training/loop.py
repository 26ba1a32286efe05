"""The loop: steps, metrics, checkpoints, stopping and continuing."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from tqdm import tqdm

from training.checkpoints import fill, open_checkpoints, values_of
from training.metrics import MetricsFile
from training.stopping import StopRequest


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
    stop = StopRequest()
    with open_checkpoints(out) as checkpoints, stop:
        done = _resume(checkpoints, model, optimizer, batches, config, out)
        metrics = MetricsFile(out / "metrics.jsonl", done)

        def save(step: int) -> None:
            items = ocp.args.Composite(
                model=ocp.args.StandardSave(values_of(model)),
                optimizer=ocp.args.StandardSave(values_of(optimizer)),
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
        model=ocp.args.StandardRestore(values_of(model)),
        optimizer=ocp.args.StandardRestore(values_of(optimizer)),
        batches=ocp.args.JsonRestore(),
    )
    restored = checkpoints.restore(step, args=args)
    fill(model, restored["model"])
    fill(optimizer, restored["optimizer"])
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
