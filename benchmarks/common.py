"""What the benchmarks share: the machine, fair timing, tables and JSON.

Peers are timed in turn, A B C A B C …, in one process, so that a machine whose speed drifts
slows all of them equally. Each turn starts with a call that is not counted, since the threads of
the peer before may still be spinning. The median is reported, with the quartiles as spread.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

RESULTS = Path(__file__).parent / "results"


class Shape(NamedTuple):
    """A batch of ragged sequence pairs."""

    frames: int
    batch: int
    classes: int
    labels: int


SHAPES = {
    "plates": Shape(18, 256, 68, 8),
    "OCR": Shape(80, 64, 6625, 25),
    "BPE speech": Shape(400, 16, 500, 60),
    "character speech": Shape(1500, 8, 32, 250),
    "single long": Shape(6000, 1, 64, 600),
}


class Batch(NamedTuple):
    """Random logits [B, T, C], labels [B, S] and their lengths, as numpy arrays."""

    logits: np.ndarray
    labels: np.ndarray
    logit_lengths: np.ndarray
    label_lengths: np.ndarray


def random_batch(shape: Shape, seed: int = 0) -> Batch:
    """A feasible ragged batch: 80–100 % of the frames, 50–90 % of the labels."""
    generator = np.random.default_rng(seed)
    frames, batch, classes, labels = shape
    return Batch(
        2 * generator.standard_normal((batch, frames, classes), np.float32),
        generator.integers(1, classes, (batch, labels), np.int32),
        generator.integers(int(0.8 * frames), frames + 1, batch, np.int32),
        generator.integers(labels // 2, int(0.9 * labels) + 1, batch, np.int32),
    )


class Timing(NamedTuple):
    """Milliseconds."""

    median: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.lower:.3g}–{self.upper:.3g})"


def time_in_turn(
    contestants: dict[str, Callable[[], object]], rounds: int, calls: int = 3
) -> dict[str, Timing]:
    """Times functions in turn; each must return only when its work is done."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for function in contestants.values():
        function()
    for _ in range(rounds):
        for name, function in contestants.items():
            time.sleep(0.01)
            function()
            for _ in range(calls):
                start = time.perf_counter()
                function()
                times[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: Timing(*(float(np.percentile(t, q)) for q in (50, 25, 75)))
        for name, t in times.items()
    }


def machine() -> dict[str, object]:
    """The machine and the versions that the numbers were measured with."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    versions = {}
    for package in ("jax", "jaxlib", "libtpu", "numpy", "optax", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; floats get three significant digits."""

    def text(x: object) -> str:
        if isinstance(x, float):
            return f"{x:.3g}" if x < 1000 else f"{x:.0f}"
        return str(x)

    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *[[text(x) for x in r] for r in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine_slug(about: dict) -> str:
    """The folder of a machine's results: its processor and cores, as in ``amd-epyc-2-cores``."""
    processor = re.sub(r"\(R\)|\(TM\)|@.*|\b(CPU|Processor)\b", " ", about["processor"])
    return "-".join(re.findall(r"[a-z0-9]+", f"{processor} {about['cores']} cores".lower()))


COMPILED = "compiled"  # the folder of what is compiled for chips, and not timed


def report(
    name: str, sections: dict[str, str], data: object, *, keep: bool = True, timed: bool = True
) -> None:
    """Prints tables under their headings, and saves them with the data for the docs.

    A part of a benchmark is not saved, since it would replace the whole. Each machine has its own
    results; what is compiled and not timed is the same on all.
    """
    about = machine()
    print(f"{name} on {about['cores']} cores of {about['processor']}\n")
    for heading, text in sections.items():
        print(f"### {heading}\n\n{text}\n")
    if not keep:
        return
    content = {"machine": about, "sections": sections, "data": data}
    path = RESULTS / (machine_slug(about) if timed else COMPILED) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def geometric_mean(values: list[float]) -> float:
    """The mean of ratios."""
    return float(np.exp(statistics.fmean(np.log(values))))


def options(description: str | None, rounds: int, shapes: Iterable[str] = ()) -> argparse.Namespace:
    """The command line of a timing benchmark; with names of shapes, it can choose among them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    if names := list(shapes):
        parser.add_argument(
            "--only",
            nargs="+",
            choices=names,
            default=names,
            help="shapes to print; the results are not saved for the documents",
        )
    return parser.parse_args()


# The floor: the least work to normalise logits, and to write a gradient too, one exp each.
read_once = jax.jit(lambda logits: jnp.exp(logits).sum(axis=-1))
write_once = jax.jit(lambda logits: (jnp.exp(logits).sum(axis=-1), 2 * jnp.exp(logits)))


def finished(value: object) -> object:
    """`value`, once jax has computed it."""
    return jax.block_until_ready(value)
