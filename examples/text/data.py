"""Labelled images of lines: their tables, the checks of these, and training batches.

A table has a line `image<TAB>text` for each image, as PaddleOCR (`rec_gt_train.txt`) and the
trainers of EasyOCR and deep-text-recognition-benchmark (`gt.txt`) have it. Names are relative to
the table's folder.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import grain
import numpy as np

from recognition.charsets import encode, frames_needed, unknown_characters
from recognition.images import read_image
from text import fonts, render
from text.corpus import tidy
from text.shapes import HEIGHT, READING_WIDTHS, WIDTHS, bucket, frames
from training.devices import drawn_batches

TABLES = ("gt.txt", "rec_gt_train.txt", "rec_gt_test.txt", "labels.tsv")
MAX_LABELS = {width: width // 4 for width in READING_WIDTHS}  # a narrow i has four columns
EVALUATION_WIDTHS = 48, 640
# The first batches have short lines, whose alignment is learnt sooner, and at less cost.
SHORT_BATCHES = 300


class Line(NamedTuple):
    """An image, uint8[24, W], grey, its text ("" if unknown), and its file."""

    image: np.ndarray
    text: str
    file: str


def fit_height(image: np.ndarray) -> np.ndarray:
    """Returns a grey line of any height as models take it, uint8[24, W].

    Raises:
      ValueError: If it would be wider than the widest line that is read.
    """
    height, width = image.shape
    width = max(1, round(width * HEIGHT / height))
    if width > READING_WIDTHS[-1]:
        longest = READING_WIDTHS[-1] // HEIGHT
        raise ValueError(f"the image is more than {longest} times as wide as it is high")
    if height == HEIGHT:
        return image
    how = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC
    return cv2.resize(image, (width, HEIGHT), interpolation=how)


def trim(image: np.ndarray) -> np.ndarray:
    """Returns a grey line without most of its empty margins.

    Outer columns and rows are empty if their values differ by less than a seventh of those of the
    image. A margin of a quarter of the height is left at both ends, and of a tenth above and below.
    """
    for axis, share in ((1, 4), (0, 10)):
        used = np.flatnonzero(np.ptp(image, axis=1 - axis) * 7.0 >= np.ptp(image))
        kept = image.shape[0] // share  # the second time, of the text's own height
        if axis == 0:
            kept = (used[-1] + 1 - used[0]) // share
        start, stop = max(0, used[0] - kept), used[-1] + 1 + kept
        image = image[:, start:stop] if axis else image[start:stop]
    return image


def load_image(file: str | os.PathLike) -> np.ndarray:
    """Returns a file's line, uint8[24, W], grey. Raises ValueError if it can't be used."""
    return fit_height(trim(cv2.cvtColor(read_image(file), cv2.COLOR_BGR2GRAY)))


def table_of(path: str | os.PathLike) -> Path:
    """Returns the table at `path`: the file itself, or the first of `TABLES` in the folder.

    Raises:
      SystemExit: If there is none.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise SystemExit(f"{path}: no such file or directory")
        return path
    found = [path / name for name in TABLES if (path / name).is_file()]
    if not found:
        raise SystemExit(f"{path}: must have a table: {', '.join(TABLES)}")
    return found[0]


def _label_problem(text: str, charset: str) -> str | None:
    if not text:
        return "no text"
    if unknown := unknown_characters(text, charset):
        return f"{text}: not in the character set: {' '.join(unknown)}"
    return None


def _size_problem(text: str, width: int) -> str | None:
    if (needed := frames_needed(text)) > frames(width):
        has = frames(width)
        return f"{text}: needs {needed} frames, with a blank per repeat; the image has {has}"
    room = bucket(width)
    if room is not None and len(text) > MAX_LABELS[room]:
        return f"{text}: {len(text)} characters, more than {MAX_LABELS[room]} for such an image"
    return None


def load_lines(paths: Sequence[str | os.PathLike], charset: str) -> list[Line]:
    """Returns the lines of tables; lists on stderr which of them can't be used, and why."""
    lines, problems = [], 0
    for table in map(table_of, paths):
        try:
            rows = table.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise SystemExit(f"{table}: must be a table in UTF-8") from None
        for number, row in enumerate(rows, 1):
            if not row.strip():
                continue
            try:
                lines.append(_load_row(table.parent, row, charset))
            except ValueError as error:
                problems += 1
                print(f"{table}:{number}: {error}", file=sys.stderr)
    where = " ".join(map(str, paths))
    print(f"{where}: {len(lines)} lines, {problems} left out", file=sys.stderr)
    if not lines:
        raise SystemExit(f"{where}: not one line to use")
    return lines


