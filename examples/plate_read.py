r"""Reads licence plates with a trained or imported checkpoint.

    python examples/plate_read.py IMAGE_OR_DIR…

Prints a line `file<TAB>text<TAB>confidence` per image; the confidence is the model's probability
of the text. A tab, a line feed, a carriage return or a backslash in a file's name is written as \t,
\n, \r or \\. If file names have labels, the last line is the scores as JSON. Files that can't be
read are listed on stderr, and the exit code is then 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np

from plates import models
from plates.charset import unknown_characters
from plates.data import label_from_name, list_images, load_image
from plates.reading import DECODERS, SHIFTS, load_reader, read_images, scores
from plates.weights import CHECKPOINT_HELP, PUBLISHED

ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"})


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
        f"text; default: {len(SHIFTS)}, or 1 for published weights",
    )
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore
    sys.stderr.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore

    model, charset = load_reader(args.checkpoint)
    files, images, failures = [], [], 0
    for file in list_images(args.paths):
        try:
            images.append(load_image(file))
            files.append(file)
        except ValueError as error:
            failures += 1
            print(f"{file}: {error}", file=sys.stderr)
    if not files:
        print("there is no image to read", file=sys.stderr)
        return 1
    views = args.views or (1 if models.mixes_images(model) else len(SHIFTS))
    texts, confidences, _ = read_images(
        model, np.stack(images), charset, args.batch_size, args.decoder, views
    )
    labelled, unscored = [], 0
    for file, text, confidence in zip(files, texts, confidences, strict=True):
        print(f"{file.translate(ESCAPES)}\t{text}\t{confidence:.4f}")
        try:
            label = label_from_name(file)
        except ValueError:
            continue
        if label and not unknown_characters(label, charset):
            labelled.append((text, label))
        elif label:
            unscored += 1
    if unscored:
        print(f"{unscored} labels have characters without a class: not scored", file=sys.stderr)
    if labelled:
        print(json.dumps(scores(*zip(*labelled, strict=True))))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
