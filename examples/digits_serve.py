"""Hears digits in streams, and prints each as soon as it is sure, one JSON object a line.

    python examples/digits_serve.py --checkpoint RUN FILE…
    rec -t raw -r 8000 -c 1 -b 16 -e signed - | python examples/digits_serve.py --checkpoint RUN -

"seconds" is when the digit begins in its stream. Files are mono wav files with 16 bits at 8 kHz; a
pipe, `-`, has such samples without a header. What can't be heard is listed on stderr, the other
streams go on, and the exit code is then 1. Ctrl-C ends all streams, and prints what is in them. If
the reader of the digits goes away, as `head` does, the service ends quietly, with 141 as exit code.
The last line on stderr says how fast it was. See examples/README.md.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

import jaxctc
import training
from digits import models
from digits.listening import Knowledge, Listener
from digits.serving import serve
from training.stopping import StopRequest

# Exit codes as shells give them to programs that a signal has ended: 128 and its number.
INTERRUPTED, READER_GONE = 130, 141
IMPOSSIBLE = -99.0  # log10: words that a model does not have are at -100


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Hear digits in streams.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="FILE", help="wav files; - for samples from a pipe")
    add("--checkpoint", required=True, metavar="RUN", help="directory of a run of digits_train.py")
    add("--streams", type=int, default=16, help="heard at the same time; other files wait")
    add("--live", action="store_true", help="read files at the speed at which they were spoken")
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="end a pipe that has sent nothing for so long; default: wait",
    )
    add("--beam-width", type=int, default=1, help="hypotheses; a wider beam is sure later")
    add("--language-model", metavar="ARPA", help="a model of the digits 0 to 9")
    add("--language-model-weight", type=float, default=0.5, help="its weight")
    add(
        "--hotword",
        action="append",
        default=[],
        metavar="DIGITS=BOOST",
        help="digits to expect, and by how much, a natural logarithm; may be repeated",
    )
    args = parser.parse_intermixed_args(arguments)  # options may stand between files
    training.at_least_one(parser, args, "streams", "beam_width")
    if args.timeout is not None and not args.timeout > 0:
        parser.error("--timeout must be above 0")
    if args.paths.count("-") > 1:
        parser.error("- may be given once")
    try:
        args.hotword = dict(map(_hotword, args.hotword))
    except ValueError:
        parser.error("--hotword must be digits and a number, such as 112=3.5")
    return args


def _hotword(text: str) -> tuple[tuple[int, ...], float]:
    digits, _, boost = text.partition("=")
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError
    return tuple(int(digit) + 1 for digit in digits), float(boost)


def load(args: argparse.Namespace):
    """Returns the model of --checkpoint."""
    config = training.load_config(args.checkpoint)
    if config.get("model") not in [*models.MODELS]:
        raise SystemExit(f"{args.checkpoint}: is not a run of digits_train.py")
    settings = config["settings"]
    if settings["objective"] == "prior":
        raise SystemExit(
            f"{args.checkpoint}: was trained with --objective prior, which needs whole strings"
        )
    model = models.build(config["model"], running=settings.get("streaming", False))
    training.load_model(args.checkpoint, model)
    return model


def knowledge(args: argparse.Namespace) -> Knowledge:
    """Returns --language-model and --hotword as one scorer."""
    parts, weights = [], []
    try:
        if args.language_model:
            vocabulary = ["<blank>", *map(str, range(10))]
            model = jaxctc.NGram.from_arpa(args.language_model, vocabulary)
            _knows_all_digits(args.language_model, model)
            parts.append(model.scorer(end=False))  # where a stream ends says nothing
            weights.append(args.language_model_weight)
        if args.hotword:
            parts.append(jaxctc.Hotwords(args.hotword, models.CLASSES).scorer())
            weights.append(1.0)
    except OSError as error:
        raise SystemExit(f"{args.language_model}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise SystemExit(str(error)) from None
    return Knowledge(jaxctc.combine(parts, weights=weights)) if parts else Knowledge()


def _knows_all_digits(path: str, model: jaxctc.NGram) -> None:
    """Stops if a digit can never be heard with a model, such as one that spells its digits."""
    digits = map(str, range(10))
    missing = [d for d in digits if model.log10_probability([d], end=False) <= IMPOSSIBLE]
    if missing:
        raise SystemExit(
            f"{path}: has no word {', '.join(missing)}; it must have all digits, written 0 to 9"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        return hear(args)
    except KeyboardInterrupt:  # while the model is loaded, or for the second time
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads the digits any more. What Python still writes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def hear(args: argparse.Namespace) -> int:
    """Hears all streams, and returns the exit code."""
    streams = min(args.streams, len(args.paths))
    listener = Listener(load(args), streams, args.beam_width, knowledge(args))
    with StopRequest() as stop:
        report = serve(
            listener,
            args.paths,
            live=args.live,
            timeout=args.timeout,
            stopped=lambda: stop.after(0),
            tell=lambda line: print(json.dumps(line), flush=True),
            complain=lambda name, error: print(f"{name}: {error}", file=sys.stderr, flush=True),
        )
    print(json.dumps(report), file=sys.stderr)
    if stop.after(0):
        return INTERRUPTED
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
