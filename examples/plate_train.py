"""Trains a licence-plate recogniser with CTC. Without arguments: on rendered plates, in minutes.

    python examples/plate_train.py

See examples/README.md for training on real plates.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxctc
import training
from jaxctc.compat.flax import ErrorRate
from plates import data, models, render, report
from plates.charset import charset_of
from plates.provinces import ADAPT_HELP
from plates.reading import SHIFTS, exact_matches, load_description, read_images
from recognition.charsets import encode
from recognition.checkpoints import load_into
from recognition.results import scores

EVALUATION_SEED = 20_240_101


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a licence-plate recogniser with CTC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=sorted(models.MODELS), help="default: that of --init, or light")
    add("--charset", metavar="FILE", help="characters in class order; default: those of plates")
    add("--train-data", nargs="+", metavar="DIR", default=[], help="real plates to train on")
    add("--real-share", type=float, default=0.5, help="part of a batch drawn from --train-data")
    add("--eval-data", nargs="+", metavar="DIR", default=[], help="real plates to test on")
    add("--eval-images", type=int, default=1000, help="rendered plates to test on")
    add("--adapt", action="store_true", help=f"in the test, {ADAPT_HELP}")
    training.add_options(
        parser,
        out="runs/plates",
        steps=2400,
        batch_size=64,
        learning_rate=5e-3,
        save_every=500,
        log_every=50,
        ema=0.998,
    )
    args = parser.parse_args(arguments)
    training.check_options(parser, args)
    training.at_least_one(parser, args, "eval_images")
    if not 0 <= args.real_share <= 1:
        parser.error("--real-share must be between 0 and 1")
    if args.charset and not Path(args.charset).is_file():
        parser.error(f"--charset is {args.charset}; it must be a file")
    return args


def describe_model(args: argparse.Namespace, charset: str) -> dict[str, Any]:
    """Returns the description of the model: the one asked for, or that of --init."""
    description: dict[str, Any] = {"name": args.model or "light"}
    if description["name"] == "light":
        description["residuals"] = 2
    if args.init:
        initial = load_description(args.init)
        description = initial["model"]
        if args.model not in (None, description["name"]):
            raise SystemExit(
                f"--init {args.init} has the model {description['name']}; it must be {args.model}"
            )
        if charset != initial["charset"]:
            raise SystemExit(f"--init {args.init} has another character set: {initial['charset']}")
    # Published weights divide by a mean over the batch; training is better without that.
    if description["name"] == "lprnet":
        description = {**description, "normalise": "image"}
    return {**description, "dtype": args.dtype}


def mean_loss(model, batch, key) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the batch's mean loss, its exact matches and its errors."""
    labels, lengths = batch["labels"], batch["label_lengths"]
    logits = model(batch["images"], key)
    blank = logits.shape[-1] - 1
    losses = jaxctc.ctc_loss(logits, labels, label_lengths=lengths, blank_id=blank)
    read = jaxctc.ctc_greedy_decode(logits, blank_id=blank)
    errors = ErrorRate()
    errors.update(hypotheses=read.labels, references=labels, reference_lengths=lengths)
    return losses.mean(), {
        "exact_match": exact_matches(read, labels, lengths).mean(),
        "character_error_rate": errors.compute(),
    }


@nnx.jit(static_argnames=("seed", "microbatches"))
def train_step(model, optimizer, batch, seed: int, microbatches: int = 1) -> dict[str, jax.Array]:
    """Takes one step of training in place; returns loss, exact matches and errors of the batch."""
    # The dropout of a step depends only on its number, so that a run can be continued exactly.
    key = jax.random.fold_in(jax.random.key(seed), optimizer.step[...])
    loss, scores, gradients = training.value_and_gradients(
        mean_loss, model, batch, key, microbatches
    )
    optimizer.update(model, gradients)
    return {"loss": loss, **scores}


def judge(
    model: nnx.Module, plates: list[data.Plate], charset: str, out: Path, adapt: bool
) -> None:
    """Reads `plates`, writes pictures of the results, and prints the scores as JSON."""
    images = data.stack_images(plates)
    texts, confidences, logits = read_images(model, images, charset, views=len(SHIFTS), adapt=adapt)
    if not training.is_first():
        return
    result = scores(texts, [plate.text for plate in plates])
    report.contact_sheet(out / "readings.png", plates, texts, confidences)
    # The plate with the longest text; of those, the one with the lowest confidence.
    shown = max(range(len(plates)), key=lambda i: (len(plates[i].text), -confidences[i]))
    plate = plates[shown]
    labels = encode(plate.text, charset, len(plate.text))
    posteriors = jaxctc.ctc_posteriors(logits[shown], labels, blank_id=len(charset))
    report.posteriors_picture(
        out / "posteriors.png", plate, np.asarray(posteriors.labels), np.asarray(posteriors.blank)
    )
    Path(out, "result.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with training.joined(args):
        train_and_judge(args)


def train_and_judge(args: argparse.Namespace) -> None:
    charset = charset_of(args.charset)
    real_share = args.real_share if args.train_data else 0.0
    if real_share < 1 and not render.can_render(charset):
        raise SystemExit("plates can't be rendered in this character set: give --real-share 1")
    plates = data.load_plates(args.train_data, charset) if args.train_data else []
    if args.eval_data:
        held_out = data.load_plates(args.eval_data, charset)
    else:
        held_out = data.rendered_plates(charset, args.eval_images, EVALUATION_SEED)

    description = describe_model(args, charset)
    model = models.build(description, len(charset) + 1, args.seed)
    if args.init:
        load_into(args.init, model)
    optimizer = training.make_optimizer(
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        steps=args.steps,
        name=args.optimizer,
    )
    head = models.HEADS[description["name"]]
    devices = training.Devices(args.mesh, args.batch_size, microbatches=args.accumulate, head=head)
    batches = data.training_batches(
        charset, args.batch_size, args.seed, plates, real_share, devices.rows
    )

    unsettled = ("out", "save_every", "log_every", "eval_data", "eval_images", "adapt")
    unsettled += ("model", "charset")
    unsettled += training.WHERE
    settings = {k: v for k, v in vars(args).items() if k not in unsettled}
    training.train(
        lambda model, optimizer, batch: train_step(
            model, optimizer, batch, seed=args.seed, microbatches=args.accumulate
        ),
        model,
        optimizer,
        batches,
        devices,
        out=args.out,
        steps=args.steps,
        ema=args.ema,
        config={"model": description, "charset": charset, "settings": settings},
        unit="images",
        log_every=args.log_every,
        save_every=args.save_every,
    )

    judge(model, held_out, charset, Path(args.out), args.adapt)


if __name__ == "__main__":
    main()
