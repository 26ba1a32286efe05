"""The script for a real GPU runs through on a CPU, with tiny shapes and interpreted kernels."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.common import random_batch
from benchmarks.gpu import correctness, parts, summary
from benchmarks.gpu.correctness import difference

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.gpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The rows of a whole dry run, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    environment = {**os.environ, "OUT": str(folder), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [*COMMAND, "--tiny"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]
    return rows, done.stdout


def of(run, part):
    return [row for row in run[0] if row["part"] == part]


def test_the_first_row_is_the_machine(run):
    about = run[0][0]
    assert about["part"] == "machine"
    assert about["versions"]["jax"]
    assert about["date"]
    assert about["commit"] or not (ROOT / ".git").exists()
    assert "card" in about
    assert all(row["device"] == about["device"] for row in run[0])
    assert {row["part"] for row in run[0]} == gpu.LIMITS.keys()


def test_it_ends_within_eight_minutes():
    assert sum(gpu.LIMITS.values()) <= 8 * 60
    assert gpu.FLAGS.keys() < gpu.LIMITS.keys()


def test_kernels_are_compared_with_the_cpu(run):
    rows = of(run, "correct")
    assert len({row["case"] for row in rows}) == len(rows) >= 9
    for row in rows:
        assert row["right"], row
        assert row["largest error"] <= 1e-5 or "bfloat16" in row["case"]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("kernel", ["kernel"]),
        ("scan", ["scan", "optax"]),
        ("command buffers on", ["kernel", "scan"]),
        ("command buffers off", ["kernel", "scan"]),
        ("unrolled", ["scan, unrolled"]),
        ("transducers", ["kernel", "scan"]),
    ],
)
def test_times(run, part, names):
    rows = [row for row in of(run, part) if row["name"] != "torchaudio"]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert row["loss and gradient"] > 0
        assert row["compile seconds"] > 0
        assert ("kernels" in row) == (row["name"] == "kernel")
        assert gpu.FLAGS.get(part, "") in row.get("flags", "")


@pytest.mark.parametrize(("part", "peers"), [("torch", 2), ("transducers", 1)])
def test_peers_are_timed_or_noted_as_missing(run, part, peers):
    rows = [row for row in of(run, part) if row["name"].startswith("torch")]
    assert len(rows) == peers
    for row in rows:
        if importlib.util.find_spec(row["name"].split(",")[0]):
            assert row["loss and gradient"] > 0
        else:
            assert "No module named" in row["error"]


def test_decoding(run):
    assert [row["name"] for row in of(run, "decoding")] == ["greedy", "beam"]


def test_a_summary_is_printed(run):
    rows, printed = run
    for heading, text in summary.sections(rows).items():
        assert f"### {heading}\n\n{text}" in printed
    assert "| plates |" in summary.sections(rows)["Loss and gradient, ms"]


def test_without_a_gpu_it_refuses(tmp_path):
    command, environment = [*COMMAND, "--out", str(tmp_path)], {**os.environ}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("JAX finds no GPU; a run needs one")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_scan_is_no_kernel():
    """A program that falls back silently must not count as a kernel that is right or fast."""
    rows = []
    notes = parts.Notes("kernel", lambda part, **found: rows.append(found), False, "a GPU")
    notes.shapes = parts.TINY_SHAPES
    parts.ctc_losses(notes, {"kernel": "kernel"}, alone=False)
    (row,) = rows
    assert row["kernels"] == 0
    assert "has no kernel" in row["error"]
    assert "loss and gradient" not in row
    batch = random_batch(parts.TINY_SHAPES["plates"])
    found = correctness.compare(notes, correctness.Case("", jnp.sin, batch[:1]))
    assert found["largest error"] == 0
    assert not found["right"]


def test_what_differs_is_found():
    inf, nan = np.inf, np.nan
    assert difference([np.array([1.0, inf, nan])], [np.array([1.0, inf, nan])]) == (0, 0)
    assert difference([np.array([4.0])], [np.array([2.0])]) == (1, 0)
    assert difference([np.array([1, 2, 3])], [np.array([1, 3, 2])]) == (0, 2)
    for wrong in (inf, nan, -inf):
        assert difference([np.array([wrong])], [np.array([2.0])])[0] > 1e300


def test_a_part_that_stops_or_crashes_has_a_row(monkeypatch, tmp_path, capsys):
    """And the parts after it run."""
    rows = []
    path = tmp_path / "gpu.jsonl"
    path.write_text(json.dumps({"part": "machine", "device": "a GPU"}) + "\n")

    def fake(command, timeout, **_):
        part = command[command.index("--part") + 1]
        if part == "kernel":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, -11 if part == "torch" else 0)

    monkeypatch.setattr(subprocess, "run", fake)
    code = gpu.run_all(path, lambda part, **found: rows.append((part, found)), [], {})
    assert code == 0
    assert rows == [
        ("kernel", {"device": "a GPU", "error": "stopped after its limit of 50 s"}),
        ("torch", {"device": "a GPU", "error": "ended with exit code -11"}),
    ]


def test_a_run_is_kept_for_the_documents(run, monkeypatch, tmp_path):
    rows, _ = run
    path = tmp_path / "gpu.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SystemExit, match="it is of a dry run"):
        summary.keep(path)
    about = {**rows[0], "device": "NVIDIA H100 80GB HBM3", "card": "NVIDIA H100, 580.1"}
    path.write_text("\n".join(map(json.dumps, [*rows, about, *rows[1:]])))
    monkeypatch.setattr(summary, "RESULTS", tmp_path)
    assert gpu.main(["--keep", str(path)]) == 0
    kept = json.loads((tmp_path / "nvidia-h100-80gb-hbm3" / "gpu.json").read_text())
    assert kept["machine"]["device"] == "NVIDIA H100 80GB HBM3"
    assert kept["sections"] == summary.sections(rows)
    assert len(kept["data"]) == len(rows)
