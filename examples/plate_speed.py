"""Compares how fast and how well plates are read: by JAX, by onnxruntime, and by RapidOCR.

    python examples/plate_speed.py IMAGE_OR_DIR…

Prints a table; the share of plates that are read exactly has its 95 % interval (Wilson). Times are
without reading and resizing files. onnxruntime runs the reader that `plate_export.py` writes, and
needs the `export` extra. RapidOCR (`pip install rapidocr-onnxruntime`) is a general reader of
Chinese and Latin lines, here without its detector.
What is not installed is left out.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

import training
from plates import exporting
from plates.calibration import wilson
from plates.data import label_from_name, load_image
from plates.reading import CHECKPOINT_HELP, PUBLISHED, SHIFTS, load_reader, read_images
from recognition.charsets import decode
from recognition.images import list_images

HEADER = "| reader | images/s | read exactly | 95 % interval |\n|---|---:|---:|---:|"
Read = Callable[[np.ndarray], list[str]]


def readers(run: str, batch_size: int, others: Sequence[str]) -> Iterator[tuple[str, Read]]:
    """Yields names and functions from images to texts; says on stderr what is not installed."""

    def jax_reader(run: str, views: int) -> Read:
        model, charset = load_reader(run)
        return lambda images: read_images(model, images, charset, batch_size, views=views)[0]

    for views in (len(SHIFTS), 1):
        yield f"JAX, {views} view{'s' * (views > 1)}", jax_reader(run, views)
    for other in others:
        yield f"JAX, 1 view of {Path(other).stem}", jax_reader(other, 1)
    try:
        yield "onnxruntime, 1 view", onnx_reader(run, batch_size)
    except ImportError as error:
        print(f"onnxruntime is left out: {error}", file=sys.stderr)
    try:
        yield "RapidOCR", rapid_reader()
    except ImportError as error:
        print(f"RapidOCR is left out: {error}", file=sys.stderr)


def onnx_reader(run: str, batch_size: int) -> Read:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    model, charset = load_reader(run, dtype="float32")
    content = exporting.to_onnx(exporting.reader(model), charset)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))  # not those of the whole machine
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])

    def read(images: np.ndarray) -> list[str]:
        starts = range(0, len(images), batch_size)
        parts = [images[start : start + batch_size] for start in starts]
        labels = [session.run(["labels"], {"images": part})[0] for part in parts]
        return [decode(row, charset) for rows in labels for row in np.asarray(rows)]

    return read


def rapid_reader() -> Read:
    from rapidocr_onnxruntime import RapidOCR  # pyright: ignore[reportMissingImports]

    recogniser = RapidOCR().text_rec

    def read(images: np.ndarray) -> list[str]:
        found, _ = recogniser(list(images))
        return [text.replace("·", "").replace(" ", "") for text, _ in found]

    return read


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Compare readers of plates.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="IMAGE_OR_DIR", help="plates whose names are their labels")
    add("--checkpoint", default=PUBLISHED, metavar="RUN", help=CHECKPOINT_HELP)
    add("--also", action="append", default=[], metavar="RUN", help="another run or import")
    add("--batch-size", type=int, default=64, help="of JAX and onnxruntime")
    add("--rounds", type=int, default=3, help="the fastest of so many is shown")
    args = parser.parse_args(arguments)
    training.at_least_one(parser, args, "batch_size", "rounds")
    files = list_images(args.paths)
    if not files:
        raise SystemExit("there is no image to read")
    try:
        images = np.stack([load_image(file) for file in files])
        labels = [label_from_name(file) for file in files]
    except ValueError as error:
        raise SystemExit(f"an image can't be used: {error}") from error
    print(HEADER)
    for name, read in readers(args.checkpoint, args.batch_size, args.also):
        texts, seconds = read(images), []  # not timed: it compiles
        for _ in range(args.rounds):
            start = time.perf_counter()
            read(images)
            seconds.append(time.perf_counter() - start)
        right, count = sum(a == b for a, b in zip(texts, labels, strict=True)), len(images)
        low, high = wilson(right, count)
        speed = f"{count / min(seconds):.0f}"
        exact = f"{right} of {count}, {right / count:.1%} | {low:.1%}–{high:.1%}"
        print(f"| {name} | {speed} | {exact} |", flush=True)


if __name__ == "__main__":
    main()
