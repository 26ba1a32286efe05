"""Trains a recogniser of spoken digit strings. Without arguments: on tones of telephone keys.

    python examples/digits_train.py --data RECORDINGS

See examples/README.md for the objectives and their results.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jax
from flax import nnx

import training
from digits import augment, data, hearing, mixing, models
from digits.data import Recording
from digits.objectives import OBJECTIVES, Loss, make_loss, model_name

EVALUATION_SEED = 0, 20_240_101  # a pair: training seeds are single numbers
# May change when a run continues.
PARTS = (*mixing.PARTS, *augment.PARTS)
UNSETTLED = ("out", "save_every", "log_every", "eval_strings", *training.WHERE)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a recogniser of spoken digit strings.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", metavar="DIR", help="Free Spoken Digit recordings; default: tones")
    add("--unseen", metavar="SPEAKER", help="not in the training set; default: the third by name")
    add("--objective", choices=OBJECTIVES, default="ctc", help="the loss")
    add("--streaming", action="store_true", help="normalise by what was heard before, as a stream")
    add("--without", nargs="+", choices=PARTS, default=[], help="what is not done to strings")
    add("--strings", type=int, default=6000, help="strings to train on")
    add("--eval-strings", type=int, default=500, help="test strings of each kind")
    training.add_options(
        parser,
        out="runs/digits",
        steps=6500,
        batch_size=16,
        learning_rate=6e-3,
        save_every=250,
        log_every=25,
        ema=0.998,
    )
    args = parser.parse_args(arguments)
    training.check_options(parser, args)
    training.at_least_one(parser, args, "strings", "eval_strings")
    if args.strings < args.batch_size:
        parser.error(f"--strings must be at least --batch-size, {args.batch_size}")
    return args


@nnx.jit(static_argnames=("loss", "seed", "parts", "microbatches"))
def train_step(
    model, optimizer, batch, loss: Loss, seed: int, parts: tuple[str, ...], microbatches: int = 1
) -> dict[str, jax.Array]:
    """Takes one step of training in place; returns the batch's loss."""
    # What is drawn in a step depends only on its number, so that a run can be continued exactly.
    key = jax.random.fold_in(jax.random.key(seed), optimizer.step[...])
    batch = augment.vary(batch, jax.random.fold_in(key, len(PARTS)), parts)
    value, _, gradients = training.value_and_gradients(
        lambda *args: (loss(*args).mean(), None), model, batch, key, microbatches
    )
    optimizer.update(model, gradients)
    return {"loss": value}


def make_model(args: argparse.Namespace) -> nnx.Module:
    """Returns the objective's model, with all weights of --init, or with those of its encoder."""
    name = model_name(args.objective)
    model = models.build(name, args.seed, args.dtype, running=args.streaming)
    if args.init:
        initial = training.load_config(args.init).get("model")
        if initial == name:
            training.load_model(args.init, model)
        elif isinstance(model, models.Transducer) and initial == "encoder":
            training.load_model(args.init, model.encoder)
        else:
            raise SystemExit(f"--init {args.init} does not fit --objective {args.objective}")
    return model


def split(args: argparse.Namespace) -> tuple[list[Recording], list[Recording], list[Recording]]:
    """Returns recordings to train on, others of the same speakers, and those of --unseen."""
    recordings = data.load_recordings(args.data) if args.data else data.tone_recordings()
    speakers = sorted({r.speaker for r in recordings})
    args.unseen = args.unseen or speakers[min(2, len(speakers) - 1)]
    if args.unseen not in speakers or len(speakers) < 2:
        raise SystemExit(
            f"--unseen is {args.unseen}; it must be one of at least two speakers: "
            f"{' '.join(speakers)}"
        )
    known = [r for r in recordings if r.speaker != args.unseen]
    tests = [r for r in known if r.index in data.TEST_INDICES]
    others = [r for r in known if r.index not in data.TEST_INDICES]
    if not tests or not others:
        raise SystemExit(f"{args.data}: must have recordings with indices below 5 and others")
    return others, tests, [r for r in recordings if r.speaker == args.unseen]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with training.joined(args):
        train_and_judge(args)


def train_and_judge(args: argparse.Namespace) -> None:
    model = make_model(args)
    train_recordings, known, unseen = split(args)
    without = args.without if args.data else [*args.without, *mixing.SPEECH]  # they say no tones
    parts = tuple(part for part in PARTS if part not in without)
    strings = mixing.training_strings(train_recordings, args.strings, [args.seed], parts)
    loss = make_loss(args.objective, strings)
    optimizer = training.make_optimizer(
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        steps=args.steps,
        name=args.optimizer,
    )
    devices = training.Devices(args.mesh, args.batch_size, microbatches=args.accumulate)
    settings = {k: v for k, v in vars(args).items() if k not in UNSETTLED}
    training.train(
        lambda model, optimizer, batch: train_step(
            model,
            optimizer,
            batch,
            loss=loss,
            seed=args.seed,
            parts=parts,
            microbatches=args.accumulate,
        ),
        model,
        optimizer,
        data.training_batches(strings, args.batch_size, args.seed, devices.rows),
        devices,
        out=args.out,
        steps=args.steps,
        ema=args.ema,
        config={"model": model_name(args.objective), "settings": settings},
        unit="strings",
        log_every=args.log_every,
        save_every=args.save_every,
    )

    tests = {
        name: data.make_strings(recordings, args.eval_strings, EVALUATION_SEED)
        for name, recordings in (("known", known), ("unseen", unseen))
    }
    frames = max(len(string.features) for kind in tests.values() for string in kind)
    result = {"objective": args.objective, "seed": args.seed, "strings": args.eval_strings}
    for name, kind in tests.items():
        found = hearing.scores(model, kind, frames, divide=args.objective == "prior")
        result |= {f"{name}_{key}": value for key, value in found.items()}
    if not training.is_first():
        return
    Path(args.out, "result.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
