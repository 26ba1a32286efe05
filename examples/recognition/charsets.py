"""Character sets, and texts as classes.

A character set is a string; a character's class is its position, and one more class, the
last, is the CTC blank.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np


def load_charset(path: str | Path) -> str:
    """Returns the characters of a UTF-8 text file, in order.

    White space is skipped, so a file may have one character per line or all in one line.
    """
    characters = "".join(Path(path).read_text(encoding="utf-8").split())
    if not characters:
        raise SystemExit(f"{path}: the character set is empty")
    doubled = sorted({c for c in characters if characters.count(c) > 1})
    if doubled:
        raise SystemExit(f"{path}: given more than once: {' '.join(doubled)}")
    return characters


def unknown_characters(text: str, charset: str) -> str:
    """Returns the characters of `text` that are not in `charset`, each once, in order."""
    return "".join(c for c in dict.fromkeys(text) if c not in charset)


def frames_needed(text: str) -> int:
    """Returns the least number of frames for CTC: one per character, and one blank per repeat."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def encode(text: str, charset: str, width: int) -> np.ndarray:
    """Returns `text` as classes, int32[width], padded with zeros."""
    classes = np.zeros(width, np.int32)
    classes[: len(text)] = [charset.index(c) for c in text]
    return classes


def decode(classes, charset: str) -> str:
    """Returns the text of a sequence of classes; negative ones are padding."""
    return "".join(charset[c] for c in classes if c >= 0)
