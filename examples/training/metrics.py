"""The metrics that a run writes: as lines of JSON, and for TensorBoard."""

import json
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from training.devices import Devices


class Metrics:
    """`metrics.jsonl`, with one JSON object per line, and TensorBoard's files in `tensorboard/`.

    Args:
      out: the directory of both.
      step: the last step done. Metrics of later steps are removed, since a continued run will
        write them again.
    """

    def __init__(self, out: Path, step: int):
        self._path = out / "metrics.jsonl"
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        self._path.write_text("".join(line for line in lines if _step_of(line) <= step))
        # File names hold the time in seconds; the suffix makes them unique within a second.
        self._events = SummaryWriter(
            str(out / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step}"
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._events.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line cut off by a crash


def flops(program: jax.stages.Compiled, devices: Devices) -> float | None:
    """Returns the number of floating-point operations of a step on all devices; None if unknown.

    XLA counts the operations of the compiled program, with one iteration of each loop. So most of
    the recursion of a CTC loss is not counted. The loop over microbatches has the whole network in
    it: therefore the count is multiplied by their number, and with it that of the optimiser, which
    is small.
    """
    counted = (program.cost_analysis() or {}).get("flops", 0)
    return counted * devices.mesh.size * devices.microbatches if counted > 0 else None
