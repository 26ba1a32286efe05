"""Trains a recogniser of lines of text with CTC. Without arguments: on rendered Latin text.

    python examples/text_train.py
    python examples/text_train.py --characters greek --out runs/greek

See examples/README.md for training on labelled images.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jax
from flax import nnx

import jaxctc
import training
from jaxctc.compat.flax import ErrorRate
from recognition.checkpoints import load_into
from recognition.results import scores
from text import corpus, data, models
from text.reading import load_description, read_lines, word_model
from text.sheet import contact_sheet

EVALUATION_SEED = 20_240_101


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a recogniser of lines of text with CTC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--characters", default="latin", help="latin, greek, or a file of characters")
    add("--width", type=int, default=24, help="channels of the model's first layer")
    add("--data", nargs="+", metavar="TABLE", default=[], help="labelled images to train on")
    add("--real-share", type=float, default=0.5, help="part of a batch drawn from --data")
    add("--eval-data", nargs="+", metavar="TABLE", default=[], help="labelled images to test on")
    add("--eval-lines", type=int, default=1000, help="rendered lines to test on")
    training.add_options(
        parser,
        out="runs/text",
        steps=2000,
        batch_size=32,
        learning_rate=6e-3,
        save_every=300,
        log_every=50,
        ema=0.995,
    )
    args = parser.parse_args(arguments)
    training.check_options(parser, args)
    training.at_least_one(parser, args, "width", "eval_lines")
    if not 0 <= args.real_share <= 1:
        parser.error("--real-share must be between 0 and 1")
    if args.characters not in corpus.CHARACTERS:
        if not Path(args.characters).is_file():
            parser.error(f"--characters is {args.characters}; it must be latin, greek or a file")
        if not args.data or args.real_share < 1 or not args.eval_data:
            parser.error(
                "characters of a file can't be rendered: give --data, --real-share 1, "
                "and --eval-data"
            )
    return args


def mean_loss(model, batch, key) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the batch's mean loss, and its character error rate."""
    labels, lengths = batch["labels"], batch["label_lengths"]
    logits, frames = model(batch["images"], batch["widths"])
    blank = logits.shape[-1] - 1
    losses = jaxctc.ctc_loss(
        logits, labels, logit_lengths=frames, label_lengths=lengths, blank_id=blank
    )
    read = jaxctc.ctc_greedy_decode(logits, frames, blank_id=blank)
    errors = ErrorRate()
    errors.update(hypotheses=read.labels, references=labels, reference_lengths=lengths)
    return losses.mean(), {"character_error_rate": errors.compute()}


@nnx.jit(static_argnames=("microbatches",))
def train_step(model, optimizer, batch, microbatches: int = 1) -> dict[str, jax.Array]:
    """Takes one step of training in place; returns the batch's loss and error rate."""
    unused = jax.random.key(0)  # the model has no dropout
    loss, rates, gradients = training.value_and_gradients(
        mean_loss, model, batch, unused, microbatches
    )
    optimizer.update(model, gradients)
    return {"loss": loss, **rates}


def judge(model: nnx.Module, lines: list[data.Line], args: argparse.Namespace) -> None:
    """Reads `lines`, with and without the word model, and prints the scores as JSON."""
    charset = corpus.charset_of(args.characters)
    images, truth = [line.image for line in lines], [line.text for line in lines]
    texts, confidences = read_lines(model, images, charset)
    if not training.is_first():
        return
    result = {"characters": args.characters, "lines": len(lines)}
    result |= _rates(texts, truth)
    if args.characters in corpus.CHARACTERS:
        scorer = word_model(corpus.words_of(args.characters, held_out=False), charset)
        with_words, _ = read_lines(model, images, charset, scorer=scorer)
        result |= {f"{k}_with_words": v for k, v in _rates(with_words, truth).items()}
    contact_sheet(Path(args.out, "readings.png"), lines, texts, confidences)
    Path(args.out, "result.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


def _rates(texts: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    return {k: v for k, v in scores(texts, truth).items() if k != "images"}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with training.joined(args):
        train_and_judge(args)


def train_and_judge(args: argparse.Namespace) -> None:
    charset = corpus.charset_of(args.characters)
    real_share = args.real_share if args.data else 0.0
    lines = data.load_lines(args.data, charset) if args.data else []
    if args.eval_data:
        held_out = data.load_lines(args.eval_data, charset)
    else:
        held_out = data.rendered_lines(args.characters, args.eval_lines, EVALUATION_SEED)

    description = {"width": args.width, "dtype": args.dtype}
    model = models.build(description, len(charset) + 1, args.seed)
    if args.init:
        initial = load_description(args.init)
        if initial["charset"] != charset:
            raise SystemExit(f"--init {args.init} has another character set")
        if (width := initial["model"]["width"]) != args.width:
            raise SystemExit(f"--init {args.init} has width {width}; it must be {args.width}")
        load_into(args.init, model)
    optimizer = training.make_optimizer(
        model,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        steps=args.steps,
        name=args.optimizer,
    )
    devices = training.Devices(args.mesh, args.batch_size, microbatches=args.accumulate)
    batches = data.training_batches(
        args.characters, charset, args.batch_size, args.seed, lines, real_share, devices.rows
    )
    unsettled = ("out", "save_every", "log_every", "eval_data", "eval_lines", *training.WHERE)
    settings = {k: v for k, v in vars(args).items() if k not in unsettled}
    training.train(
        lambda *arguments: train_step(*arguments, microbatches=args.accumulate),
        model,
        optimizer,
        batches,
        devices,
        out=args.out,
        steps=args.steps,
        ema=args.ema,
        config={
            "model": description,
            "characters": args.characters,
            "charset": charset,
            "settings": settings,
        },
        unit="lines",
        log_every=args.log_every,
        save_every=args.save_every,
    )
    judge(model, held_out, args)


if __name__ == "__main__":
    main()
