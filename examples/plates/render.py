"""Renders licence plates as a camera and a plate detector would deliver them, with labels.

A plate is laid out in millimetres as in the Chinese standard (GA 36): blue plates have seven
characters in white, green ones eight in black. It is drawn as four flat layers (ink, plate,
height on the plate, fittings), which are put into perspective and scaled down together. Colours,
light and camera are added after that, on few pixels. In this order a plate takes a
fraction of a millisecond, so training can render every image anew.

Images are uint8[24, 94, 3] in BGR, as OpenCV reads them.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from plates import glyphs
from plates.charset import DIGITS, LETTERS, PROVINCES

IMAGE_SIZE = HEIGHT, WIDTH = 24, 94
SCALE = 0.5  # canvas pixels per millimetre: twice as many as in the crop
SUPERSAMPLE = 2  # the perspective is drawn this many times larger, then averaged down

# Left edges and widths of the characters in millimetres. They are 90 high, from 25 to 115.
BLUE_CELLS = [(15.5, 45), (72.5, 45)] + [(151.5 + 57 * i, 45) for i in range(5)]
GREEN_CELLS = [(15.5, 45), (69.5, 43)] + [(161.5 + 52 * i, 43) for i in range(6)]


def _pick(rng: np.random.Generator, options):
    """Returns one of `options`, ten times as fast as Generator.choice."""
    return options[rng.integers(len(options))]


class Conditions(NamedTuple):
    """How different plates and cameras are.

    Attributes:
      warps: in how many ways each glyph is stretched.
      slopes: standard deviations of the base line's slope, of which one is drawn.
      slant: the standard deviation of the slant of vertical lines.
      far: that of how much smaller the far end of the plate is.
      margin: how far the detector's box is inside and outside of the plate, in heights of it.
      coarse: the probability of fewer pixels than the crop has.
      blurred: that of blur.
      blur: its highest standard deviation in pixels.
      moved: the probability of motion blur.
      sharpened: that of sharpening, which cameras do.
      glare: that of a reflected lamp or sun.
    """

    warps: int
    slopes: tuple[float, ...]
    slant: float
    far: float
    margin: tuple[float, float]
    coarse: float
    blurred: float
    blur: float
    moved: float
    sharpened: float
    glare: float


# As most pictures are; the rendered plates of tests are so.
FAIR = Conditions(1, (0.02,), 0.13, 0.02, (0.08, 0.04), 0.06, 0.12, 0.6, 0.02, 0.65, 0.0)
# As far from that as readable pictures go. Slopes and margins are those of the photos that
# `collage.py` finds the plates in, or a little more; blur is stronger.
HARD = Conditions(
    glyphs.WARPS, (0.03, 0.06, 0.12), 0.15, 0.05, (0.06, 0.1), 0.15, 0.6, 1.1, 0.12, 0.4, 0.08
)


@cache
def _groups(charset: str) -> tuple[str, str, str]:
    """Returns the provinces, letters and digits that `charset` has."""
    provinces, letters, digits = (
        "".join(c for c in group if c in charset) for group in (PROVINCES, LETTERS, DIGITS)
    )
    return provinces, letters, digits


def can_render(charset: str) -> bool:
    """Returns whether `charset` has the characters of plates."""
    return all(_groups(charset))


def random_plate(rng: np.random.Generator, charset: str) -> str:
    """Returns a possible text of a plate; about a third are green (electric cars)."""
    provinces, letters, digits = _groups(charset)
    head = _pick(rng, provinces) + _pick(rng, letters)
    mixed = "".join(_pick(rng, letters if rng.random() < 0.3 else digits) for _ in range(5))
    if rng.random() < 0.65:
        return head + mixed
    numbers = "".join(_pick(rng, digits) for _ in range(4))
    # Small cars have the letter of their kind first, perhaps followed by another; large cars last.
    if rng.random() < 0.8:
        return head + _pick(rng, letters) + mixed[0] + numbers
    return head + numbers + _pick(rng, digits) + _pick(rng, letters)


def render(rng: np.random.Generator, text: str, conditions: Conditions | None = None) -> np.ndarray:
    """Returns an image of the plate `text`, uint8[24, 94, 3]; green if it has eight characters.

    Without `conditions` they are HARD for most plates, and FAIR for the others.
    """
    conditions = conditions or (HARD if rng.random() < 0.7 else FAIR)
    layers = _view(rng, _layers(rng, text, conditions.warps), conditions)
    return camera(rng, _colour(rng, layers, len(text) == 8, conditions.glare), conditions)


# --- the flat plate ---------------------------------------------------------------------------


@cache
def _blank_plate(green: bool, frame: float) -> np.ndarray:
    """Returns the layers of a plate without characters, uint8[h, w, 4]."""
    width, height = round((480 if green else 440) * SCALE), round(140 * SCALE)
    layers = np.zeros((height, width, 4), np.uint8)
    layers[..., 1] = 255
    layers[..., 2] = np.linspace(0, 255, height)[:, None]
    ink = np.zeros((height, width), np.uint8)
    inset = round(4 * SCALE)
    corners = (inset, inset), (width - 1 - inset, height - 1 - inset)
    cv2.rectangle(ink, *corners, round(255 * frame), 1, cv2.LINE_AA)
    if green:  # the emblem of electric cars, a ring with a bar
        centre = round(137 * SCALE), round(70 * SCALE)
        cv2.circle(ink, centre, round(17 * SCALE), 160, 2, cv2.LINE_AA)
        cv2.line(ink, (centre[0] - 4, centre[1]), (centre[0] + 4, centre[1]), 160, 2)
    else:
        cv2.circle(ink, (round(134.5 * SCALE), round(70 * SCALE)), round(5.5 * SCALE), 255, -1)
    layers[..., 0] = ink
    return layers


def _put(ink: np.ndarray, glyph: np.ndarray, centre: float, width: int, height: int) -> None:
    """Draws a glyph on the ink of a flat plate, `centre` millimetres from its left edge."""
    if glyph.shape[1] < glyphs.WIDTH:  # a 1 keeps its proportions
        width = max(2, round(height * glyph.shape[1] / glyphs.HEIGHT))
    glyph = cv2.resize(glyph, (width, height), interpolation=cv2.INTER_AREA)
    x, y = round(centre * SCALE - width / 2), round(70 * SCALE - height / 2)
    patch = ink[y : y + height, x : x + width]
    np.maximum(patch, glyph, out=patch)


def _layers(rng: np.random.Generator, text: str, warps: int) -> np.ndarray:
    """Returns ink, plate, height and fittings of a flat plate, uint8[h, w, 4]."""
    green = len(text) == 8
    layers = _blank_plate(green, _pick(rng, [0.4, 0.7, 1.0])).copy()
    variant, weight = rng.integers(glyphs.VARIANTS, size=2).tolist()
    squeeze = _pick(rng, [0.88, 0.94, 1.0])
    for i, (character, (left, cell)) in enumerate(
        zip(text, GREEN_CELLS if green else BLUE_CELLS, strict=True)
    ):
        width, height = round(cell * SCALE * squeeze), round(_pick(rng, [86, 90, 94]) * SCALE)
        warp = int(rng.integers(warps))
        glyph = glyphs.glyph(character, weight if i == 0 else variant, warp)
        _put(layers[..., 0], glyph, left + cell / 2, width, height)
    # Two screws above, sometimes two below, often hiding a corner of a character.
    if rng.random() < 0.7:
        fittings = np.zeros(layers.shape[:2], np.uint8)
        inset = rng.uniform(90, 125) * SCALE
        rows = [rng.uniform(6, 20), rng.uniform(120, 134)][: rng.integers(1, 3)]
        for x in (inset, layers.shape[1] - inset):
            for y in rows:
                radius = rng.uniform(3, 9) * SCALE
                cv2.circle(fittings, (round(x), round(y * SCALE)), round(radius), 255, -1)
        layers[..., 3] = fittings
    return layers


def flat_ink(text: str) -> np.ndarray:
    """Returns the ink of a flat blue plate, float32[h, w] in 0…1, a little blurred."""
    ink = _blank_plate(False, 1.0)[..., 0].copy()
    for character, (left, cell) in zip(text, BLUE_CELLS, strict=True):
        size = round(0.97 * cell * SCALE), round(90 * SCALE)
        _put(ink, glyphs.glyph(character, 1, 0), left + cell / 2, *size)
    return cv2.GaussianBlur(ink, (0, 0), 1.5).astype(np.float32) / 255


# --- the view of the plate --------------------------------------------------------------------


def _view(rng: np.random.Generator, layers: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Returns the layers as a detector crops them, float32[24, 94, 4] in 0…1.

    A detector's box is upright and roughly touches the outermost corners of the tilted plate.
    """
    height, width = layers.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    angle = np.deg2rad(np.clip(rng.normal(0, 4.5), -12, 12))
    shear_x = rng.normal(0, conditions.slant)
    shear_y = rng.normal(0, _pick(rng, conditions.slopes))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    quad = (corners - corners.mean(0)) @ np.array([[1, shear_y], [shear_x, 1]]) @ turn.T
    quad *= 1 + rng.uniform(-0.03, 0.03, (4, 1))
    # The far end is smaller.
    quad[:, 1] *= np.exp(rng.normal(0, conditions.far) * np.sign(quad[:, 0]))
    low, high = quad.min(0), quad.max(0)
    size = high - low
    inside, outside = conditions.margin
    low = low - size * rng.uniform([-0.03, -outside], [0.03, inside])
    high = high + size * rng.uniform([-0.03, -outside], [0.03, inside])
    target = (quad - low) / (high - low) * [WIDTH * SUPERSAMPLE, HEIGHT * SUPERSAMPLE]
    matrix = cv2.getPerspectiveTransform(corners, target.astype(np.float32))
    seen = cv2.warpPerspective(layers, matrix, (WIDTH * SUPERSAMPLE, HEIGHT * SUPERSAMPLE))
    small = cv2.resize(seen, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _colour(rng: np.random.Generator, layers: np.ndarray, green: bool, glare: float) -> np.ndarray:
    """Returns the lit scene, float32[24, 94, 3] in BGR with 1 as white."""
    ink, plate, level, fittings = (layers[..., i : i + 1] for i in range(4))
    if green:
        top = np.array([0.93, 0.97, 0.93]) - rng.uniform(0, 0.12, 3)
        bottom = np.array([0.45, 0.78, 0.30]) + rng.uniform(-0.15, 0.15, 3)
        surface = top + (bottom - top) * np.clip(level * rng.uniform(0.9, 1.6), 0, 1)
        ink_colour = rng.uniform(0.02, 0.15, 3)
    else:
        hue, saturation = rng.uniform(202, 240) / 60, rng.uniform(0.6, 1)
        # On the hue circle from cyan (180°) to blue (240°) there is no red, and green decreases.
        rgb = np.array([0, 4 - hue, 1])
        surface = (1 - saturation * (1 - rgb[::-1])) * rng.uniform(0.55, 0.9)
        ink_colour = rng.uniform(0.75, 1) + rng.uniform(-0.06, 0.06, 3)
    around = rng.uniform(0, 0.9) * rng.uniform(0.7, 1, 3)
    # Bumpers and grilles are horizontal: few patches side by side, up to ten above each other.
    patches = rng.uniform(-0.35, 0.35, (rng.integers(2, 11), rng.integers(1, 5), 1))
    patches = around + patches * rng.uniform(0.6, 1, 3)
    background = cv2.resize(patches, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    scene = background + (surface - background) * plate
    scene = scene + (ink_colour - scene) * (ink * rng.uniform(0.8, 1))
    scene = scene + (rng.uniform(0, 1) - scene) * (fittings * rng.uniform(0.4, 1))
    # Light: a slope over the picture, sometimes the edge of a shadow, haze, exposure and a cast.
    x, y = np.linspace(-1, 1, WIDTH)[:, None], np.linspace(-1, 1, HEIGHT)[:, None, None]
    light = 1 + rng.normal(0, 0.1) * x + rng.normal(0, 0.1) * y
    if rng.random() < 0.1:
        edge = x * rng.normal() + y * rng.normal() + rng.normal(0, 0.5)
        light = light * np.where(edge > 0, 1, rng.uniform(0.4, 0.9))
    haze = rng.uniform(0, 0.25) if rng.random() < 0.15 else 0.0
    scene = scene * light * (1 - haze) + haze * rng.uniform(0.4, 1)
    if rng.random() < glare:  # a lamp or the sun, reflected by a part of the plate
        far = (x - rng.uniform(-1, 1)) ** 2 / rng.uniform(0.02, 0.5) + y**2 * rng.uniform(0, 2)
        scene = scene + rng.uniform(0.2, 0.5) * np.exp(-far)
    exposure = np.exp(np.clip(rng.normal(0.05, 0.35), -1.2, 0.5))
    return (scene * exposure * np.exp(rng.normal(0, 0.1, 3))).astype(np.float32)


@cache
def _noise() -> np.ndarray:
    """Returns an array of normal noise to cut from, since drawing noise is slow."""
    return np.random.default_rng(0).standard_normal((512, 512, 3), np.float32)


def camera(rng: np.random.Generator, scene: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Returns a camera's image of a scene: uint8, blurred, coarse, noisy and JPEG-coded."""
    if rng.random() < conditions.coarse:  # far away: fewer pixels than the crop has
        share = rng.uniform(0.65, 0.95)
        coarse = cv2.resize(
            scene, (round(WIDTH * share), round(HEIGHT * share)), interpolation=cv2.INTER_AREA
        )
        scene = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    if rng.random() < conditions.blurred:
        scene = cv2.GaussianBlur(scene, (5, 5), rng.uniform(0.3, conditions.blur))
    if rng.random() < conditions.moved:  # while the shutter was open
        scene = cv2.blur(scene, _pick(rng, [(2, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2)]))
    if rng.random() < conditions.sharpened:
        scene = scene + rng.uniform(0.3, 1.5) * (scene - cv2.GaussianBlur(scene, (5, 5), 1.0))
    y, x = rng.integers(512 - HEIGHT), rng.integers(512 - WIDTH)
    sheet = _noise()[y : y + HEIGHT, x : x + WIDTH]
    # Noise is larger, compared with the light, in darker scenes, but never hides the plate.
    scene = scene + sheet * min(rng.exponential(0.012), 0.08 * float(scene.std()))
    picture = (np.clip(scene, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.7:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
        coded = cv2.imencode(".jpg", picture, quality)[1]
        picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return picture
