"""The script for a real GPU runs through on a CPU, part by part, with tiny shapes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rows_of(part, folder):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--part", part]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [*command, "--out", str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "gpu.jsonl").read_text().splitlines()]


def test_kernels_are_compared_with_the_cpu(tmp_path):
    rows = rows_of("correct", tmp_path)
    assert len(rows) == 4
    assert all(row["loss error"] < 1e-6 and row["gradient error"] < 1e-6 for row in rows)


@pytest.mark.parametrize(("part", "count"), [("unrolled", 2), ("scan", 4)])
def test_times(tmp_path, part, count):
    rows = rows_of(part, tmp_path)
    assert len(rows) == count
    assert all(row["loss and gradient"] > 0 and row["compile seconds"] > 0 for row in rows)


@pytest.mark.parametrize(("part", "peers"), [("torch", 4), ("transducers", 1)])
def test_peers_are_timed_or_noted_as_missing(tmp_path, part, peers):
    rows = [row for row in rows_of(part, tmp_path) if row["name"].startswith("torch")]
    assert len(rows) == peers
    for row in rows:
        if importlib.util.find_spec(row["name"].split(",")[0]):
            assert row["loss and gradient"] > 0
        else:
            assert "No module named" in row["error"]


def test_decoding(tmp_path):
    assert [row["name"] for row in rows_of("decoding", tmp_path)] == ["greedy", "beam"]
