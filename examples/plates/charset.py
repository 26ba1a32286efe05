"""Characters of Chinese licence plates: 67, which with the blank make 68 classes."""

from pathlib import Path

from recognition.charsets import load_charset

PROVINCES = "京沪津渝冀晋蒙辽吉黑苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新"
DIGITS = "0123456789"
# I and O look like 1 and 0, so no plate has them. The published networks still have classes for
# them, after Z, and their weights need this order.
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
PLATE_CHARACTERS = PROVINCES + DIGITS + LETTERS + "IO"


def charset_of(path: str | Path | None) -> str:
    """Returns the characters of a file, see `load_charset`; without a file, those of plates."""
    return load_charset(path) if path else PLATE_CHARACTERS
