"""Draws alignments of a licence plate, and of spoken digits whose boundaries are known.

    python examples/align_plot.py --plate RUN IMAGE --digits RECORDINGS --out align.png

RUN is a checkpoint of plate_train.py or plate_import.py, IMAGE a plate with its label as file name,
RECORDINGS a directory of the Free Spoken Digit Dataset. Either part may be left out.

The digits need no trained network: each frame of the sound is compared with the mean of each
digit's first, second and third part in other recordings; the blank is silence. The mean distance
of the found boundaries from the true ones is printed, and what a beam search hears without knowing
the digits.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import jaxctc
from digits.data import HOP, RATE, log_mel, read_wave

PARTS, BLANK = 3, 0


def digit_string(folder: Path, speaker: str, digits: list[int], generator: np.random.Generator):
    """Returns recordings joined with silence between them, and the start and end of each."""
    pieces, bounds, place = [], [], 0
    for digit in digits:
        silence = np.zeros(int(generator.uniform(0.1, 0.3) * RATE), np.float32)
        spoken = read_wave(folder / f"{digit}_{speaker}_0.wav")
        pieces += [silence, spoken]
        bounds.append((place + len(silence), place + len(silence) + len(spoken)))
        place = bounds[-1][1]
    sound = np.concatenate([*pieces, np.zeros(RATE // 5, np.float32)])
    return sound + 1e-3 * generator.standard_normal(len(sound), np.float32), np.array(bounds) / RATE


def digit_scores(folder: Path, speaker: str, sound: np.ndarray) -> np.ndarray:
    """Returns logits [T, 1 + 10 · 3] of a sound: silence, and each part of each digit."""
    means = [log_mel(1e-3 * np.random.default_rng(1).standard_normal(RATE)).mean(0)]
    for digit in range(10):
        files = [folder / f"{digit}_{speaker}_{index}.wav" for index in range(5, 15)]
        parts = [np.array_split(log_mel(read_wave(f)), PARTS) for f in files if f.exists()]
        means += [np.concatenate([p[i] for p in parts]).mean(0) for i in range(PARTS)]
    return -0.5 * ((log_mel(sound)[:, None] - np.stack(means)) ** 2).mean(-1)


def heard(logits: np.ndarray) -> list[jaxctc.Word]:
    """Returns the digits that a beam search finds, with their times; the parts of each in order."""
    digits = [[1 + PARTS * digit + part for part in range(PARTS)] for digit in range(10)]
    lexicon = jaxctc.Lexicon(
        digits, logits.shape[-1], word_begins=[parts[0] for parts in digits], names="0123456789"
    )
    scorer = lexicon.scorer(word_score=-12.0)  # these scores find too many digits otherwise
    best = jaxctc.ctc_beam_search(logits, beam_width=32, scorer=scorer)
    return jaxctc.words(best, lexicon, logits=logits, frame_seconds=HOP / RATE)[0]


def draw(axis, posteriors, spans, names, seconds_a_frame, unit, font=None):
    """Draws posteriors [T, S] as curves, and the aligned spans below them as bars."""
    times = (np.arange(len(posteriors)) + 0.5) * seconds_a_frame
    for s, (name, (start, end)) in enumerate(zip(names, spans, strict=True)):
        color = f"C{s % 10}"
        axis.plot(times, posteriors[:, s], color=color)
        axis.barh(-0.12, end - start, left=start, height=0.12, color=color, align="center")
        axis.text((start + end) / 2, -0.3, name, ha="center", va="center", fontproperties=font)
    axis.set(xlabel=unit, ylabel="posterior", ylim=(-0.42, 1.05))


def plot_digits(axis, folder: Path, speaker: str, digits: list[int]) -> float:
    """Draws the alignment of a digit string; returns the mean error of its boundaries, seconds."""
    sound, truth = digit_string(folder, speaker, digits, np.random.default_rng(0))
    logits = digit_scores(folder, speaker, sound)
    labels = [1 + PARTS * digit + part for digit in digits for part in range(PARTS)]
    found = jaxctc.forced_align(logits, labels, blank_id=BLANK)
    posteriors = np.asarray(jaxctc.ctc_posteriors(logits, labels, blank_id=BLANK).labels)
    posteriors = posteriors.reshape(len(posteriors), len(digits), PARTS).sum(-1)
    starts = np.asarray(found.starts)[::PARTS] * HOP / RATE
    ends = np.asarray(found.ends)[PARTS - 1 :: PARTS] * HOP / RATE
    spans = np.stack([starts, ends], axis=1)
    draw(axis, posteriors, spans, map(str, digits), HOP / RATE, "seconds")
    for bound in truth.reshape(-1):
        axis.axvline(bound, color="black", linestyle=":", linewidth=0.8)
    for word in heard(logits):
        print(f"{word.text} {word.start:.2f}–{word.end:.2f} s, {word.confidence:.0%} sure")
    axis.set_title("Spoken digits: posteriors, alignment, and the true boundaries (dotted)")
    return float(np.abs(spans - truth).mean())


def plot_plate(axis, checkpoint: str, image_file: str) -> None:
    """Draws the alignment of a plate's label with a network's output."""
    from matplotlib.font_manager import FontProperties

    from plates.data import label_from_name, load_image
    from plates.glyphs import CHINESE_FONT
    from plates.reading import load_reader, read_images

    model, charset = load_reader(checkpoint)
    text = label_from_name(image_file)
    logits = read_images(model, load_image(image_file)[None], charset)[2][0]
    labels, blank = [charset.index(c) for c in text], len(charset)
    found = jaxctc.forced_align(logits, labels, blank_id=blank)
    posteriors = np.asarray(jaxctc.ctc_posteriors(logits, labels, blank_id=blank).labels)
    spans = np.stack([found.starts, found.ends], axis=1)
    font = FontProperties(fname=str(CHINESE_FONT))
    draw(axis, posteriors, spans, text, 1, "frame", font)
    axis.set_title(f"A plate: log-probability of the best alignment {float(found.score):.2f}")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="Draw alignments.")
    parser.add_argument("--plate", nargs=2, metavar=("RUN", "IMAGE"))
    parser.add_argument("--digits", type=Path, metavar="RECORDINGS")
    parser.add_argument("--speaker", default="george", help="whose recordings")
    parser.add_argument("--say", default="31415926", help="the digits, one after another")
    parser.add_argument("--out", type=Path, default=Path("align.png"))
    args = parser.parse_args(arguments)
    parts = [p for p in ("plate", "digits") if getattr(args, p)]
    if not parts or not args.say.isdecimal():
        parser.error("give --plate or --digits; --say must be digits")
    figure, axes = plt.subplots(len(parts), 1, figsize=(11, 3.4 * len(parts)), squeeze=False)
    for part, axis in zip(parts, axes[:, 0], strict=True):
        if part == "plate":
            plot_plate(axis, *args.plate)
        else:
            error = plot_digits(axis, args.digits, args.speaker, [int(c) for c in args.say])
            print(f"boundaries are {1000 * error:.0f} ms off on average")
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
