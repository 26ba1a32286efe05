"""Real plates from directories, with labels from their file names; checks; training batches.

Names have one of two forms. In the plain form the label is the name up to the first `-` or `_`:
`皖A12345-2.jpg`. In CCPD's form (Xu et al., ECCV 2018) seven fields are joined by `-`; the third is
the plate's box in the photo, the fifth the label as indices into three lists.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import grain
import numpy as np

from plates import render
from plates.collage import Collage
from plates.models import FRAMES
from recognition.charsets import encode, frames_needed, unknown_characters
from recognition.images import list_images, read_image
from training.devices import drawn_batches

cv2.setNumThreads(1)  # images are tiny, and Grain already reads in several threads

LABEL_WIDTH = 12

# CCPD's own lists; the O at the end of each stands for "no character".
CCPD_PROVINCES = "皖沪津渝冀晋蒙辽吉黑苏浙京闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新警学O"
CCPD_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZO"
CCPD_OTHERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789O"
_CCPD_BOX = re.compile(r"(\d+)&(\d+)_(\d+)&(\d+)")


class Plate(NamedTuple):
    """An image, uint8[24, 94, 3] in BGR, its text ("" if unknown), and its file."""

    image: np.ndarray
    text: str
    file: str


def _ccpd_fields(file: str) -> list[str] | None:
    fields = os.path.splitext(os.path.basename(file))[0].split("-")
    is_ccpd = len(fields) == 7 and re.fullmatch(r"\d+(_\d+)+", fields[4])
    return fields if is_ccpd else None


def label_from_name(file: str) -> str:
    """Returns the label in a file's name. Raises ValueError if a CCPD name is not valid."""
    fields = _ccpd_fields(file)
    if fields is None:
        return re.split("[-_]", os.path.splitext(os.path.basename(file))[0])[0]
    text = ""
    for place, index in enumerate(map(int, fields[4].split("_"))):
        names = (CCPD_PROVINCES, CCPD_LETTERS, CCPD_OTHERS)[min(place, 2)]
        if index >= len(names) - 1:
            raise ValueError(f"CCPD's list for character {place + 1} has no index {index}")
        text += names[index]
    return text


def resize(image: np.ndarray) -> np.ndarray:
    """Returns a plate of any size as models take it, uint8[24, 94, 3]."""
    if image.shape[:2] == render.IMAGE_SIZE:
        return image
    smaller = image.shape[1] < render.WIDTH
    how = cv2.INTER_CUBIC if smaller else cv2.INTER_AREA
    return cv2.resize(image, render.IMAGE_SIZE[::-1], interpolation=how)


def load_image(file: str) -> np.ndarray:
    """Returns a file's plate, uint8[24, 94, 3] in BGR. Raises ValueError if it can't be read.

    From a photo with a CCPD name the plate's box is cut out first.
    """
    image = read_image(file)
    box = _CCPD_BOX.fullmatch(fields[2]) if (fields := _ccpd_fields(file)) else None
    if box:
        left, top, right, bottom = map(int, box.groups())
        if left >= right or top >= bottom:
            raise ValueError("the plate's box in the file name is empty")
        if right <= image.shape[1] and bottom <= image.shape[0]:  # else it is a crop already
            image = image[top:bottom, left:right]
    return resize(image)


def label_problem(text: str, charset: str) -> str | None:
    """Returns why a label can't be used for training, or None if it can."""
    if not text:
        return "the name has no label"
    if unknown := unknown_characters(text, charset):
        return f"{text}: not in the character set: {' '.join(unknown)}"
    if (needed := frames_needed(text)) > FRAMES:
        return f"{text}: needs {needed} frames, with a blank per repeat; the model has {FRAMES}"
    if len(text) > LABEL_WIDTH:
        return f"{text}: {len(text)} characters, more than {LABEL_WIDTH}"
    return None


