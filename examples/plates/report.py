"""Pictures of a model's results: a contact sheet, and the posteriors of one plate."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageDraw, ImageFont

from plates.calibration import reliability
from plates.data import Plate
from plates.glyphs import CHINESE_FONT

COLUMNS, ROWS = 6, 10
CELL_WIDTH, CELL_HEIGHT, MARGIN = 216, 100, 14
IMAGE_SIZE = 188, 48  # twice the pixels a model sees
INK, QUIET, RIGHT, WRONG = "#1d1d1f", "#6e6e73", "#1a7f37", "#c0261c"


def contact_sheet(
    path: str | Path, plates: Sequence[Plate], texts: Sequence[str], confidences: np.ndarray
) -> None:
    """Writes a PNG of plates with the texts read: wrong ones first, up to half of the sheet."""
    wrong = [i for i, plate in enumerate(plates) if texts[i] != plate.text]
    right = [i for i, plate in enumerate(plates) if texts[i] == plate.text]
    chosen = wrong[: COLUMNS * ROWS // 2]
    chosen += right[: COLUMNS * ROWS - len(chosen)]
    rows = -(-len(chosen) // COLUMNS)
    header = 64
    size = (COLUMNS * CELL_WIDTH + MARGIN, header + rows * CELL_HEIGHT + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    title, body = (ImageFont.truetype(CHINESE_FONT, points) for points in (24, 16))
    draw.text((MARGIN, 16), f"{len(right)} of {len(plates)} plates read exactly", INK, title)
    shown = min(len(wrong), COLUMNS * ROWS // 2)
    note = f"wrong first: {shown} of {len(wrong)}, the truth in grey; p: the model's probability"
    draw.text((size[0] - MARGIN, 24), note, QUIET, body, anchor="ra")
    for place, i in enumerate(chosen):
        x = MARGIN + place % COLUMNS * CELL_WIDTH
        y = header + place // COLUMNS * CELL_HEIGHT
        picture = Image.fromarray(plates[i].image[..., ::-1])
        sheet.paste(picture.resize(IMAGE_SIZE, Image.Resampling.BICUBIC), (x, y))
        good = texts[i] == plates[i].text
        under = y + IMAGE_SIZE[1] + 4
        draw.text((x, under), texts[i] or "(nothing)", RIGHT if good else WRONG, body)
        corner = (x + IMAGE_SIZE[0], under)
        if good:
            draw.text(corner, f"p={confidences[i]:.2f}", QUIET, body, anchor="ra")
        else:
            draw.text(corner, plates[i].text, QUIET, body, anchor="ra")
            draw.text((x, under + 18), f"p={confidences[i]:.2f}", QUIET, body)
    sheet.save(path)


def colours(count: int) -> list[str]:
    """Returns a colour for each character of a text, dark enough for white letters on it."""
    turbo = matplotlib.colormaps["turbo"]
    shades = [turbo(0.08 + 0.84 * s / max(1, count - 1)) for s in range(count)]
    return [to_hex((0.8 * r, 0.8 * g, 0.8 * b)) for r, g, b, _ in shades]


def posteriors_picture(
    path: str | Path, plate: Plate, labels: np.ndarray, blank: np.ndarray
) -> None:
    """Writes a PNG of the posteriors of each character of a plate.

    Args:
      path: the file.
      plate: the image and its text of S characters.
      labels: the posterior probability of each character at each frame, [T, S].
      blank: that of the blank, [T].
    """
    frames, count = labels.shape
    font = FontProperties(fname=str(CHINESE_FONT))
    figure = Figure(figsize=(9, 5), dpi=130, layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.6])
    top.imshow(plate.image[..., ::-1], aspect="auto", interpolation="bicubic")
    top.set_axis_off()
    top.set_title(f"{plate.text}: posterior of each character, frame by frame", fontproperties=font)
    shades = colours(count)
    bottom.bar(range(frames), blank, 0.92, color="#e3e3e8", label="blank")
    base = blank.copy()
    for s in range(count):
        bottom.bar(range(frames), labels[:, s], 0.92, bottom=base, color=shades[s])
        peak = int(labels[:, s].argmax())
        if labels[peak, s] > 0.1:
            middle = base[peak] + labels[peak, s] / 2
            bottom.text(
                peak,
                middle,
                plate.text[s],
                color="white",
                fontproperties=font,
                fontsize=15,
                ha="center",
                va="center",
            )
        base += labels[:, s]
    bottom.set_xlim(-0.6, frames - 0.4)
    bottom.set_ylim(0, 1)
    bottom.set_xticks(range(frames))
    bottom.set_xlabel("frame")
    bottom.set_ylabel("probability")
    bottom.spines[["top", "right"]].set_visible(False)
    bottom.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path)


def reliability_picture(
    path: str | Path, confidences: dict[str, np.ndarray], right: np.ndarray
) -> None:
    """Writes a PNG of the share read right against the confidence, in bins of equally many plates.

    Args:
      path: the file.
      confidences: of the same N plates, by the name of the method.
      right: whether each was read exactly, bool[N].
    """
    figure = Figure(figsize=(5, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="calibrated")
    for (name, values), shade in zip(confidences.items(), (WRONG, RIGHT), strict=False):
        bins = reliability(values, right)
        x, y = [b.confidence for b in bins], [b.right for b in bins]
        axes.plot(x, y, marker="o", color=shade, label=name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share read right")
    axes.set_title(f"{len(right)} plates, in ten bins of equally many")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
