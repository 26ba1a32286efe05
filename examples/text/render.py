"""Renders lines of text as a scanner, a camera or a screen would deliver them.

Text is drawn at 36 pixels per em, then moved, sheared and scaled down to lines of 24 rows; light,
blur and noise are added on those few pixels. A line takes about a millisecond of a processor, so
training renders each anew. Images are uint8[24, W], grey.
"""

from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recognition.charsets import frames_needed
from text.corpus import random_line, shorten
from text.fonts import EM, Family, face
from text.shapes import HEIGHT, frames

SUPERSAMPLE = 2  # the line is drawn this many times larger, then averaged down
PAD, BASELINE, CANVAS = EM, 2 * EM, 3 * EM  # of the canvas, in its pixels


def random_face(rng: np.random.Generator, families: list[Family]) -> ImageFont.FreeTypeFont:
    """Returns a font: each family is as probable as the others."""
    files = families[rng.integers(len(families))].files
    file, weights = files[rng.integers(len(files))]
    return face(file, weights[rng.integers(len(weights))])


def render(
    rng: np.random.Generator,
    families: list[Family],
    characters: str,
    limit: int,
    *,
    held_out: bool = False,
) -> tuple[np.ndarray, str]:
    """Returns an image of at most `limit` columns, and its text.

    Args:
      rng: all that is random comes from it.
      families: the fonts to choose from.
      characters: "latin" or "greek".
      limit: the width that the line nearly fills.
      held_out: whether the text is that held out for tests.
    """
    font = random_face(rng, families)
    text = random_line(rng, characters, max(1, round(limit / 8.5)), held_out=held_out)
    stretch = np.exp(np.clip(rng.normal(0, 0.08), -0.2, 0.2))
    # Training has spaces and letters of more widths than the fonts, since new fonts have others.
    tracking = max(-0.02, rng.normal(0, 0.015 if held_out else 0.02)) * EM
    space = 1.0 if held_out else rng.uniform(0.65, 1.2)
    left, right = rng.uniform(0, 0.5, 2) * EM
    above, below = rng.uniform(-0.04, 0.16, 2)
    tight = rng.random() < 0.5
    while True:
        canvas, end = _draw(font, text, tracking, space)
        top, bottom = _rows(font, canvas, tight)
        top, bottom = top - above * (bottom - top), bottom + below * (bottom - top)
        scale = HEIGHT / (bottom - top)
        start = PAD - left
        width = round((end + right - start) * scale * stretch)
        room = min(limit / width, frames(width) / frames_needed(text), limit / 4 / len(text))
        if room >= 1 or len(text) == 1:
            break
        kept = max(1, min(len(text) - 1, int(len(text) * room)))
        text = shorten(text, kept, whole_words=held_out)
    width = max(HEIGHT // 4, min(width, limit))
    matrix = np.array([[scale * stretch, 0, -start * scale * stretch], [0, scale, -top * scale]])
    lean, slope = rng.normal(0, 0.05), rng.uniform(-1, 1) / max(width, 2 * HEIGHT)
    tilt = np.array([[1, lean, -lean * HEIGHT / 2], [slope, 1, -slope * width / 2], [0, 0, 1]])
    matrix = (tilt @ np.vstack([matrix, [0, 0, 1]]))[:2] * SUPERSAMPLE
    size = width * SUPERSAMPLE, HEIGHT * SUPERSAMPLE
    large = cv2.warpAffine(canvas, matrix, size, flags=cv2.INTER_LINEAR)
    small = cv2.resize(large, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    return camera(rng, _light(rng, small.astype(np.float32) / 255)), text


@cache
def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple[np.ndarray, int, float]:
    """Returns a character's coverage, uint8[CANVAS, w], its first column, and its advance."""
    canvas = Image.new("L", (2 * PAD + 2 * EM, CANVAS))
    ImageDraw.Draw(canvas).text((PAD, BASELINE), character, 255, font, anchor="ls")
    coverage = np.asarray(canvas)
    ink = coverage.max(0).nonzero()[0]
    first, end = (ink[0], ink[-1] + 1) if len(ink) else (PAD, PAD)
    return coverage[:, first:end].copy(), first - PAD, font.getlength(character)


def _draw(
    font: ImageFont.FreeTypeFont, text: str, tracking: float, space: float
) -> tuple[np.ndarray, float]:
    """Returns the coverage of text, uint8[CANVAS, width], and the column where the text ends.

    The text begins at column `PAD`. Glyphs are drawn once; `tracking` is added to each advance,
    and those of spaces are multiplied by `space`.
    """
    glyphs = [_glyph(font, character) for character in text]
    advances = np.array([advance for _, _, advance in glyphs]) + tracking
    advances[[character == " " for character in text]] *= space
    ends = PAD + np.cumsum(advances)
    canvas = np.zeros((CANVAS, int(ends.max()) + 3 * PAD), np.uint8)
    for (coverage, offset, _), pen in zip(glyphs, ends - advances, strict=True):
        first = round(pen) + offset
        part = canvas[:, first : first + coverage.shape[1]]
        np.maximum(part, coverage, out=part)
    return canvas, float(ends[-1])


@cache
def _usual_rows(font: ImageFont.FreeTypeFont) -> tuple[float, float]:
    box = font.getbbox("Ålpgjφ|", anchor="ls")
    return BASELINE + box[1], BASELINE + box[3]


def _rows(font, canvas: np.ndarray, tight: bool) -> tuple[float, float]:
    """Returns the first row and the end of a line: those of its ink, or those usual for the font.

    A detector's box is tight, but a line of dots is not as high as one of letters.
    """
    ink = canvas.max(1).nonzero()[0]
    if not tight or not len(ink):
        return _usual_rows(font)
    top, bottom = min(ink[0], BASELINE - 0.6 * EM), max(ink[-1] + 1, BASELINE)
    return top, bottom


def _light(rng: np.random.Generator, ink: np.ndarray) -> np.ndarray:
    """Returns the lit line, float32[24, W] with 1 as white."""
    height, width = ink.shape
    ink = np.power(ink, np.float32(np.exp(rng.normal(0, 0.3))))
    paper, contrast = rng.uniform(0.45, 1), rng.uniform(0.25, 0.9)
    scene = np.full(ink.shape, paper, np.float32)
    if rng.random() < 0.3:  # paper that is not even, or a picture behind the text
        patches = rng.normal(0, 0.08 * contrast, (rng.integers(1, 4), rng.integers(2, 8)))
        scene += cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    scene *= 1 + rng.normal(0, 0.08) * x + rng.normal(0, 0.04) * y
    scene -= paper * contrast * ink
    if rng.random() < 0.05:  # a rule above or below
        scene[rng.choice([0, 1, height - 2, height - 1])] -= paper * contrast * rng.uniform(0.5, 1)
    return 1 - scene if rng.random() < 0.2 else scene


@cache
def _noise() -> np.ndarray:
    """Returns an array of normal noise to cut from, since drawing noise is slow."""
    return np.random.default_rng(0).standard_normal((HEIGHT, 1 << 16), np.float32)


def camera(rng: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """Returns a camera's image of a scene float32[24, W]: blurred, coarse, noisy, JPEG-coded."""
    height, width = scene.shape
    if rng.random() < 0.15:  # fewer pixels than the line has
        share = rng.uniform(0.65, 0.95)
        size = max(2, round(width * share)), round(height * share)
        coarse = cv2.resize(scene, size, interpolation=cv2.INTER_AREA)
        scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    kind = rng.random()
    if kind < 0.3:
        scene = cv2.GaussianBlur(scene, (5, 5), rng.uniform(0.3, 0.9))
    elif kind < 0.5:  # scanners sharpen
        scene = scene + rng.uniform(0.2, 1) * (scene - cv2.GaussianBlur(scene, (5, 5), 1.0))
    first = rng.integers(_noise().shape[1] - width)
    noise = _noise()[:, first : first + width]
    scene = scene + noise * min(rng.exponential(0.02), 0.3 * float(scene.std()))
    picture = (np.clip(scene, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))]
        coded = cv2.imencode(".jpg", picture, quality)[1]
        picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))
    return picture
