"""The loop: steps, metrics, checkpoints, stopping and continuing."""

import contextlib
import time
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from training.checkpoints import open_checkpoints, resume_run, save_run
from training.devices import Devices, on_one_device
from training.metrics import Metrics, flops
from training.processes import STOPPED, is_first
from training.steps import TrainStep, compile_step, start
from training.stopping import StopRequest


def train(
    train_step: TrainStep,
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    batches: grain.DatasetIterator,
    devices: Devices,
    *,
    out: str | Path,
    steps: int,
    config: dict[str, Any],
    ema: float = 0.0,
    unit: str = "examples",
    log_every: int = 20,
    save_every: int = 250,
) -> None:
    """Trains `model` in place for `steps` steps in all, starting from `out`'s last checkpoint.

    Ctrl-C (or SIGTERM) finishes the step, saves, and ends the program with status 130. After a
    crash, the steps since the last checkpoint are repeated. Either way the result is bit for bit
    that of an uninterrupted run on the same devices, and the same up to rounding on others.

    Args:
      train_step: `train_step(model, optimizer, batch)` updates both and returns scalars by name.
      model, optimizer: as built for a new run. At the end, `model` has the final weights, or their
        average with `ema`, on one device; `optimizer` can't be used again.
      batches: yields the rows `devices.rows` of each batch; its state is saved, so they must be a
        function of that state. Batches may have several shapes: a step is compiled for each.
      devices: the devices to compute on.
      out: the directory for `checkpoints/`, `metrics.jsonl` and `tensorboard/`, shared by all
        processes.
      steps: the step to stop after.
      config: JSON values, stored with each checkpoint. A run in `out` whose config differs is
        not continued: the program ends and prints the differences.
      ema: the decay per step of the averaged weights; 0 for no average.
      unit: what the examples are, for the rate shown.
      log_every: steps between lines in `metrics.jsonl`.
      save_every: steps between checkpoints.
    """
    out = Path(out)
    if is_first():
        out.mkdir(parents=True, exist_ok=True)
    state = start(model, optimizer, devices, ema)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(open_checkpoints(out))
        stop = stack.enter_context(StopRequest())
        done = resume_run(checkpoints, state, batches, config, out)
        metrics = stack.enter_context(Metrics(out, done)) if is_first() else None
        bar = stack.enter_context(
            tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, disable=not is_first())
        )
        programs: dict[Any, tuple[jax.stages.Compiled, float | None]] = {}
        recent, work, since, spent = [], [], 0.0, 0.0
        for step in range(done + 1, steps + 1):
            batch = devices.batch(next(batches))
            shapes = tuple(x.shape for x in jax.tree.leaves(batch))
            if shapes not in programs:
                began = time.perf_counter(), time.process_time()
                program = compile_step(train_step, model, optimizer, devices, ema, state, batch)
                programs[shapes] = program, flops(program, devices)
                # Compilation does not count.
                since += time.perf_counter() - (began[0] if recent else since)
                spent += time.process_time() - (began[1] if recent else spent)
            program, count = programs[shapes]
            state, values = program(state, batch)
            recent.append(values)
            work.append(count)
            bar.update()
            if step % log_every == 0 or step == steps:
                # Only here does the loop wait for the device.
                means = {k: float(np.mean([r[k] for r in recent])) for k in values}
                now = time.perf_counter()
                seconds = (now - since) / len(recent)
                means[f"{unit}/s"] = devices.batch_size / seconds
                bar.set_postfix({k: f"{v:.4g}" for k, v in means.items()})
                means["seconds/step"] = seconds
                means["processor_seconds/step"] = (time.process_time() - spent) / len(recent)
                if None not in work:
                    means["flop/s"] = sum(work) / (now - since)
                recent, work, since, spent = [], [], now, time.process_time()
                if metrics is not None:
                    metrics.write(step, means)
            stopping = stop.after(step) and step < steps
            if stopping or step % save_every == 0 or step == steps:
                save_run(checkpoints, step, state, batches, config)
            if stopping:
                bar.close()
                print(
                    f"Stopped after step {step} of {steps}. The same command continues from there."
                )
                raise SystemExit(STOPPED)
    nnx.update(model, on_one_device(state.average if ema else state.model))
