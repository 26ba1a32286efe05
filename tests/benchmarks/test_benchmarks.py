"""The soak test finds faults, and a part of a benchmark is not saved as the whole."""

import importlib
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import common, run
from benchmarks.ctc import soak

ROOT = Path(__file__).parents[2]


def test_a_few_batches(monkeypatch):
    monkeypatch.setattr(soak, "SHAPES", [(4, 12, 5, 4), (3, 5, 4, 0)])
    for index in range(60):
        kind, case = soak.random_case(np.random.default_rng([0, index]))
        assert not list(soak.faults(case)), f"batch {index} ({kind})"


LOGITS = np.zeros((2, 3, 3), np.float32)
# The first pair has one label in two of three frames, the second is infeasible.
CASE = jnp.asarray(LOGITS), np.array([[1, 2], [2, 2]]), np.array([2, 2]), np.array([1, 2])


@pytest.mark.parametrize(
    ("losses", "at", "gradient", "fault"),
    [
        ([1, np.inf], (), 0, None),
        ([np.nan, np.inf], (), 0, "a loss is NaN"),
        ([-1e-7, np.inf], (), 0, "a loss is negative"),
        ([1, np.inf], (0, 1, 1), np.nan, "a gradient is not finite"),
        ([1, 1e5], (), 0, "an infeasible pair has a finite loss"),
        ([1, np.inf], (1, 0), [1, -1, 0], "a pair without a path has a gradient"),
        ([np.inf, np.inf], (), 0, "a feasible pair has an infinite loss"),
        ([1, np.inf], (0, 0, 0), 1e-4, "a row of the gradient does not sum to 0"),
        ([1, np.inf], (0, 2), [1, -1, 0], "padding has a gradient"),
    ],
)
def test_each_fault_is_found(monkeypatch, losses, at, gradient, fault):
    wrong = np.zeros_like(LOGITS)
    if at:
        wrong[at] = gradient
    monkeypatch.setattr(soak, "loss_and_gradient", lambda *case: (np.array(losses), wrong))
    assert list(soak.faults(CASE)) == ([fault] if fault else [])


def test_the_command_finds_each_benchmark(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "no.benchmark"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "no benchmark is named no.benchmark" in done.stderr
    for name in run.TITLES:
        assert importlib.import_module(f"benchmarks.{name}").main


def test_the_documents_say_what_was_measured():
    results = run.last_results()
    assert results.keys() | run.BY_HAND == run.TITLES.keys()
    assert all(results.values())
    assert (ROOT / "docs" / "benchmarks.md").read_text() == run.document(results)
    page = (ROOT / "README.md").read_text()
    assert page == run.readme(page, results)


def test_a_kernel_takes_a_third_of_the_cycles_of_the_scan():
    (cycles,) = run.last_results()["cycles"]
    for name in common.SHAPES:
        found = cycles["data"][name]
        assert 3 * found["kernel"]["cycles"] <= found["scan"]["cycles"], name


def test_the_documents_show_every_machine():
    results = run.last_results()
    speed = results["ctc.speed"][0]
    sections = {"Loss and gradient, milliseconds": "by hand"}
    machines = [{**speed["machine"], "processor": x, "cores": 99} for x in ("abacus", "quipu")]
    results["ctc.speed"] = [
        {**speed, "machine": machines[0]},
        {**speed, "machine": machines[1], "sections": sections},
    ]
    results["ctc.memory"] = [{**results["ctc.memory"][0], "machine": machines[0]}]
    readme = run.readme((ROOT / "README.md").read_text(), results)
    page = run.document(results)
    for processor in ("abacus", "quipu"):
        assert f"jitted, on 99 cores of {processor}:\n\n| " in readme
        assert f"\n* 99 cores of {processor} (" in page
    first, second = readme.split("on 99 cores of quipu:")
    assert "| 1/" in first
    assert "| 1/" not in second  # memory was not measured there
    assert page.count("On 99 cores of abacus:") == len(speed["sections"])
    assert page.count("On 99 cores of quipu:\n\nby hand\n") == 1


def test_the_documents_show_a_gpu_that_ran_them():
    about = {**run.last_results()["launches"][0]["machine"], "card": "A card, driver 1"}
    page = run.document({"gpu": [{"machine": about, "sections": {"Loss, ms": "by hand"}}]})
    assert "## On a GPU\n\n`python -m benchmarks.gpu`, on A card, driver 1 (" in page
    assert "### Loss, ms\n\nby hand\n" in page


@pytest.mark.parametrize(("keep", "timed"), [(True, True), (True, False), (False, True)])
def test_a_part_is_printed_and_not_kept(monkeypatch, tmp_path, capsys, keep, timed):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(
        common, "machine", lambda: {"processor": "Aba(R) CPU @ 2.60GHz", "cores": 99}
    )
    common.report("speed", {"Time": "a table"}, {"plates": 1.0}, keep=keep, timed=timed)
    assert "a table" in capsys.readouterr().out
    folder = "aba-99-cores" if timed else "compiled"
    assert [*tmp_path.glob("*/*")] == ([tmp_path / folder / "speed.json"] if keep else [])