def load_plates(directories: Sequence[str], charset: str) -> list[Plate]:
    """Returns the plates in `directories`; lists on stderr which files can't be used, and why."""
    for directory in directories:
        if not os.path.exists(directory):
            raise SystemExit(f"{directory}: no such file or directory")
    plates, problems = [], 0
    for file in list_images(directories):
        try:
            text = label_from_name(file)
            problem = label_problem(text, charset)
            if problem is None:
                plates.append(Plate(load_image(file), text, file))
        except ValueError as error:
            problem = str(error)
        if problem:
            problems += 1
            print(f"{file}: {problem}", file=sys.stderr)
    where = " ".join(map(str, directories))
    print(f"{where}: {len(plates)} plates, {problems} files left out", file=sys.stderr)
    if not plates:
        raise SystemExit(f"{where}: not one image to use")
    return plates


def _weights(plates: Sequence[Plate]) -> np.ndarray:
    """Returns the probability of drawing each plate: higher if its rarest character is rarer."""
    counts = Counter(character for plate in plates for character in plate.text)
    weights = np.array([min(counts[c] for c in plate.text) ** -0.5 for plate in plates])
    return weights / weights.sum()


def augment(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns a real plate moved, tilted, relit, and as another camera would see it."""
    height, width = render.IMAGE_SIZE
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    centred = corners - corners.mean(0)
    slant, tilt = rng.normal(0, 0.25), rng.normal(0, 0.04)
    moved = centred @ np.array([[1, tilt], [slant, 1]]) * rng.uniform(0.92, 1.08, 2)
    moved += rng.normal(0, [1.5, 1]) + rng.uniform([-2, -1], [2, 1], (4, 2))
    matrix = cv2.getPerspectiveTransform(corners, (moved + corners.mean(0)).astype(np.float32))
    scene = cv2.warpPerspective(
        image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    scene = scene.astype(np.float32) / 255
    scene = scene ** np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.25))
    scene = scene * np.exp(rng.normal(0, 0.1, 3)).astype(np.float32)
    if rng.random() < 0.3:  # something small in front
        y, x = rng.integers(height - 4), rng.integers(width - 4)
        scene[y : y + rng.integers(2, 7), x : x + rng.integers(2, 7)] = rng.random(3)
    return render.camera(rng, scene, render.HARD if rng.random() < 0.5 else render.FAIR)


def example(image: np.ndarray, text: str, charset: str) -> dict[str, np.ndarray]:
    """Returns one row of a batch: image, labels and the number of labels."""
    labels = encode(text, charset, LABEL_WIDTH)
    return {"images": image, "labels": labels, "label_lengths": np.array(len(text), np.int32)}


def training_batches(
    charset: str,
    batch_size: int,
    seed: int,
    plates: Sequence[Plate] = (),
    real_share: float = 0.0,
    rows: range | None = None,
) -> grain.DatasetIterator:
    """Returns an endless iterator of batches; each image is rendered or augmented anew.

    They can be continued: see `training.drawn_batches`.

    Args:
      charset: the characters, in class order.
      batch_size: images per batch.
      seed: the seed.
      plates: real plates; those with rarer characters are drawn more often, and half of them are
        made into plates with other texts. All are augmented.
      real_share: the part of images that are real; the others are rendered.
      rows: the rows of each batch to return; None for all.
    """

    weights = _weights(plates)
    collage = Collage([(plate.image, plate.text) for plate in plates])

    def draw(_, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if rng.random() < real_share:
            if collage.flat and rng.random() < 0.5:
                image, text = collage.draw(rng)
            else:
                image, text, _ = plates[rng.choice(len(plates), p=weights)]
            return example(augment(rng, image), text, charset)
        text = render.random_plate(rng, charset)
        return example(render.render(rng, text), text, charset)

    return drawn_batches(draw, batch_size, seed, rows)


def rendered_plates(charset: str, count: int, seed: int) -> list[Plate]:
    """Returns `count` rendered plates that are in no training batch of any seed."""
    plates = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])  # a pair: training seeds are single numbers
        text = render.random_plate(rng, charset)
        plates.append(Plate(render.render(rng, text, render.FAIR), text, f"rendered {i}"))
    return plates


def stack_images(plates: Sequence[Plate]) -> np.ndarray:
    """Returns the images as one array, uint8[N, 24, 94, 3]."""
    return np.stack([plate.image for plate in plates])
