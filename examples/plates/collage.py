"""Real plates with other texts: characters are cut out of real plates and pasted into others.

Few labelled plates have few combinations of characters, and hardly any of some letters and
provinces. Where the characters are is known from the layout of a blue plate, once it is known how
the plate lies in the picture. So a flat drawing of each plate's text is registered with its picture
by the enhanced correlation coefficient (Evangelidis and Psarakis, PAMI 2008).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from plates import render
from plates.charset import PROVINCES

WIDTH, HEIGHT = 220, 70  # of a flat plate: `render.SCALE` pixels per millimetre
LEAST_CORRELATION = 0.65  # of a picture with the drawing of its text, for its characters to be used
BORDER = 5  # pixels of the plate around a character that are pasted with it
# Where the search for the plate's place begins: the slope of its base line, in heights of the
# picture, and the slant of its characters, in pixels per row.
STARTS = [(y, x) for y in (0, -0.15, 0.15, -0.3, 0.3, -0.5, 0.5) for x in (0, -0.6, 0.6)]


class Flat(NamedTuple):
    """A plate seen from the front.

    Attributes:
      image: float32[70, 220, 3].
      text: seven characters.
      picture: that of the plate as it was, uint8[24, 94, 3].
      matrix: the homography from the flat plate to the picture, [3, 3].
      mean, spread: of each colour of `image`, float32[3].
    """

    image: np.ndarray
    text: str
    picture: np.ndarray
    matrix: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def _contrast(picture: np.ndarray) -> np.ndarray:
    """Returns how light each pixel is, compared with those near it. Blue has little red."""
    light = picture[..., 2] * np.float32(0.6) + picture[..., 1] * np.float32(0.4)
    around = cv2.GaussianBlur(light, (0, 0), 5)
    spread = np.sqrt(cv2.GaussianBlur((light - around) ** 2, (0, 0), 6))
    return (light - around) / (spread + 6)


def _start(slope: float, slant: float) -> np.ndarray:
    """Returns the homography of a plate that touches the picture's edges."""
    corners = np.array([[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]], np.float32)
    x, y = (corners / [WIDTH, HEIGHT] - 0.5).T
    height, width = render.IMAGE_SIZE
    v = y * height * (1 - 0.8 * abs(slope))
    u = x * (width - 4) * (1 - 0.3 * abs(slant)) - slant * v
    target = np.stack([u + width / 2, v + slope * height * x + height / 2], 1)
    return cv2.getPerspectiveTransform(corners, target.astype(np.float32)).astype(np.float32)


def flatten(picture: np.ndarray, text: str) -> Flat | None:
    """Returns the picture of a blue plate with seven characters from the front, if it is found."""
    drawing = render.flat_ink(text)
    centred = drawing - drawing.mean()
    contrast = _contrast(picture)
    inverse = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def likeness(start: np.ndarray) -> float:
        seen = cv2.warpPerspective(contrast, start, (WIDTH, HEIGHT), flags=inverse)
        return float((seen * centred).sum() / (seen.std() + 1e-6))

    starts = sorted((_start(*start) for start in STARTS), key=likeness, reverse=True)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 1e-4)
    best, matrix = LEAST_CORRELATION, None
    everywhere = np.full(render.IMAGE_SIZE, 255, np.uint8)
    for start in starts[:4]:
        try:
            found, moved = cv2.findTransformECC(
                drawing, contrast, start, cv2.MOTION_HOMOGRAPHY, stop, everywhere, 3
            )
        except cv2.error:  # it did not converge
            continue
        if found > best:
            best, matrix = found, moved
        if best > 0.8:
            break
    if matrix is None:
        return None
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    image = cv2.warpPerspective(
        picture, matrix, (WIDTH, HEIGHT), flags=how, borderMode=cv2.BORDER_REPLICATE
    )
    image = image.astype(np.float32)
    return Flat(image, text, picture, matrix, image.mean((0, 1)), image.std((0, 1)))


def _cell(place: int) -> tuple[slice, slice]:
    """Returns the rows and columns of a character of a flat plate, with a border."""
    left, width = (round(x * render.SCALE) for x in render.BLUE_CELLS[place])
    return slice(12 - BORDER, 58 + BORDER), slice(left - BORDER, left + width + BORDER)


def _faded() -> np.ndarray:
    """Returns the weights of a pasted cell: 1, and less at its edges."""
    height, width = (part.stop - part.start for part in _cell(2))
    ramps = [
        np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / BORDER for n in (height, width)
    ]
    return np.minimum(np.minimum.outer(*ramps), 1).astype(np.float32)[..., None]


class Collage:
    """Draws plates with new texts.

    Args:
      plates: pictures uint8[24, 94, 3] and their texts. Only blue ones, with seven characters,
        whose place in the picture is found, are used.

    Attributes:
      flat: those that are used.
    """

    def __init__(self, plates: Sequence[tuple[np.ndarray, str]]):
        found = (
            flatten(picture, text)
            for picture, text in plates
            if len(text) == 7 and text[0] in PROVINCES
        )
        self.flat = [flat for flat in found if flat is not None]
        self._faded = _faded()
        # For each character, where it is; provinces are apart from the rest.
        self._provinces: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._others: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, flat in enumerate(self.flat):
            for place, character in enumerate(flat.text):
                (self._others if place else self._provinces)[character].append((i, place))
        counts = np.array([len(x) for x in self._provinces.values()], float)
        self._province_weights = counts**0.5 / (counts**0.5).sum()

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Returns a picture, and its text: a real plate, some of whose characters are others."""
        base = self.flat[rng.integers(len(self.flat))]
        image, text = base.image.copy(), list(base.text)
        weights = np.zeros((HEIGHT, WIDTH, 1), np.float32)
        share = rng.uniform(0.2, 1)
        for place in range(7):
            if rng.random() > share:
                continue
            group = self._others if place else self._provinces
            names = list(group)
            if place == 0:
                name = names[rng.choice(len(names), p=self._province_weights)]
            else:
                name = names[rng.integers(len(names))]
                if place == 1 and name.isdigit():
                    continue
            number, at = group[name][rng.integers(len(group[name]))]
            other = self.flat[number]
            rows, columns = _cell(place)
            # The other plate's contrast and light are made those of this one.
            relit = base.spread / (other.spread + 1)
            patch = (other.image[_cell(at)] - other.mean) * relit + base.mean
            image[rows, columns] += self._faded * (patch - image[rows, columns])
            weights[rows, columns] = np.maximum(weights[rows, columns], self._faded)
            text[place] = name
        layers = np.concatenate([image, 255 * weights], axis=2)
        size = render.IMAGE_SIZE[::-1]
        seen = cv2.warpPerspective(layers, base.matrix, size, borderMode=cv2.BORDER_CONSTANT)
        share = np.minimum(seen[..., 3:] / 255, 1)
        picture = base.picture + share * (seen[..., :3] - base.picture)
        return picture.clip(0, 255).astype(np.uint8), "".join(text)
