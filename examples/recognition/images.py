"""Image files: found, read, decoded."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def list_images(paths: Sequence[str | os.PathLike]) -> list[str]:
    """Returns the image files at `paths`, and in directories at `paths`, in a fixed order.

    Names are decoded as UTF-8, whatever the locale is, because the labels are UTF-8.
    """
    found = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(os.fsencode(path))  # if it does not exist, reading it is an error
        for folder, _, names in os.walk(os.fsencode(path)):
            found += [
                os.path.join(folder, name)
                for name in names
                if name.decode("utf-8", "replace").lower().endswith(SUFFIXES)
            ]
    return [name.decode("utf-8", "surrogateescape") for name in sorted(found)]


def read_image(file: str | os.PathLike) -> np.ndarray:
    """Returns a file's image, uint8[H, W, 3] in BGR. Raises ValueError if it can't be read."""
    try:
        # Not cv2.imread, which can't open such names everywhere.
        data = np.fromfile(os.fspath(file).encode("utf-8", "surrogateescape"), np.uint8)
    except OSError as error:
        raise ValueError(f"unreadable image ({error.strerror})") from error
    return decode_image(data)


def decode_image(content: bytes | np.ndarray) -> np.ndarray:
    """Returns the image in a file's bytes, uint8[H, W, 3] in BGR. Raises ValueError if it can't."""
    try:
        data = np.frombuffer(content, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:  # such as too many pixels
        image = None
    if image is None:
        raise ValueError("unreadable image")
    return image


def load_images(
    paths: Sequence[str | os.PathLike], load: Callable[[str], Any]
) -> tuple[list[str], list[Any], int]:
    """Loads the image files at `paths`; lists on stderr which can't be read, and why.

    Args:
      paths: as of `list_images`.
      load: maps a file to its image; raises ValueError if it can't be read.

    Returns:
      The files that were read, their images, and how many others there were.
    """
    files, images, failures = [], [], 0
    for file in list_images(paths):
        try:
            images.append(load(file))
            files.append(file)
        except ValueError as error:
            failures += 1
            print(f"{file}: {error}", file=sys.stderr)
    return files, images, failures
