"""A minimal training script, for tests with several devices and processes.

python tests/tiny_training.py --out DIR [--signal PROCESS STEP NAME] [training's options]

The model has everything whose result could depend on the mesh: a batch norm, dropout, and a head
that can be sharded. With `--signal`, a process sends itself a signal before a step.
"""

import argparse
import os
import signal
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxctc
import training

FRAMES, INPUTS, WIDTH, CLASSES, LABELS, BATCH = 6, 5, 16, 8, 2, 16


class Tiny(nnx.Module):
    def __init__(self, dtype: str, rngs: nnx.Rngs):
        options = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        # No bias: before a norm its gradient is only rounding errors, which Adam would scale up.
        self.layer = nnx.Linear(INPUTS, WIDTH, use_bias=False, **options)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, **options)
        self.dropout = nnx.Dropout(0.2)
        self.head = nnx.Linear(WIDTH, CLASSES, **options)

    def __call__(self, x, key):
        x = nnx.relu(self.norm(self.layer(x)))
        return self.head(self.dropout(x, rngs=key))


def build(dtype: str = "float32") -> nnx.Module:
    return Tiny(dtype, nnx.Rngs(0))


def draw(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    labels = rng.integers(1, CLASSES, LABELS).astype(np.int32)
    features = rng.normal(0, 0.5, (FRAMES, INPUTS)).astype(np.float32)
    features[1::3, 0] += labels
    return {"index": np.array(index, np.int32), "features": features, "labels": labels}


def training_batches(rows: range, batch_size: int = BATCH) -> grain.DatasetIterator:
    dataset = grain.MapDataset.range(2**20).seed(0)
    dataset = dataset.random_map(lambda i, rng: draw(i, rng))
    dataset = grain.MapDataset.source(training.Rows(dataset, batch_size, rows)).batch(len(rows))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))


def mean_loss(model, batch, key):
    logits = model(batch["features"], key)
    return jaxctc.ctc_loss(logits, batch["labels"]).mean(), None


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--signal", nargs=3, metavar=("PROCESS", "STEP", "NAME"))
    training.add_options(parser, steps=8, batch_size=BATCH, save_every=3, log_every=1)
    args = parser.parse_args(arguments)
    training.check_options(parser, args)
    return args


def run(args: argparse.Namespace) -> nnx.Module:
    devices = training.Devices(args.mesh, BATCH, microbatches=args.accumulate)
    model = build(args.dtype)
    optimizer = training.make_optimizer(model, learning_rate=0.1, weight_decay=0.1, steps=30)
    batches = training_batches(devices.rows)

    def train_step(model, optimizer, batch):
        key = jax.random.fold_in(jax.random.key(0), optimizer.step[...])
        loss, _, gradients = training.value_and_gradients(
            mean_loss, model, batch, key, args.accumulate
        )
        optimizer.update(model, gradients)
        return {"loss": loss}

    if args.signal and int(args.signal[0]) == jax.process_index():
        _signal_before(devices, batches, int(args.signal[1]), signal.Signals[args.signal[2]])
    training.train(
        train_step,
        model,
        optimizer,
        batches,
        devices,
        out=args.out,
        steps=args.steps,
        ema=args.ema,
        config={"dtype": args.dtype, "accumulate": args.accumulate, "ema": args.ema},
        log_every=1,
        save_every=args.save_every,
    )
    return model


def _signal_before(devices, batches, step: int, number: signal.Signals) -> None:
    place = devices.batch

    def placed(rows):
        # The state is the number of batches taken, including this one.
        if batches.get_state()["next_index"] == step:
            os.kill(os.getpid(), number)
            time.sleep(1.5)  # JAX checks for SIGTERM once per second
        return place(rows)

    devices.batch = placed


def main(arguments: list[str]) -> None:
    args = parse_arguments(arguments)
    with training.joined(args):
        model = run(args)
        total = sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(nnx.state(model)))
        print(f"Trained: {total}")


if __name__ == "__main__":
    main(sys.argv[1:])
