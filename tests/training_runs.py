"""What tests of training scripts share: stopping at a step, and comparing what runs leave."""

import json
import os
from pathlib import Path

import numpy as np
from devices import flags

TESTS = Path(__file__).parent


def metrics(out: Path) -> list[dict]:
    """The lines of a run's metrics without times and rates, which are never the same."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    timed = ("/s", "/step")
    return [{k: v for k, v in line.items() if not k.endswith(timed)} for line in lines]


def weights_of(out: Path, model) -> list[np.ndarray]:
    """The weights that a run left in `out`, loaded into a model like the run's."""
    import jax
    from flax import nnx

    import training

    training.load_model(out, model)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


def at_step(monkeypatch, step: int, action) -> None:
    """Calls `action` just before the training loop takes the given step of this process."""
    import training

    original, count = training.Devices.batch, iter(range(1, 1000))

    def counted(*arguments):
        if next(count) == step:
            action()
        return original(*arguments)

    monkeypatch.setattr(training.Devices, "batch", counted)


def environment(compiled: Path, devices: int = 1) -> dict[str, str]:
    """The environment of a Python process with so many devices, which can import the examples.

    Such processes share their compiled programs in the directory `compiled`.
    """
    paths = TESTS.parent, TESTS, TESTS.parent / "examples"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "XLA_FLAGS": flags(devices),
    }


def assert_same_run(one: Path, two: Path, weights) -> None:
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert metrics(one) == metrics(two)
