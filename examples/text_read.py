r"""Reads lines of text, with the published weights or with a checkpoint of text_train.py.

    python examples/text_read.py [--checkpoint RUN] [--table TABLE] IMAGE_OR_DIR…

Prints a line `file<TAB>text<TAB>confidence` per image; the confidence is the model's probability
of the text. The images of tables with labels are read too, and the last line is then their scores
as JSON. Names are escaped as by plate_read.py. Files that can't be read are listed on stderr, and
the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Sequence

import training
from recognition.images import load_images
from recognition.results import print_readings, print_utf8
from text import corpus, data
from text.reading import PUBLISHED, load_reader, read_lines, word_model


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read lines of text.")
    add = parser.add_argument
    add("paths", nargs="*", metavar="IMAGE_OR_DIR")
    add(
        "--checkpoint",
        default=PUBLISHED,
        metavar="RUN",
        help="directory of a run, or a file of weights; default: the published ones, for Latin",
    )
    add("--table", action="append", default=[], help="a table of images, to read and to score")
    add("--batch-size", type=int, default=32, help="images per batch")
    add("--words", metavar="FILE", help="text, or `built-in`: search with a model of its words")
    args = parser.parse_args(arguments)
    training.at_least_one(parser, args, "batch_size")
    if not args.paths and not args.table:
        parser.error("give images or --table")
    print_utf8()

    model, config = load_reader(args.checkpoint)
    charset = config["charset"]
    lines = data.load_lines(args.table, charset) if args.table else []
    files, images, failures = load_images(args.paths, data.load_image)
    lines += [data.Line(image, "", file) for file, image in zip(files, images, strict=True)]
    if not lines:
        print("there is no image to read", file=sys.stderr)
        return 1
    scorer = None
    if args.words:
        scorer = word_model(corpus.words_for(args.words, config["characters"], charset), charset)
    texts, confidences = read_lines(
        model, [line.image for line in lines], charset, batch_size=args.batch_size, scorer=scorer
    )
    print_readings([line.file for line in lines], texts, confidences, [x.text for x in lines])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
