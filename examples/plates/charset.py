"""Characters of Chinese licence plates, and their classes.

A character set is a string; a character's class is its position, and one more class, the
last, is the CTC blank. So the 67 characters of plates make 68 classes with blank 67.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np

PROVINCES = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新"
DIGITS = "0123456789"
# I and O look like 1 and 0, so no plate has them. The published networks still have classes for
# them, after Z, and their weights need this order.
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
PLATE_CHARACTERS = PROVINCES + DIGITS + LETTERS + "IO"


def load_charset(path: str | Path | None) -> str:
    """Returns the characters of a UTF-8 text file, in order; without a file, those of plates.

    White space is skipped, so a file may have one character per line or all in one line.
    """
    if path is None:
        return PLATE_CHARACTERS
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
