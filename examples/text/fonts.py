"""Fonts of pip packages: those to train with, and others to test with.

Each `fontpkg-*` package has one family under the Open Font License or, for Roboto Slab, the Apache
licence. DejaVu and STIX come with matplotlib. No family to test with has a sibling to train with.
"""

import importlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from PIL import ImageFont

EM = 36  # pixels: the size in which text is drawn, before it is scaled down

# Families with the letters of both character sets, and others with Latin letters only.
BOTH = "arimo cardo eb_garamond fira_code inter jetbrains_mono literata manrope noto_serif"
BOTH = [*BOTH.split(), *["open_sans", "roboto", "roboto_mono", "roboto_slab", "vollkorn"]]
LATIN = """archivo_narrow bitter cabin catamaran cormorant crimson_pro domine dosis exo_2 fraunces
    geist_mono inconsolata karla libre_baskerville libre_franklin lora merriweather_sans montserrat
    mulish newsreader nunito overpass playfair_display pt_sans pt_serif public_sans raleway rubik
    signika space_mono work_sans zilla_slab"""
LATIN = LATIN.split()
UNSEEN = ["alegreya_sans", "ibm_plex_sans", "source_code_pro", "source_sans_3", "source_serif_4"]
UNSEEN_LATIN = ["ibm_plex_serif"]

FACES = ("Regular", "Bold", "Italic", "BoldItalic")
MATPLOTLIB = {
    "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSansMono": ("", "-Bold"),
    "DejaVuSerif": ("", "-Bold", "-Italic"),
    "STIXGeneral": ("", "Bol", "Italic"),
}
LATIN_ONLY = ["SourceCodePro-Italic[wght].ttf"]  # of families with both
WEIGHTS = (350, 400, 400, 500, 600, 700)  # of variable fonts


class Family(NamedTuple):
    """A family's files; for each, the weights that it has."""

    name: str
    files: list[tuple[Path, tuple[int, ...]]]


def families(characters: str, *, unseen: bool = False) -> list[Family]:
    """Returns the families for "latin" or "greek": to train with, or `unseen` ones to test with.

    Raises:
      SystemExit: If their packages are not installed.
    """
    latin = characters == "latin"
    names = [*UNSEEN, *UNSEEN_LATIN * latin] if unseen else [*BOTH, *LATIN * latin]
    found = []
    for name in names:
        try:
            package = importlib.import_module(f"fontpkg_{name}")
        except ModuleNotFoundError as error:
            raise SystemExit(f"{error}; the fonts come with pip install -e '.[text]'") from None
        files = sorted(Path(package.ROOT, "files").iterdir())
        kept = [f for f in files if "[" in f.name or f.stem.split("-")[-1] in FACES]
        kept = [f for f in kept if latin or f.name not in LATIN_ONLY]
        found.append(Family(name, [(f, WEIGHTS if "[" in f.name else (0,)) for f in kept]))
    if not unseen:
        folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
        for name, styles in MATPLOTLIB.items():
            found.append(Family(name, [(folder / f"{name}{s}.ttf", (0,)) for s in styles]))
    return found


@cache
def face(file: Path, weight: int) -> ImageFont.FreeTypeFont:
    """Returns a font of `EM` pixels; of a variable one, the given weight."""
    font = ImageFont.truetype(file, EM, layout_engine=ImageFont.Layout.BASIC)
    if weight:
        axes: list[Any] = font.get_variation_axes()
        font.set_variation_by_axes(
            [
                min(max(weight, axis["minimum"]), axis["maximum"])
                if axis["name"] in (b"Weight", "Weight")
                else axis["default"]
                for axis in axes
            ]
        )
    return font
