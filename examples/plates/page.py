"""The page of the service, without scripts: a form, and what was read of each picture."""

import base64
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np

from plates.report import colours
from plates.serving import Reading

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #76767c; --wrong: #c0261c; }
@media (prefers-color-scheme: dark) { :root { --quiet: #a5a5ab; --wrong: #ff8078; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
form { display: grid; gap: .75rem; }
input { border: 2px dashed var(--line); border-radius: .5rem; font: inherit; padding: 2rem 1rem;
  width: 100%; }
input:hover { border-color: currentcolor; }
button { background: #0a58ca; border: 0; border-radius: .5rem; color: #fff; font: inherit;
  justify-self: start; min-height: 2.75rem; padding: 0 1.5rem; }
:focus-visible { outline: 3px solid #0a58ca; outline-offset: 2px; }
p { margin: 0; }
.quiet { color: var(--quiet); overflow-wrap: anywhere; }
.wrong { border-left: .25rem solid var(--wrong); margin: 1rem 0; overflow-wrap: anywhere;
  padding-left: .75rem; }
article { border-top: 1px solid var(--line); display: grid; gap: .75rem 1.5rem; margin-top: 1.5rem;
  padding-top: 1.5rem; }
@media (min-width: 44rem) { article { grid-template-columns: 15rem 1fr; } }
article > * { min-width: 0; }
img { aspect-ratio: 94 / 24; border-radius: .25rem; display: block; max-width: 15rem; width: 100%; }
h2 { font-size: 1.75rem; letter-spacing: .05em; line-height: 1.2; margin: .5rem 0 0; }
ol { display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; margin: 0 0 .75rem; padding: 0; }
li { border-bottom: .375rem solid; min-width: 3.25rem; padding: .25rem; text-align: center; }
li b { display: block; font-size: 1.25rem; line-height: 1.2; }
li span { font-size: .8125rem; }
svg { display: block; width: 100%; }
"""
# Nothing is loaded but the styles and the pictures in the page itself.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'"
_WIDTH, _HEIGHT = 24, 140  # of a frame's bar, in the units of the picture


def posteriors_svg(reading: Reading) -> str:
    """Returns a picture of the posterior of each character and of the blank at each frame."""
    frames, count = reading.posteriors.shape
    shades = ["#8883", *colours(count)]
    names = ["blank", *reading.text]
    bars = []
    for t, shares in enumerate(np.column_stack([reading.blank, reading.posteriors])):
        top = float(_HEIGHT)
        for name, shade, share in zip(names, shades, shares, strict=True):
            if share < 0.005:  # less than a pixel
                continue
            height = float(share) * _HEIGHT
            top -= height
            said = f"frame {t}: {name}, {share:.1%}"
            bars.append(
                f'<rect x="{t * _WIDTH + 1}" y="{top:.1f}" width="{_WIDTH - 2}" '
                f'height="{height:.1f}" fill="{shade}"><title>{escape(said)}</title></rect>'
            )
    box = f"0 0 {frames * _WIDTH} {_HEIGHT}"
    label = f"posteriors of {reading.text or 'the blank'} at {frames} frames"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{"".join(bars)}</svg>'


def _article(name: str, image: np.ndarray, reading: Reading) -> str:
    png = base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()
    parts = zip(reading.text, reading.scores, colours(len(reading.text)), strict=True)
    characters = "".join(
        f'<li style="border-color:{shade}"><b>{escape(c)}</b><span>{score:.1%}</span></li>'
        for c, score, shade in parts
    )
    return f"""<article>
<div><img src="data:image/png;base64,{png}" alt="the plate in {escape(name)}">
<h2 lang="zh">{escape(reading.text) or "(nothing)"}</h2>
<p>Confidence {reading.confidence:.1%}</p><p class="quiet">{escape(name)}</p></div>
<div><ol aria-label="confidence of each character">{characters}</ol>
{posteriors_svg(reading)}
<p class="quiet">Posterior of each character, and of the blank (grey), from left to right.</p></div>
</article>"""


def page(
    limits: str,
    read: Sequence[tuple[str, np.ndarray, Reading]] = (),
    errors: Sequence[str] = (),
) -> str:
    """Returns the page as HTML: the form, with its `limits` in words, and results, if any."""
    wrong = "".join(f'<p class="wrong" role="alert">{escape(error)}</p>' for error in errors)
    found = "".join(_article(*result) for result in read)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Plate reader</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{_STYLE}</style></head>
<body><main><h1>Plate reader</h1>
<form method="post" enctype="multipart/form-data">
<label for="pictures">Pictures of plates, cut out: choose them, or drop them here</label>
<input id="pictures" name="pictures" type="file" accept="image/*" multiple required
 aria-describedby="limits">
<p class="quiet" id="limits">{escape(limits)}</p>
<button>Read</button></form>
{wrong}{found}</main></body></html>"""
