"""Draws the figures of the documentation: `python docs/draw.py [NAME …]`, into docs/figures.

They have no background, and colours that can be read on light and on dark pages; but for `plates`,
made of the two pictures that `python examples/plate_train.py` leaves in runs/plates.
"""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
from PIL import Image

import jaxctc

matplotlib.use("svg")
import matplotlib.pyplot as plt

FIGURES = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RUN = Path("runs/plates")
GREY, BLUE, ORANGE, GREEN = "#808080", "#2d7dd2", "#e8710a", "#2a9d5c"

plt.rcParams.update(
    {
        "svg.hashsalt": "jaxctc",  # the same file each time
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 11,
        "savefig.transparent": True,
        "text.color": GREY,
        "axes.labelcolor": GREY,
        "axes.edgecolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def arrow(axes, start, end, colour, share, radius=0.17):
    """An arc between two states, as dark and as wide as its share of the probability."""
    start, end = np.array(start, float), np.array(end, float)
    step = (end - start) / np.linalg.norm(end - start)
    axes.annotate(
        "",
        end - radius * step,
        start + radius * step,
        arrowprops={
            "arrowstyle": "-|>",
            "color": colour,
            "linewidth": 0.8 + 3 * share,
            "alpha": 0.4 + 0.6 * share,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )


def ctc_lattice():
    """All alignments of "caab" to seven frames, and how probable each state is."""
    text, labels = "caab", [3, 1, 1, 2]
    frames, spelled = 7, ["–", "c", "–", "a", "–", "a", "–", "b", "–"]
    classes = [0, 3, 0, 1, 0, 1, 0, 2, 0]
    logits = np.random.default_rng(3).normal(size=(frames, 4)).astype(np.float32)
    probabilities = np.exp(np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True))))
    states = len(classes)

    def steps(state):
        """The states that may follow, with the same rule as in the page."""
        skip = state + 2 < states and classes[state + 2] not in (0, classes[state])
        return [s for s in (state, state + 1) if s < states] + [state + 2] * skip

    forward, backward = np.zeros((frames, states)), np.zeros((frames, states))
    forward[0, :2] = probabilities[0, classes[:2]]
    for t in range(1, frames):
        for s in range(states):
            for after in steps(s):
                forward[t, after] += forward[t - 1, s] * probabilities[t, classes[after]]
    backward[-1, -2:] = 1
    for t in range(frames - 2, -1, -1):
        for s in range(states):
            for after in steps(s):
                arc = probabilities[t + 1, classes[after]] * backward[t + 1, after]
                backward[t, s] += arc
    total = forward[-1, -2:].sum()
    assert np.isclose(-np.log(total), jaxctc.ctc_loss(logits, jnp.array(labels)), rtol=1e-5)

    figure, axes = plt.subplots(figsize=(8, 4.8))
    for t in range(frames):
        for s in range(states):
            share = forward[t, s] * backward[t, s] / total
            if share == 0:
                continue
            if t + 1 < frames:
                for after in steps(s):
                    arc = forward[t, s] * probabilities[t + 1, classes[after]]
                    arc *= backward[t + 1, after] / total
                    if arc > 0:
                        arrow(axes, (t, -s), (t + 1, -after), BLUE, arc)
            colour = GREY if classes[s] == 0 else ORANGE
            axes.plot(
                t,
                -s,
                "o",
                markersize=20,
                markerfacecolor=colour,
                markeredgecolor=colour,
                alpha=0.15 + 0.85 * share,
            )
    axes.set_yticks(range(0, -states, -1), spelled)
    axes.set_xticks(range(frames), [f"{t + 1}" for t in range(frames)])
    axes.set_xlabel("frame")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"The alignments of “{text}”: states by posterior, arcs by share", color=GREY)
    return figure


def transducer_grid():
    """The grid of a transducer, its diagonals, and one alignment."""
    frames, spoken = 5, "dog"
    path = [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3)]
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    for n in range(1, frames + len(spoken)):
        low, high = max(0, n - frames + 1), min(n, len(spoken))
        axes.plot(
            [n - low, n - high],
            [low, high],
            color=GREEN,
            linewidth=10,
            alpha=0.13,
            solid_capstyle="round",
        )
    for t in range(frames):
        for u in range(len(spoken) + 1):
            on = {(t, u)} <= set(path)
            if t + 1 < frames:
                arrow(axes, (t, u), (t + 1, u), GREY, float(on and (t + 1, u) in path))
            if u < len(spoken):
                arrow(axes, (t, u), (t, u + 1), ORANGE, float(on and (t, u + 1) in path))
            axes.plot(t, u, "o", markersize=12, color=BLUE if on else GREY, alpha=1 if on else 0.4)
    arrow(axes, (frames - 1, len(spoken)), (frames - 0.1, len(spoken)), GREY, 1.0, 0.1)
    axes.text(frames - 0.05, len(spoken), "end", va="center")
    axes.set_xticks(range(frames), [f"{t + 1}" for t in range(frames)])
    axes.set_yticks(range(len(spoken) + 1), ["nothing", "d", "do", "dog"])
    axes.set_xlim(-0.4, frames + 0.4)
    axes.set_xlabel("frame: a blank goes right")
    axes.set_ylabel("said so far: a label goes up")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("A diagonal, t + u = n, follows from the one before alone", color=GREY)
    return figure


