"""What tests of training scripts share: stopping at a step, and comparing what runs leave."""

import json
from pathlib import Path

import numpy as np


def metrics(out: Path) -> list[dict]:
    """The lines of a run's metrics without rates, which are never the same."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("/s")} for line in lines]


def at_step(monkeypatch, module, step: int, action) -> None:
    """Has `action` called just before `module` takes the given step of this process."""
    original, count = module.train_step, iter(range(1, 1000))

    def counted(*arguments, **options):
        if next(count) == step:
            action()
        return original(*arguments, **options)

    monkeypatch.setattr(module, "train_step", counted)


def assert_same_run(one: Path, two: Path, weights) -> None:
    for a, b in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert metrics(one) == metrics(two)
