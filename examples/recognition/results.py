"""What was read of images: printed, and scored."""

import json
import sys
from collections.abc import Iterable, Sequence

import numpy as np

import jaxctc

# Names of files in a table: a tab or a line feed would break its rows.
ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"})


def print_utf8() -> None:
    """Makes stdout and stderr UTF-8, whatever the locale is."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore


def print_readings(
    files: Sequence[str], texts: Sequence[str], confidences: Iterable[float], labels: Sequence[str]
) -> None:
    """Prints a line `file<TAB>text<TAB>confidence` each; last the scores of those with a label."""
    for file, text, confidence in zip(files, texts, confidences, strict=True):
        print(f"{file.translate(ESCAPES)}\t{text}\t{confidence:.4f}")
    labelled = [pair for pair in zip(texts, labels, strict=True) if pair[1]]
    if labelled:
        print(json.dumps(scores(*zip(*labelled, strict=True))))


def _code_points(texts: Sequence[str]) -> np.ndarray:
    """Returns texts as rows of code points, padded with -1."""
    width = max(1, *map(len, texts))
    return np.array([[*map(ord, text), *[-1] * (width - len(text))] for text in texts])


def scores(read: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Returns the number of images, the part read exactly, and the character error rate."""
    right = sum(a == b for a, b in zip(read, truth, strict=True))
    return {
        "images": len(truth),
        "exact_match": round(right / len(truth), 6),
        "character_error_rate": round(
            float(jaxctc.error_rate(_code_points(read), _code_points(truth))), 6
        ),
    }