def exactness():
    """The gradient's error as sequences get longer."""
    results = sorted(RESULTS.glob("*/ctc.exactness.json"))[0]  # of one machine; others are alike
    data = json.loads(results.read_text())["data"]
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    lengths = sorted({int(key.split(", ")[1]) for key in data})
    for name, colour in (("jaxctc", BLUE), ("optax", ORANGE), ("torch", GREEN)):
        errors = [
            max(data[f"{kind}, {n}, {name}"]["gradient"] for kind in ("random", "peaky", "flat"))
            for n in lengths
        ]
        axes.loglog(lengths, errors, "o-", color=colour, label=name)
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.text(lengths[0], 1.6, "as large as the gradient itself", fontsize=9)
    axes.set_xlabel("frames")
    axes.set_ylabel("largest error, float32")
    axes.legend(frameon=False)
    return figure


def decoders():
    """Word errors of three decoders, and the time they take, as their beams grow."""
    results = sorted(RESULTS.glob("*/ctc.lm_decode.json"))[0]
    rows = json.loads(results.read_text())["data"]["rows"]
    figure, panels = plt.subplots(1, 2, figsize=(8, 4), sharey=True, layout="constrained")
    split = max(row["decoder"] for row in rows if row["decoder"].startswith("jaxctc"))
    lines = {
        "jaxctc, tuned": (split, "tuned", BLUE, "o-"),
        "pyctcdecode, tuned": ("pyctcdecode", "tuned", GREEN, "o-"),
        "jaxctc": (split, "same", BLUE, "o:"),
        "flashlight-text": ("flashlight-text", "same", ORANGE, "o:"),
    }
    times = {(r["decoder"], r["weights"], r["beam"]): r["wall"] for r in rows if r["set"] == "dev"}
    for axes, name in zip(panels, ("dev", "test"), strict=True):
        for label, (decoder, weights, colour, style) in lines.items():
            # One device has the results of all sets, which those of several equal.
            same = "jaxctc" if decoder == split else decoder
            found = [
                (times[decoder, weights, row["beam"]], row["errors"][0])
                for row in rows
                if (row["set"], row["decoder"], row["weights"]) == (name, same, weights)
            ]
            axes.semilogx(*zip(*found, strict=True), style, color=colour, label=label)
        axes.set_title("tuned on these" if name == "dev" else "other sentences", color=GREY)
        axes.set_xlabel("milliseconds a sentence")
    panels[0].set_ylabel("word errors, %")
    panels[0].set_ylim(0)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return figure


def plates():
    """Plates and what was read of them, and the posteriors of one, side by side."""
    sheet, posteriors = (Image.open(RUN / name) for name in ("readings.png", "posteriors.png"))
    # Three of the sheet's six columns, from the last row of wrong readings: see plates/report.py.
    result = json.loads((RUN / "result.json").read_text())
    wrong = round(result["images"] * (1 - result["exact_match"]))
    width, height, top = 3 * 216, 6 * 100, 64 + max(0, wrong - 1) // 6 * 100
    left = sheet.crop((0, top, width, top + height))
    right = posteriors.resize((width, round(width / posteriors.width * posteriors.height)))
    both = Image.new("RGB", (2 * width + 28, height), "white")
    both.paste(left, (14, 14))
    both.paste(right.convert("RGB"), (width + 14, (height - right.height) // 2))
    both.quantize(255).save(FIGURES / "plates.png", optimize=True)


DRAWINGS = {f.__name__: f for f in (ctc_lattice, transducer_grid, exactness, decoders)}


def main():
    FIGURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or DRAWINGS:
        if name == "plates":
            plates()
            continue
        figure = DRAWINGS[name]()
        figure.savefig(FIGURES / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
        print(f"docs/figures/{name}.svg")


if __name__ == "__main__":
    main()
