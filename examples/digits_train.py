"""Trains a recogniser of spoken digit strings. Without arguments: on tones of a telephone's keys.

    python examples/digits_train.py --data RECORDINGS

See examples/README.md for what the objectives do, and for what they were measured to do.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import digits_data
import digits_models
import jax
import numpy as np
import training
from flax import nnx

import jaxctc

UNSETTLED = ("out", "save_every", "log_every", "eval_strings")  # may change when a run goes on


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a recogniser of spoken digit strings.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", default="runs/digits", help="directory of checkpoints, metrics and results")
    add("--data", metavar="DIR", help="Free Spoken Digit recordings; default: tones")
    add("--unseen", metavar="SPEAKER", help="who is never trained on; default: the third by name")
    add("--objective", choices=sorted(OBJECTIVES), default="ctc", help="what is minimised")
    add("--init", metavar="RUN", help="start from the weights of this run")
    add("--steps", type=int, default=1000, help="training steps")
    add("--batch-size", type=int, default=32, help="strings a step")
    add("--learning-rate", type=float, default=3e-3, help="its highest value")
    add("--weight-decay", type=float, default=1e-2, help="AdamW's, on matrices only")
    add("--seed", type=int, default=0, help="what initial weights and strings are drawn from")
    add("--strings", type=int, default=3000, help="strings to train on")
    add("--eval-strings", type=int, default=500, help="strings to be judged by, of each kind")
    add("--save-every", type=int, default=250, help="steps between checkpoints")
    add("--log-every", type=int, default=25, help="steps between lines of metrics.jsonl")
    args = parser.parse_args(arguments)
    for name in ("steps", "batch_size", "strings", "eval_strings", "save_every", "log_every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.strings < args.batch_size:
        parser.error(f"--strings must be at least --batch-size, {args.batch_size}")
    if args.seed < 0:
        parser.error("--seed must be at least 0")
    return args


def ctc(model, batch, key) -> jax.Array:
    logits, lengths = model(batch["features"], batch["frames"], key)
    return jaxctc.ctc_loss(logits, batch["labels"], lengths, batch["label_lengths"])


OBJECTIVES = {"ctc": ctc}


@nnx.jit(static_argnames=("objective", "seed"))
def train_step(model, optimizer, batch, objective: str, seed: int) -> dict[str, jax.Array]:
    """Takes one step of training in place; returns the batch's loss."""
    # Every step has its own dropout, whatever happened before: a resumed run depends on it.
    key = jax.random.fold_in(jax.random.key(seed), optimizer.step[...])
    loss, gradients = nnx.value_and_grad(
        lambda model: OBJECTIVES[objective](model, batch, key).mean()
    )(model)
    optimizer.update(model, gradients)
    return {"loss": loss}


@nnx.jit
def _hear(model, batch):
    logits, lengths = model(batch["features"], batch["frames"])
    heard = jaxctc.ctc_beam_search(logits, lengths, beam_width=8, max_labels=20)
    aligned = jaxctc.forced_align(logits, batch["labels"], lengths, batch["label_lengths"])
    return heard.labels[:, 0], aligned.starts, aligned.ends


def judge(model: nnx.Module, strings: Sequence[digits_data.DigitString]) -> dict[str, float]:
    """Returns digit errors per digit, and by how much aligned boundaries are off, milliseconds."""
    frames = -(-max(len(string.features) for string in strings) // 100) * 100
    edits, off = 0, []
    for start in range(0, len(strings), 100):
        rows = strings[start : start + 100]
        batch = digits_data.stack(rows, frames)
        labels, starts, ends = _hear(model, batch)
        edits += int(
            jaxctc.edit_distance(labels, batch["labels"], None, batch["label_lengths"]).sum()
        )
        found = np.stack([starts, ends], -1) * digits_models.SECONDS_A_FRAME
        off += [
            np.abs(f[: len(row.bounds)] - row.bounds) for f, row in zip(found, rows, strict=True)
        ]
    digits = sum(len(string.digits) for string in strings)
    return {
        "digit_error_rate": round(edits / digits, 6),
        "boundary_error_ms": round(1000 * float(np.concatenate(off).mean()), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if args.data:
        recordings = digits_data.load_recordings(args.data)
    else:
        recordings = digits_data.tone_recordings()
    speakers = sorted({r.speaker for r in recordings})
    args.unseen = args.unseen or speakers[min(2, len(speakers) - 1)]
    if args.unseen not in speakers or len(speakers) < 2:
        raise SystemExit(f"--unseen {args.unseen} must be one of several: {' '.join(speakers)}")
    known = [r for r in recordings if r.speaker != args.unseen]
    tests = [r for r in known if r.index in digits_data.TEST_INDICES]
    others = [r for r in known if r.index not in digits_data.TEST_INDICES]
    unseen = [r for r in recordings if r.speaker == args.unseen]
    if not tests or not others:
        raise SystemExit(f"{args.data}: there must be indices below 5, to test, and others")
    train_strings = digits_data.make_strings(others, args.strings, [args.seed], augment=True)

    model = digits_models.Encoder(rngs=nnx.Rngs(args.seed))
    if args.init:
        training.load_model(args.init, model)
    optimizer = training.make_optimizer(
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        steps=args.steps,
    )
    training.train(
        lambda model, optimizer, batch: train_step(
            model, optimizer, batch, objective=args.objective, seed=args.seed
        ),
        model,
        optimizer,
        digits_data.training_batches(train_strings, args.batch_size, args.seed),
        out=args.out,
        steps=args.steps,
        batch_size=args.batch_size,
        config={"settings": {k: v for k, v in vars(args).items() if k not in UNSETTLED}},
        unit="strings",
        log_every=args.log_every,
        save_every=args.save_every,
    )

    result = {"objective": args.objective, "seed": args.seed, "strings": args.eval_strings}
    for name, kind in (("known", tests), ("unseen", unseen)):
        strings = digits_data.make_strings(kind, args.eval_strings, [0, 20_240_101])
        result |= {f"{name}_{k}": v for k, v in judge(model, strings).items()}
    Path(args.out, "result.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
