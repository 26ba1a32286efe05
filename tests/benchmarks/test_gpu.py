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
from benchmarks.common import Shape, random_batch
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
        assert row["added MiB"] > row["temporary MiB"] >= 0
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


def test_memory_of_torch_is_next_to_what_it_compares_with():
    shape = {"shape": "plates"}
    rows = [
        {"part": "kernel", "name": "kernel", **shape, "temporary MiB": 1, "added MiB": 3},
        {"part": "torch", "name": "torch", **shape, "added MiB": 4},
    ]
    found = summary.sections(rows)
    included, without = (
        found[f"Memory of loss and gradient, results {x}included, MiB"] for x in ("", "not ")
    )
    assert included.splitlines()[0] == "|  | kernel | torch |"
    assert included.splitlines()[-1] == "| plates | 3 | 4 |"
    assert without.splitlines()[-1] == "| plates | 1 |"


def test_cudnn_is_not_what_torch_takes_in_its_place():
    torch = pytest.importorskip("torch")
    from benchmarks.gpu import peers

    batch = random_batch(Shape(600, 1, 5, 600))
    row = {"part": "torch", "shape": "single long", "name": "torch, cuDNN"}
    left_out = peers.torch_times(batch, True)
    assert left_out.keys() == {"left out"}
    assert f"fewer than 256 labels, and here are {batch.label_lengths[0]}" in left_out["left out"]
    native = {**row, "name": "torch", "loss and gradient": 1}
    other = {**row, "shape": "plates", "loss and gradient": 2}
    found = summary.sections([native, other, {**row, **left_out}])
    assert "| single long | 1 | – |" in found["Loss and gradient, ms"]
    assert left_out["left out"] in found["What was left out"]
    assert summary.is_good([{**row, **left_out}])
    # On a GPU, how it tells whose kernel torch took.
    scores = torch.zeros(4, 1, 3, requires_grad=True)
    one, length = torch.ones((1, 1), dtype=int), torch.ones(1, dtype=int)
    loss = torch.nn.functional.ctc_loss(scores.log_softmax(2), one, 4 * length, length)
    assert any(name.startswith("CtcLoss") for name in peers.operations(loss))


def test_without_a_gpu_it_refuses(tmp_path):
    folder = tmp_path / "new" / "folder"
    command, environment = [*COMMAND, "--out", str(folder)], {**os.environ}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("JAX finds no GPU; a run needs one")
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())


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

    def row(part, **found):
        rows.append((part, found))
        with open(path, "a") as file:
            file.write(json.dumps({"part": part, **found}) + "\n")

    monkeypatch.setattr(subprocess, "run", fake)
    assert gpu.run_all(path, row, False, {}) == 1
    assert "stopped after its limit" in capsys.readouterr().out.split("### What failed")[1]
    assert rows == [
        ("kernel", {"device": "a GPU", "error": "stopped after its limit of 50 s"}),
        ("torch", {"device": "a GPU", "error": "ended with exit code -11"}),
    ]


def test_the_exit_code_says_whether_all_is_right(monkeypatch, tmp_path, capsys):
    path, limits = tmp_path / "gpu.jsonl", []

    def fake(command, timeout, **_):
        limits.append(timeout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr(gpu, "LIMITS", {"correct": 120})
    right = {"part": "correct", "case": "plates", "largest error": 0.0, "tolerance": 1e-5}
    right |= {"other integers": 0, "right": True}
    missing = {"part": "torch", "name": "torch", "error": "No module named 'torch'"}
    wrong = {**right, "largest error": 0.25, "other integers": 3, "right": False}
    failed = {"part": "kernel", "name": "kernel", "error": "The program has no kernel"}
    for rows, code in [([right, missing], 0), ([right, wrong], 1), ([right, failed], 1)]:
        about = {"part": "machine", "device": "a GPU"}
        path.write_text("\n".join(map(json.dumps, [about, *rows])))
        assert gpu.run_all(path, lambda *_, **__: None, True, {}) == code
    assert min(limits) > 1000  # a dry run may wait for a busy machine
    failures = capsys.readouterr().out.split("### What failed")
    assert "| wrong: error 2e-01, tolerance 1e-05; 3 integers |" in failures[2]


def test_bad_files_and_folders_have_a_sentence(tmp_path, capsys):
    broken, empty = tmp_path / "broken", tmp_path / "empty"
    broken.write_text('{"part": "machine"}\n{"par')
    empty.write_text("")
    for file, message in {
        tmp_path / "none": "can not be read; --keep takes the gpu.jsonl of a run",
        broken: "is no gpu.jsonl of a run",
        empty: "is no gpu.jsonl of a run",
    }.items():
        with pytest.raises(SystemExit, match=message):
            gpu.main(["--keep", str(file)])
    with pytest.raises(SystemExit, match=f"{tmp_path}/gpu.jsonl can not be read"):
        gpu.main(["--keep", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(empty)])
    assert "it must be a folder where files can be written." in capsys.readouterr().err


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
