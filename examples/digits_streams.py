"""Writes streams of spoken digits as wav files, for digits_serve.py.

    python examples/digits_streams.py --data RECORDINGS OUT

The files are named speaker-number-digits.wav. Each is of test recordings of one speaker, with noise
and up to two seconds of silence between digits. Without --data, tones are used instead of digits.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import training
from digits import data


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write streams of spoken digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("out", help="directory to write to")
    add("--data", metavar="DIR", help="Free Spoken Digit recordings; default: tones")
    add("--count", type=int, default=256, help="streams")
    add("--digits", type=int, default=30, help="digits of a stream")
    add("--seed", type=int, default=0, help="seed of what is said and of the noise")
    args = parser.parse_args(arguments)
    training.at_least_one(parser, args, "count", "digits")
    recordings = data.load_recordings(args.data) if args.data else data.tone_recordings()
    speakers = sorted({r.speaker for r in recordings})
    Path(args.out).mkdir(parents=True, exist_ok=True)
    for i in range(args.count):
        rng = np.random.default_rng([args.seed, i])
        speaker = speakers[i % len(speakers)]
        tests = [r for r in recordings if r.speaker == speaker and r.index in data.TEST_INDICES]
        chosen = [tests[k] for k in rng.integers(len(tests), size=args.digits)]
        sound, digits, _ = data.glue(rng, chosen, silence=1.0)
        name = f"{speaker}-{i:04}-{''.join(map(str, digits))}.wav"
        data.write_wave(Path(args.out, name), sound)
    return 0


if __name__ == "__main__":
    sys.exit(main())
