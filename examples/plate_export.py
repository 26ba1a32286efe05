"""Exports a reader of plates as one function, for programs that do not use this repository.

    python examples/plate_export.py --format onnx

The function takes any number of images, uint8[N, 24, 94, 3] in BGR, and returns logits, labels,
their scores and the confidence: see `Outputs` in plates/exporting.py. An image is the plate, cut
out, and resized to 24 x 94 pixels: with the mean over areas if that makes it smaller
(`cv2.INTER_AREA`), else cubic. ONNX needs the `export` extra. The file is run, and compared with
the checkpoint; the last line on stdout says how much they differ.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx

import jaxctc
from plates import data, exporting, render
from plates.reading import CHECKPOINT_HELP, PUBLISHED, load_reader
from recognition.weights import is_weights

TOLERANCE = 1e-4


def sample_images(charset: str, count: int = 5) -> np.ndarray:
    """Returns plates, uint8[count, 24, 94, 3], or noise for characters that can't be rendered."""
    if render.can_render(charset):
        return data.stack_images(data.rendered_plates(charset, count, seed=1))
    shape = (count, *render.IMAGE_SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export a reader of plates.")
    add = parser.add_argument
    add("--checkpoint", default=PUBLISHED, metavar="RUN", help=CHECKPOINT_HELP)
    add("--format", required=True, choices=("onnx", "stablehlo"))
    add("--out", type=Path, metavar="FILE", help="default: reader.onnx or reader.stablehlo in RUN")
    args = parser.parse_args(arguments)
    # Beside a run's checkpoints, but not beside the published weights.
    folder = Path() if is_weights(args.checkpoint) else Path(args.checkpoint)
    out = args.out or folder / f"reader.{args.format}"

    # The weights are float32, whatever the training computed in.
    model, charset = load_reader(args.checkpoint, dtype="float32")
    images = sample_images(charset)
    logits = np.asarray(nnx.jit(lambda model: model(images))(model))
    labels = jaxctc.ctc_greedy_decode(logits, blank_id=len(charset)).labels
    read = exporting.reader(model)
    if args.format == "onnx":
        try:
            content = exporting.to_onnx(read, charset)
        except ImportError as error:
            raise SystemExit(f"{error}: install the `export` extra") from error
        found = exporting.run_onnx(content, images)
    else:
        content = exporting.to_stablehlo(read)
        found = exporting.run_stablehlo(content, images)
        out.with_suffix(".charset.txt").write_text(charset + "\n", encoding="utf-8")
    out.write_bytes(content)

    difference = float(np.abs(found.logits - logits).max())
    same = np.array_equal(found.labels, labels)
    report = {"file": str(out), "megabytes": round(len(content) / 1e6, 2)}
    print(json.dumps({**report, "largest_difference": difference, "same_labels": same}))
    return 0 if same and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
