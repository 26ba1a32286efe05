r"""Reads lines of text with a checkpoint of text_train.py.

    python examples/text_read.py --checkpoint RUN [--table TABLE] IMAGE_OR_DIR…

Prints a line `file<TAB>text<TAB>confidence` per image; the confidence is the model's probability
of the text. The images of tables with labels are read too, and the last line is then their scores
as JSON. Names are escaped as by plate_read.py. Files that can't be read are listed on stderr, and
the exit code is then 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from plate_read import ESCAPES
from plates.data import list_images
from plates.reading import scores
from text import corpus, data
from text.reading import load_reader, read_lines, word_model


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read lines of text.")
    add = parser.add_argument
    add("paths", nargs="*", metavar="IMAGE_OR_DIR")
    add("--checkpoint", required=True, metavar="RUN", help="directory of a run")
    add("--table", action="append", default=[], help="a table of images, to read and to score")
    add("--batch-size", type=int, default=32, help="images per batch")
    add("--words", metavar="FILE", help="text, or `built-in`: search with a model of its words")
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if not args.paths and not args.table:
        parser.error("give images or --table")
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore
    sys.stderr.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore

    model, config = load_reader(args.checkpoint)
    charset, failures = config["charset"], 0
    lines = data.load_lines(args.table, charset) if args.table else []
    for file in list_images(args.paths):
        try:
            lines.append(data.Line(data.load_image(file), "", file))
        except ValueError as error:
            failures += 1
            print(f"{file}: {error}", file=sys.stderr)
    if not lines:
        print("there is no image to read", file=sys.stderr)
        return 1
    scorer = None
    if args.words:
        scorer = word_model(corpus.words_for(args.words, config["characters"], charset), charset)
    texts, confidences = read_lines(
        model, [line.image for line in lines], charset, batch_size=args.batch_size, scorer=scorer
    )
    for line, text, confidence in zip(lines, texts, confidences, strict=True):
        print(f"{line.file.translate(ESCAPES)}\t{text}\t{confidence:.4f}")
    if labelled := [
        (text, line.text) for text, line in zip(texts, lines, strict=True) if line.text
    ]:
        print(json.dumps(scores(*zip(*labelled, strict=True))))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
