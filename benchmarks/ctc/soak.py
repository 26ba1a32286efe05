"""A soak test: ten thousand random batches, and whether any of them breaks the loss.

    python -m benchmarks.ctc.soak [--batches 10000] [--seed 0]

Ragged, infeasible, empty and zero-frame pairs, masked classes, logits up to ±1e4 and ±1e30, pairs
as confident as 1e-30, bfloat16 and float16, NaN in padding. For each: no NaN, no negative loss, the
gradient finite with rows that sum to 0 and zeros in padding, and infeasible pairs exactly inf and
0. Shapes are few, so that programs are compiled once. The exit code is 1 if anything broke.
"""

import argparse
import sys
import time
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jaxctc
from benchmarks.common import report, table

SHAPES = [(4, 12, 5, 4), (16, 7, 3, 3), (2, 60, 9, 25), (1, 1, 2, 1), (3, 5, 4, 0)]
BATCHES = 10_000
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]


@jax.jit
def loss_and_gradient(logits, labels, frames, lengths):
    losses, pullback = jax.vjp(lambda x: jaxctc.ctc_loss(x, labels, frames, lengths), logits)
    return losses, pullback(jnp.ones_like(losses))[0]


def random_case(generator):
    """The kind of the logits, and the arguments of the loss."""
    batch, frames, classes, width = SHAPES[generator.integers(len(SHAPES))]
    kind = generator.choice(["plain", "huge", "vast", "confident", "masked", "flat"])
    labels = generator.integers(1, classes, (batch, width))
    logits = generator.standard_normal((batch, frames, classes))
    if kind == "huge":
        logits *= 1e4
    elif kind == "vast":
        logits = 1e30 * generator.choice([-1, 0, 1], logits.shape)
    elif kind == "confident":
        logits = 69.0 * (generator.integers(0, classes, (batch, frames, 1)) == np.arange(classes))
    elif kind == "masked":
        logits[generator.random(logits.shape) < 0.3] = -np.inf
    elif kind == "flat":
        logits[:] = 0
    if width and generator.random() < 0.2:
        labels[generator.integers(batch), generator.integers(width)] = generator.choice(
            [-1, 0, classes, 2**31 - 1]
        )
    if width > 1 and generator.random() < 0.3:
        labels[:, 1:] = labels[:, :1]
    frame_counts = generator.integers(0, frames + 1, batch)
    label_counts = generator.integers(0, width + 1, batch)
    if generator.random() < 0.3:
        frame_counts[:] = frames
    dtype = DTYPES[generator.choice(3, p=[0.6, 0.2, 0.2])]
    if dtype == jnp.float16:
        logits = np.where(np.isfinite(logits), np.clip(logits, -6e4, 6e4), logits)
    poison = generator.choice([np.nan, np.inf, 0])
    logits = np.where(np.arange(frames)[:, None] < frame_counts[:, None, None], logits, poison)
    with np.errstate(over="ignore"):
        logits = jnp.asarray(logits.astype(np.float32), dtype)
    return kind, (logits, labels, frame_counts, label_counts)


def faults(arguments):
    """The faults of the loss of a case; none are expected."""
    logits, labels, frames, lengths = arguments
    losses, gradient = (np.asarray(x, np.float64) for x in loss_and_gradient(*arguments))
    feasible = np.asarray(jaxctc.is_feasible(labels, frames, lengths, num_classes=logits.shape[2]))
    if np.isnan(losses).any():
        yield "a loss is NaN"
    if (losses < 0).any():
        yield "a loss is negative"
    if not np.isfinite(gradient).all():
        yield "a gradient is not finite"
    if not (losses[~feasible] == np.inf).all():
        yield "an infeasible pair has a finite loss"
    if (gradient[~np.isfinite(losses)] != 0).any():
        yield "a pair without a path has a gradient"
    if not np.isneginf(np.asarray(logits, np.float32)).any() and np.isinf(losses[feasible]).any():
        yield "a feasible pair has an infinite loss"
    precision = {2: 0.02 * logits.shape[2], 4: 1e-5}[logits.dtype.itemsize]
    if np.abs(gradient.sum(axis=2)).max(initial=0) > precision:
        yield "a row of the gradient does not sum to 0"
    if (gradient[np.arange(logits.shape[1]) >= frames[:, None]] != 0).any():
        yield "padding has a gradient"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=BATCHES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seen, broken = Counter(), []
    start = time.perf_counter()
    for index in tqdm(range(arguments.batches), disable=None):
        kind, case = random_case(np.random.default_rng([arguments.seed, index]))
        seen[str(kind)] += 1
        broken += [(index, kind, fault) for fault in faults(case)]
    seconds = time.perf_counter() - start
    wrong = Counter(str(kind) for _, kind, _ in broken)
    rows = [[kind, seen[kind], wrong[kind]] for kind in sorted(seen)]
    rows.append(["all", sum(seen.values()), len(broken)])
    heading = f"Random batches, in {seconds:.0f} seconds"
    sections = {heading: table(["logits", "batches", "faults"], rows)}
    data = {"seed": arguments.seed, "seconds": seconds, "batches": dict(seen), "faults": wrong}
    report("ctc.soak", sections, data, keep=arguments.batches == BATCHES)
    for index, kind, fault in broken[:20]:
        print(f"seed {arguments.seed}, batch {index} ({kind}): {fault}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
