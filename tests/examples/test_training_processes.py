"""Two processes that train one model: stopped together, killed, and restarted."""

import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples()

import jax  # noqa: E402
import tiny_training  # noqa: E402
from training_runs import environment, metrics, weights_of  # noqa: E402

from training import processes  # noqa: E402

SETTINGS = ["--steps=12", "--ema=0.9", "--accumulate=2"]


def both(out: Path, *more: str) -> list[tuple[int, str]]:
    """Runs two processes to their end; returns status and stdout of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, tiny_training.__file__, "--out", str(out), *SETTINGS, *more]
    command += ["--coordinator", address, "--processes=2"]
    started = [
        subprocess.Popen(
            [*command, f"--process-id={i}"],
            env=environment(out.parent / "compiled"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        printed = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    print("\n".join(text for pair in printed for text in pair))  # pytest shows it if a test fails
    return [(process.returncode, out) for process, (out, _) in zip(started, printed, strict=True)]


def weights(out: Path) -> list[np.ndarray]:
    return weights_of(out, tiny_training.build())


def test_two_processes_stopped_and_killed_give_the_run_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    tiny_training.main([*SETTINGS, "--out", str(one)])

    # SIGTERM to one process stops both after the same step.
    (status, printed), other = both(two, "--signal", "1", "4", "SIGTERM")
    assert status == other[0] == 130
    assert "Stopped after step" in printed
    assert "Stopped after step" not in other[1]
    stopped = metrics(two)[-1]["step"]
    assert 4 <= stopped < 9

    # If one process is killed, the other exits too.
    (status, _), other = both(two, "--signal", "0", "11", "SIGKILL")
    assert status == -9
    assert other[0] != 0

    (status, printed), other = both(two)
    assert status == other[0] == 0
    assert "Trained" in printed
    assert "Trained" not in other[1]
    assert [line["step"] for line in metrics(two)] == list(range(1, 13))
    for a, b in zip(metrics(one), metrics(two), strict=True):
        np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-5)
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_processes_with_other_settings_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    gathered = lambda mine: np.array([mine, mine, mine + 1])  # noqa: E731
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gathered)
    with pytest.raises(SystemExit, match="process 2 and process 0 differ in their settings"):
        processes.agree({"seed": 0}, "their settings")


@pytest.mark.parametrize(
    ("tasks", "processes_given", "joins"), [("2", None, True), ("1", None, False), ("2", 1, False)]
)
def test_processes_of_a_slurm_step_are_connected(monkeypatch, tasks, processes_given, joins):
    for name, value in {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": tasks,
    }.items():
        monkeypatch.setenv(name, value)
    called = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **more: called.append(args))
    before = jax.config.values["jax_cpu_collectives_implementation"]
    args = types.SimpleNamespace(processes=processes_given, coordinator=None, process_id=None)
    with processes.joined(args):
        assert called == ([(None, None, None)] if joins else [])
    jax.config.update("jax_cpu_collectives_implementation", before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes=0"], "--processes must be at least 1"),
        (["--processes=2"], "--processes needs --coordinator and --process-id"),
        (["--process-id=0"], "--coordinator and --process-id need --processes"),
        (["--processes=1", "--coordinator=a:1"], "need --processes, and more than 1"),
        (["--processes=2", "--coordinator=a:1", "--process-id=2"], "must be between 0 and 1"),
        (["--steps=0"], "--steps must be at least 1"),
        (["--batch-size=0"], "--batch-size must be at least 1"),
        (["--seed=-1"], "--seed must be at least 0"),
        (["--accumulate=0"], "--accumulate must be at least 1"),
        (["--ema=1"], "--ema must be at least 0 and less than 1"),
        (["--mesh=rows=2"], "--mesh is rows=2; it must be like data"),
    ],
)
def test_bad_options_have_an_error_message(arguments, message, capsys):
    with pytest.raises(SystemExit):
        tiny_training.parse_arguments(arguments)
    assert message in capsys.readouterr().err
