"""Writes the weights of a run of text_train.py to one file.

    python examples/text_publish.py RUN --out FILE

The file, in the format of safetensors, is what text_read.py uses if it gets no --checkpoint.
Without --out, it is the one in this repository that is written.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from recognition.weights import save_weights
from text.reading import PUBLISHED, load_reader


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Publish the weights of a run as one file.")
    add = parser.add_argument
    add("run", metavar="RUN", help="directory of a run of text_train.py")
    add("--out", type=Path, metavar="FILE", default=PUBLISHED, help=f"default: {PUBLISHED.name}")
    args = parser.parse_args(arguments)

    model, config = load_reader(args.run, dtype="float32")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    notes = {"model": {**config["model"], "dtype": "float32"}}
    save_weights(args.out, model, notes | {key: config[key] for key in ("characters", "charset")})
    print(json.dumps({"file": str(args.out), "bytes": args.out.stat().st_size}))


if __name__ == "__main__":
    main()
