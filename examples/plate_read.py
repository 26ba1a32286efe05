r"""Reads licence plates with a trained or imported checkpoint.

    python examples/plate_read.py IMAGE_OR_DIR…

Prints a line `file<TAB>text<TAB>confidence` per image; the confidence is the model's probability
of the text. A tab, a line feed, a carriage return or a backslash in a file's name is written as \t,
\n, \r or \\. If file names have labels, the last line is the scores as JSON. Files that can't be
read are listed on stderr, and the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import training
from plates import models
from plates.data import label_from_name, load_image
from plates.provinces import ADAPT_HELP
from plates.reading import (
    CHECKPOINT_HELP,
    DECODERS,
    PUBLISHED,
    SHIFTS,
    load_reader,
    read_images,
)
from recognition.charsets import unknown_characters
from recognition.images import load_images
from recognition.results import print_readings, print_utf8


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read licence plates.")
    add = parser.add_argument
    add("paths", nargs="+", metavar="IMAGE_OR_DIR")
    add("--checkpoint", default=PUBLISHED, metavar="RUN", help=CHECKPOINT_HELP)
    add(
        "--batch-size",
        type=int,
        default=256,
        help="images per batch; results of imported weights depend on it",
    )
    add("--decoder", choices=DECODERS, default="greedy", help="grammar: a beam over plates")
    add(
        "--views",
        type=int,
        choices=range(1, len(SHIFTS) + 1),
        help="read each image this many times, moved by a pixel or two, and take the most probable "
        f"text; default: {len(SHIFTS)}, or 1 for the weights of LPRNet",
    )
    add("--adapt", action="store_true", help=ADAPT_HELP)
    args = parser.parse_args(arguments)
    training.at_least_one(parser, args, "batch_size")
    print_utf8()

    model, charset = load_reader(args.checkpoint)
    files, images, failures = load_images(args.paths, load_image)
    if not files:
        print("there is no image to read", file=sys.stderr)
        return 1
    views = args.views or (1 if models.mixes_images(model) else len(SHIFTS))
    texts, confidences, _ = read_images(
        model, np.stack(images), charset, args.batch_size, args.decoder, views, args.adapt
    )
    labels = [_label(file) for file in files]
    known = ["" if unknown_characters(label, charset) else label for label in labels]
    if unscored := sum(map(bool, labels)) - sum(map(bool, known)):
        print(f"{unscored} labels have characters without a class: not scored", file=sys.stderr)
    print_readings(files, texts, confidences, known)
    return 1 if failures else 0


def _label(file: str) -> str:
    try:
        return label_from_name(file)
    except ValueError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
