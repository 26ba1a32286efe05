"""The same run on one device and on eight, up to rounding."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples()

import jax  # noqa: E402
import tiny_training  # noqa: E402
from training_runs import environment, metrics, weights_of  # noqa: E402

import training  # noqa: E402
from training.devices import mesh_shape, parse_mesh  # noqa: E402

MESHES = ["data=1", "data", "data=4,model=2"]

PROGRAM = textwrap.dedent("""
    import sys
    import jax, tiny_training, training
    from flax import nnx

    out = sys.argv[1]
    settings = ["--ema=0.9", "--accumulate=2"]

    def run(name, mesh, *more):
        tiny_training.main([*settings, "--out", f"{out}/{name}", "--mesh", mesh, *more])

    for mesh in sys.argv[2:]:
        run(mesh, mesh)

    # Stopped on one device, continued on eight, stopped, and continued on one.
    for step, mesh in [(2, "data=1"), (5, "data=4,model=2")]:
        try:
            run("moved", mesh, "--signal", "0", str(step), "SIGINT")
        except SystemExit as stopped:
            assert stopped.code == 130
        else:
            raise AssertionError("not stopped")
    run("moved", "data=1")

    devices = training.Devices("data=4,model=2", 16)
    head = devices.place(nnx.state(tiny_training.build()))["head"]
    shards = {name: value[...].addressable_shards for name, value in head.items()}
    assert {s.data.shape for s in shards["kernel"]} == {(16, 4)}
    assert {s.data.shape for s in shards["bias"]} == {(4,)}
    assert len({s.device for s in shards["kernel"]}) == 8
    # The axis does not divide the classes, so the inputs are sharded.
    odd = {"head": {"kernel": jax.numpy.ones((16, 7)), "bias": jax.numpy.ones(7)}}
    head = devices.place(odd)["head"]
    assert {s.data.shape for s in head["kernel"].addressable_shards} == {(8, 7)}
    assert {s.data.shape for s in head["bias"].addressable_shards} == {(7,)}
""")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), *MESHES],
        env=environment(out / "compiled", devices=8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


def losses(out: Path) -> np.ndarray:
    assert [line["step"] for line in metrics(out)] == list(range(1, 9))
    return np.array([line["loss"] for line in metrics(out)])


def weights(out: Path) -> list[np.ndarray]:
    return weights_of(out, tiny_training.build())


@pytest.mark.parametrize("name", [*MESHES[1:], "moved"])
def test_another_mesh_gives_the_same_run_up_to_rounding(runs, name):
    one = runs / MESHES[0]
    assert losses(one)[-1] < 0.6 * losses(one)[0]
    np.testing.assert_allclose(losses(runs / name), losses(one), rtol=1e-5)
    for a, b in zip(weights(one), weights(runs / name), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "devices", "shape"),
    [
        ("data", 8, (8, 1)),
        ("data=4", 8, (4, 1)),
        ("model=2", 8, (4, 2)),
        ("data,model=4", 8, (2, 4)),
        ("model,data=4", 8, (4, 2)),
        ("data=1,model=1", 1, (1, 1)),
    ],
)
def test_mesh_shapes(text, devices, shape):
    assert mesh_shape(text, devices) == shape


@pytest.mark.parametrize(
    "text", ["", "batch=2", "data=0", "data=-1", "data=x", "data=", "data,data", "data=2,model=2,"]
)
def test_bad_meshes_are_refused(text):
    with pytest.raises(ValueError, match=f"--mesh is {text}; it must be like data, data=4"):
        parse_mesh(text)


def test_meshes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must give one of the two axes a size"):
        parse_mesh("data,model")
    for text in ("data=9", "model=3", "data=4,model=4"):
        with pytest.raises(ValueError, match=f"{text}; it must fit the number of devices, 8"):
            mesh_shape(text, 8)
    with pytest.raises(SystemExit, match="model=2; it must fit the number of devices, 1"):
        training.Devices("model=2", 16)
    with pytest.raises(
        SystemExit, match="16; it must be a multiple of 1 devices on the data axis "
    ):
        training.Devices("data", 16, microbatches=3)


@pytest.mark.parametrize("rows", [range(16), range(4), range(12, 16)])
def test_rows_are_those_of_the_global_batch(rows):
    whole = tiny_training.training_batches(range(16))
    part = tiny_training.training_batches(rows)
    for _ in range(3):
        a, b = next(whole), next(part)
        jax.tree.map(np.testing.assert_array_equal, {k: v[rows] for k, v in a.items()}, b)
    assert whole.get_state() == part.get_state()
