"""Errors of loss and gradient in float32, compared with torch's and optax's.

    python -m benchmarks.ctc.exactness

Largest absolute error of the gradient with respect to the logits, and relative error of the loss,
against a textbook forward-backward in float64, on one sequence of T frames: random logits, peaky
ones (one class has 0.999), flat ones, and random logits rounded to bfloat16.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Shape, report, table
from benchmarks.ctc.contestants import JAX_LOSSES

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from oracles import ctc_by_recursion

SIZES = {18: Shape(18, 1, 68, 7), 200: Shape(200, 1, 32, 30)}
SIZES |= {1500: Shape(1500, 1, 32, 250), 5000: Shape(5000, 1, 32, 800)}
SIZES |= {20000: Shape(20000, 1, 32, 1000)}


def logits_of(kind: str, shape: Shape) -> np.ndarray:
    """One sequence of logits [T, C]."""
    generator = np.random.default_rng(0)
    size = shape.frames, shape.classes
    if kind == "flat":
        return np.zeros(size, np.float32)
    if kind == "peaky":
        peak = generator.integers(0, shape.classes, (shape.frames, 1)) == np.arange(shape.classes)
        return np.log(np.where(peak, 0.999, 0.001 / (shape.classes - 1))).astype(np.float32)
    logits = (2 * generator.standard_normal(size)).astype(np.float32)
    return np.asarray(jnp.asarray(logits, jnp.bfloat16)) if kind == "bfloat16" else logits


def with_jax(loss, logits, labels):
    """Loss and gradient of one pair."""
    lengths = jnp.array([len(logits)]), jnp.array([len(labels)])

    def total(x):
        return loss(x, jnp.asarray(labels)[None], *lengths).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(logits)[None])
    return float(value), np.asarray(gradient[0], np.float64)


def with_torch(logits, labels):
    """Loss and gradient of one pair; half precision as float32, which torch's loss needs."""
    import torch

    x = torch.tensor(np.asarray(logits, np.float32)[:, None], requires_grad=True)
    log_probs = torch.nn.functional.log_softmax(x, dim=-1)
    lengths = torch.tensor([len(logits)]), torch.tensor([len(labels)])
    loss = torch.nn.functional.ctc_loss(
        log_probs, torch.tensor(labels)[None], *lengths, reduction="sum"
    )
    loss.backward()
    assert x.grad is not None
    return loss.item(), x.grad[:, 0].numpy().astype(np.float64)


def main():
    sections, data = {}, {}
    for kind in ("random", "peaky", "flat", "bfloat16"):
        rows = []
        for frames, shape in SIZES.items():
            logits = logits_of(kind, shape)
            labels = np.random.default_rng(1).integers(1, shape.classes, shape.labels)
            want, want_gradient = ctc_by_recursion(np.asarray(logits, np.float64), labels, 0)
            row: list[object] = [f"{frames}, {shape.labels}, {shape.classes}"]
            for name in ("jaxctc", "optax", "torch"):
                if name == "torch":
                    loss, gradient = with_torch(logits, labels)
                else:
                    loss, gradient = with_jax(JAX_LOSSES[name], logits, labels)
                error = float(np.abs(gradient - want_gradient).max())
                relative = abs(loss - want) / want
                row += [f"{error:.0e}", f"{relative:.0e}"]
                data[f"{kind}, {frames}, {name}"] = {"gradient": error, "loss": relative}
            rows.append(row)
        header = ["T, S, C"]
        for name in ("jaxctc", "optax", "torch"):
            header += [f"{name}: gradient", "loss"]
        note = "" if kind != "bfloat16" else " (its gradient is returned rounded to bfloat16)"
        sections[f"{kind} logits{note}"] = table(header, rows)
    report("ctc.exactness", sections, data)


if __name__ == "__main__":
    main()
