"""Everything about the losses on a GPU, in 8 minutes: right, fast, and with how much memory.

    python -m benchmarks.gpu                      # all parts, in order of importance
    python -m benchmarks.gpu --part correct       # only this one, in this process
    python -m benchmarks.gpu --tiny               # a dry run, on any machine
    python -m benchmarks.gpu --keep               # writes results/<card>/gpu.json, for run.py

Each part is a process with a time limit of its own, and appends its results to ``gpu.jsonl`` in
`--out` (or `$OUT`, or here) as it goes, so that what is done is kept. A part that is stopped or
crashes has a row that says so. The first row is the machine. It needs jax for CUDA and optax; peers
that are not installed are noted as such. The exit code is 0 if all parts ran and all values are
right. `benchmarks/launches.py` tells what compilers say without a GPU.

This module starts the parts. It must not import jax, which reads its settings on import.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What runs, in order of importance, and for how many seconds at most: 8 minutes in all. A process
# takes some 15 s to start on a fresh machine.
LIMITS = {
    "machine": 30,
    "correct": 120,
    "kernel": 50,
    "torch": 45,
    "transducers": 45,
    "scan": 75,
    "command buffers on": 25,
    "command buffers off": 25,
    "unrolled": 40,
    "decoding": 25,
}
PATIENCE = 20  # a dry run may take so many times as long: it says nothing about time
FLAGS = {
    "command buffers on": "--xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL,WHILE "
    "--xla_gpu_graph_min_graph_size=1",
    "command buffers off": "--xla_gpu_enable_command_buffer=",
}


def run_all(path: Path, row: Callable[..., None], tiny: bool, environment: dict) -> int:
    """Runs all parts as processes; the exit code, 0 if there is a GPU and nothing fails on it."""
    start, device = time.monotonic(), None
    options = ["--out", str(path.parent), *(["--tiny"] if tiny else [])]
    for part, limit in LIMITS.items():
        limit *= PATIENCE if tiny else 1
        command = [sys.executable, "-m", __name__, "--part", part, *options]
        flags = f"{environment.get('XLA_FLAGS', '')} {FLAGS.get(part, '')}".strip()
        fault = None
        try:
            code = subprocess.run(
                command, cwd=ROOT, env={**environment, "XLA_FLAGS": flags}, timeout=limit
            ).returncode
            if part == "machine":
                if code:
                    return code  # it has said why
                device = json.loads(path.read_text().splitlines()[-1])["device"]
            fault = f"ended with exit code {code}" if code else None
        except subprocess.TimeoutExpired:
            fault = f"stopped after its limit of {limit} s"
        if fault:
            row(part, device=device, error=fault)
        print(f"{part} ended at {time.monotonic() - start:.0f} s", flush=True)
    from benchmarks.gpu import summary

    rows = summary.read(path)
    for heading, text in summary.sections(rows).items():
        print(f"\n### {heading}\n\n{text}")
    return 0 if summary.is_good(rows) else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", choices=LIMITS, help="run one part, in this process")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on the CPU")
    parser.add_argument("--out", default=os.environ.get("OUT", "."), help="folder of the results")
    parser.add_argument(
        "--keep",
        metavar="FILE",
        nargs="?",
        const="",
        help="write these results for the documents; default: gpu.jsonl of --out",
    )
    given = parser.parse_args(arguments)
    path = Path(given.out).resolve() / "gpu.jsonl"
    if given.keep is not None:
        from benchmarks.gpu import summary

        print(summary.keep(Path(given.keep or path)))
        return 0

    with contextlib.suppress(OSError):  # what is wrong is said below
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK | os.X_OK) or not path.parent.is_dir():
        parser.error(f"--out is {given.out}; it must be a folder where files can be written.")

    def row(part: str, **found):
        """Appends one result, and prints it."""
        text = json.dumps({"part": part, **found})
        print(text, flush=True)
        with open(path, "a") as file:
            file.write(text + "\n")

    os.environ["JAX_PLATFORMS"] = "cpu" if given.tiny else "cuda,cpu"
    if given.part:
        from benchmarks.gpu import parts

        parts.run(given.part, row, given.tiny)
        return 0
    return run_all(path, row, given.tiny, dict(os.environ))