def _load_row(folder: Path, row: str, charset: str) -> Line:
    """Returns the line of a table's row. Raises ValueError if it can't be used."""
    columns = row.split("\t")
    if len(columns) != 2:
        raise ValueError(
            f"the row has {len(columns) - 1} tabs; it must have one, between image and text"
        )
    name, text = columns[0].strip(), tidy(columns[1])
    if problem := _label_problem(text, charset):
        raise ValueError(f"{name}: {problem}")
    try:
        image = load_image(folder / name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if problem := _size_problem(text, image.shape[1]):
        raise ValueError(f"{name}: {problem}")
    return Line(image, text, name)


def vary(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns a line that was photographed, moved by a few pixels, in other light."""
    height, width = image.shape
    x, y = rng.uniform(0.93, 1.07, 2)
    matrix = np.array(
        [
            [x, rng.normal(0, 0.08), rng.uniform(-1, 1)],
            [rng.uniform(-1, 1) / max(width, 48), y, (1 - y) * height / 2 + rng.uniform(-1, 1)],
        ]
    )
    size = max(1, round(width * x)), height
    moved = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    scene = (moved.astype(np.float32) / 255) ** np.float32(np.exp(rng.normal(0, 0.2)))
    return render.camera(rng, scene)


def example(line: Line, width: int, charset: str) -> dict[str, np.ndarray]:
    """Returns one row of a batch, with the image padded to `width` columns."""
    used = line.image.shape[1]
    return {
        "images": np.pad(line.image, ((0, 0), (0, width - used))),
        "widths": np.array(used, np.int32),
        "labels": encode(line.text, charset, MAX_LABELS[width]),
        "label_lengths": np.array(len(line.text), np.int32),
    }


def training_batches(
    characters: str,
    charset: str,
    batch_size: int,
    seed: int,
    lines: Sequence[Line] = (),
    real_share: float = 0.0,
    rows: range | None = None,
) -> grain.DatasetIterator:
    """Returns an endless iterator of batches, all lines of a batch padded to one of `WIDTHS`.

    They can be continued: see `training.drawn_batches`.

    Args:
      characters: what is rendered, "latin" or "greek".
      charset: the characters, in class order.
      batch_size: lines per batch.
      seed: the seed.
      lines: photographed or scanned lines, each varied anew; those wider than the
        widest batch are not used.
      real_share: the part of lines that are real; the others are rendered.
      rows: the rows of each batch to return; None for all.

    Raises:
      SystemExit: If no line fits into a batch.
    """
    fitting = [bucket(line.image.shape[1], WIDTHS) for line in lines]
    by_width = {w: [x for x, b in zip(lines, fitting, strict=True) if b == w] for w in WIDTHS}
    if real_share and not any(by_width.values()):
        raise SystemExit(f"no line is at most {WIDTHS[-1]} columns wide at {HEIGHT} rows")
    families = fonts.families(characters) if real_share < 1 else []
    # Rendered lines have each width equally often; if all lines are real, as often as those have.
    shares = np.array([len(by_width[w]) if real_share == 1 else 1 for w in WIDTHS], float)
    shares /= shares.sum()

    def draw(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        batch = index // batch_size
        choice = np.random.default_rng([seed, batch]).choice(len(WIDTHS), p=shares)
        width = WIDTHS[shares.nonzero()[0][0] if batch < SHORT_BATCHES else choice]
        if by_width[width] and rng.random() < real_share:
            line = by_width[width][rng.integers(len(by_width[width]))]
            varied = vary(rng, line.image)
            fits = varied.shape[1] <= width and not _size_problem(line.text, varied.shape[1])
            return example(line._replace(image=varied) if fits else line, width, charset)
        limit = round(width * rng.uniform(0.5, 1))
        image, text = render.render(rng, families, characters, limit)
        return example(Line(image, text, ""), width, charset)

    return drawn_batches(draw, batch_size, seed, rows)


def rendered_lines(characters: str, count: int, seed: int) -> list[Line]:
    """Returns `count` lines of held-out text, in fonts that no training batch has."""
    families = fonts.families(characters, unseen=True)
    lines = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])  # a pair: training seeds are single numbers
        limit = round(rng.uniform(*EVALUATION_WIDTHS))
        image, text = render.render(rng, families, characters, limit, held_out=True)
        lines.append(Line(image, text, f"rendered {i}"))
    return lines
