"""A picture of lines and what was read of them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from text.data import Line

ROWS, MARGIN, WIDTH = 24, 14, 1320
INK, QUIET, RIGHT, WRONG = "#1d1d1f", "#6e6e73", "#1a7f37", "#c0261c"


def contact_sheet(
    path: str | Path, lines: Sequence[Line], texts: Sequence[str], confidences: np.ndarray
) -> None:
    """Writes a PNG of lines with the texts read: wrong ones first, up to half of the sheet."""
    wrong = [i for i, line in enumerate(lines) if texts[i] != line.text]
    right = [i for i, line in enumerate(lines) if texts[i] == line.text]
    chosen = wrong[: ROWS // 2]
    chosen += right[: ROWS - len(chosen)]
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    body = ImageFont.truetype(font, 15)
    sheet = Image.new("RGB", (WIDTH, MARGIN * 2 + 30 + len(chosen) * 84), "white")
    draw = ImageDraw.Draw(sheet)
    title = f"{len(right)} of {len(lines)} lines read exactly; wrong ones first"
    draw.text((MARGIN, MARGIN), title, INK, ImageFont.truetype(font, 20))
    for place, i in enumerate(chosen):
        y = MARGIN + 40 + place * 84
        line, good = lines[i], texts[i] == lines[i].text
        share = min(1.5, (WIDTH - 2 * MARGIN) / line.image.shape[1])
        size = round(line.image.shape[1] * share), round(line.image.shape[0] * share)
        picture = Image.fromarray(line.image).resize(size, Image.Resampling.BICUBIC)
        sheet.paste(picture, (MARGIN, y))
        read = texts[i] or "(nothing)"
        draw.text((MARGIN, y + 38), read, RIGHT if good else WRONG, body)
        sure = f"p={confidences[i]:.2f}"
        draw.text((WIDTH - MARGIN, y + 38), sure, QUIET, body, anchor="ra")
        if not good:
            draw.text((MARGIN, y + 56), line.text, QUIET, body)
    sheet.save(path)
