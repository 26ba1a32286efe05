"""Writes the weights of a run to one file, with confidences that mean something.

    python examples/plate_publish.py RUN --calibrate PLATES/dev --out FILE

The file, in the format of safetensors, is what plate_read.py, plate_serve.py, plate_export.py and
plate_speed.py use if they get no --checkpoint. Without --out, it is the one in this repository that
is written. The plates of --calibrate, which the run must not have been trained on, give a
temperature, and the last layer is divided by it: texts stay the same, confidences change. The last
line on stdout says how well confidence and truth agree before and after: after, each plate's
temperature was fitted on four fifths of the plates without it. The picture shows the same.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import jaxctc
from plates import calibration, data, report
from plates.reading import PUBLISHED, SHIFTS, load_description, load_reader, view_logits
from recognition.charsets import encode
from recognition.weights import save_weights


def measured(confidences: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Returns the calibration error, and what may be accepted if 99.5 % of it must be right."""
    accepted = calibration.acceptance(confidences, right)
    return {
        "calibration_error": round(calibration.calibration_error(confidences, right), 4),
        "threshold": round(accepted.threshold, 4) if accepted.share else 1.0,
        "accepted": round(accepted.share, 4),
        "accepted_right": round(accepted.right, 4),
    }


def calibrate(model, plates: list[data.Plate], charset: str, picture: Path) -> dict:
    """Returns the temperature and what it does; draws it."""
    logits = view_logits(model, data.stack_images(plates), len(SHIFTS))
    width = logits.shape[2]
    truth = np.stack([encode(plate.text, charset, width) for plate in plates])
    truth_lengths = np.array([len(plate.text) for plate in plates], np.int32)
    hypotheses = jaxctc.ctc_greedy_decode(jnp.asarray(logits), blank_id=len(charset))
    # As read_images does: of the texts of all views, the most probable.
    losses = jnp.stack(
        [
            calibration.text_losses(logits, labels, lengths, np.float32(1))
            for labels, lengths in zip(hypotheses.labels, hypotheses.lengths, strict=True)
        ]
    )
    chosen = losses.argmin(0), jnp.arange(len(plates))
    labels, lengths = (np.asarray(x[chosen]) for x in (hypotheses.labels, hypotheses.lengths))
    used = np.arange(width) < truth_lengths[:, None]
    right = (lengths == truth_lengths) & (~used | (labels == truth)).all(-1)

    before = np.exp(-np.asarray(losses.min(0)))
    after = calibration.cross_validated(logits, (truth, truth_lengths), (labels, lengths))
    report.reliability_picture(picture, {"before": before, "after": after}, right)
    return {
        "images": len(plates),
        "right": int(right.sum()),
        "temperature": round(calibration.fit_temperature(logits, truth, truth_lengths), 4),
        "before": measured(before, right),
        "after": measured(after, right),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Publish the weights of a run as one file.")
    add = parser.add_argument
    add("run", metavar="RUN", help="directory of a run of plate_train.py")
    add("--calibrate", nargs="+", metavar="DIR", help="plates that were not trained on")
    add("--out", type=Path, metavar="FILE", default=PUBLISHED, help=f"default: {PUBLISHED.name}")
    args = parser.parse_args(arguments)

    config = load_description(args.run)
    model, charset = load_reader(args.run, dtype="float32")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"temperature": 1.0}
    if args.calibrate:
        plates = data.load_plates(args.calibrate, charset)
        found = calibrate(model, plates, charset, args.out.with_suffix(".png"))
        calibration.soften(model, config["model"]["name"], found["temperature"])
    description = {**config["model"], "dtype": "float32"}
    notes = {"model": description, "charset": charset, "temperature": found["temperature"]}
    save_weights(args.out, model, notes)
    size = round(args.out.stat().st_size / 1e6, 2)
    print(json.dumps({"file": str(args.out), "megabytes": size, **found}))


if __name__ == "__main__":
    main()
