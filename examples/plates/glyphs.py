"""The characters of plates, drawn with fonts that pip packages bring.

The font of real plates has other proportions and thicker strokes than any of them. So each
character is drawn with several fonts and weights, and stretched unevenly.
"""

from functools import cache
from pathlib import Path

import cv2
import fontpkg_barlow_condensed
import fontpkg_jost
import numpy as np
import pylopdf_fonts_zh_cn
from PIL import Image, ImageDraw, ImageFont

from plates.charset import PROVINCES

CHINESE_FONT = pylopdf_fonts_zh_cn.sans_path()
_SERIF_FONT = pylopdf_fonts_zh_cn.serif_path()
_CONDENSED = [
    Path(fontpkg_barlow_condensed.ROOT) / "files" / f"BarlowCondensed-{weight}.ttf"
    for weight in ("Regular", "Medium", "SemiBold")
]
# A plate's 4 is closed, the stems of its 6 and 9 are straight and slanted, and the tail of its Q
# crosses the ring, as in Futura and similar fonts.
_GEOMETRIC = Path(fontpkg_jost.ROOT) / "files" / "Jost[wght].ttf"
_LIKE_FUTURA = "469Q"

# Fonts, and by how much their strokes are made thicker. Wide letters get thin when they are pressed
# into a cell, and are drawn thicker.
_CHINESE = [*((CHINESE_FONT, stroke) for stroke in (1, 3, 5, 7)), (_SERIF_FONT, 4)]
_LATIN = [*((font, 0) for font in _CONDENSED), (CHINESE_FONT, 2), (_GEOMETRIC, 0)]
_WEIGHTS = 400, 450, 550, 350, 500  # of the geometric font, where it replaces another
VARIANTS = len(_LATIN)
WARPS = 6  # ways to stretch a glyph; 0 leaves it as it is
WIDTH, HEIGHT = 45, 90  # of a glyph


@cache
def _drawn(character: str, variant: int) -> np.ndarray:
    """Returns a character's coverage in one of the fonts, uint8[h, w], large."""
    path, stroke = (_CHINESE if character in PROVINCES else _LATIN)[variant]
    if character == "川" and path == CHINESE_FONT:  # three bars
        ink = np.zeros((150, 150), np.uint8)
        for left in (10, 60, 110):
            ink[:, left : left + 14 + 2 * stroke] = 255
        return _cropped(ink)
    if character in _LIKE_FUTURA and path != CHINESE_FONT:
        path = _GEOMETRIC
    if character in "MW":
        stroke += 3
    font = ImageFont.truetype(path, 160)
    if path == _GEOMETRIC:
        font.set_variation_by_axes([_WEIGHTS[variant]])
    # A plate's 1 is a bar with a very short flag; at 24 pixels some fonts' letter I looks the same.
    return _in_font("I" if character == "1" and variant != 1 else character, font, stroke)


def _in_font(character: str, font: ImageFont.FreeTypeFont, stroke: int = 0) -> np.ndarray:
    canvas = Image.new("L", (320, 320))
    ImageDraw.Draw(canvas).text((60, 40), character, 255, font, stroke_width=stroke)
    return _cropped(np.asarray(canvas))


def _cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(ink.max(axis) > 40) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _warped(ink: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Returns a glyph some of whose parts are wider or higher, others smaller, in the same box."""
    height, width = ink.shape
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)

    def stretched(t: np.ndarray) -> np.ndarray:
        # The derivative stays positive, so nothing is turned over.
        first, second = rng.normal(0, strength, 2).clip([-0.2, -0.05], [0.2, 0.05])
        return t + first * np.sin(np.pi * t) + second * np.sin(2 * np.pi * t)

    bulge = np.sin(np.pi * x) * np.sin(np.pi * y)
    u, v = (stretched(t) + rng.normal(0, strength / 2) * bulge for t in (x, y))
    maps = (u * (width - 1)).astype(np.float32), (v * (height - 1)).astype(np.float32)
    return cv2.remap(ink, *maps, cv2.INTER_LINEAR)


@cache
def glyph(character: str, variant: int, warp: int) -> np.ndarray:
    """Returns a character's coverage, uint8[90, 45]; that of a 1 is narrower.

    Args:
      character: one of a plate.
      variant: the font and weight, less than `VARIANTS`.
      warp: the way it is stretched, less than `WARPS`.
    """
    ink = _drawn(character, variant)
    if character == "1":  # the only one that is not stretched to its cell
        width = round(HEIGHT * ink.shape[1] / ink.shape[0])
        return cv2.resize(ink, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    if warp:
        strength = 0.06 if character in PROVINCES else 0.04
        ink = _warped(ink, np.random.default_rng([ord(character), variant, warp]), strength)
    return cv2.resize(ink, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
