"""Training strings, joined from power spectra of recordings and of synthetic voices."""

from collections.abc import Collection, Iterable, Sequence
from types import ModuleType

import numpy as np

from digits import data, synthesis, voices
from digits.data import DigitString, Recording

PARTS = ("speed", "several", "synthetic", "accents")
SPEECH = ("synthetic", "accents")  # those that say digits themselves
SYNTHETIC, ACCENTS = 0.2, 0.45  # of all strings
SILENCES = 4, 21  # frames: the shortest, and more than the longest
LOUDEST = 6e4  # as float16
Rng = np.random.Generator


def training_strings(
    recordings: Iterable[Recording],
    count: int,
    seed: Sequence[int],
    parts: Collection[str] = PARTS,
) -> list[DigitString]:
    """Returns `count` strings of 3 to 7 digits, or fewer where `MOST_FRAMES` have no room for them.

    Args:
      recordings: the recordings to join.
      count: the number of strings.
      seed: the seed; string i depends only on it and i. With "accents" it also depends on what
        espeak-ng said before, so only the first call of a process gives the same again.
      parts: "speed": recordings are faster and higher, or slower and lower. "several": a third of
        the others are of several speakers. "synthetic": a fifth of all strings are of the voices of
        `synthesis`. "accents": nearly half are of the voices of `voices`.

    Returns:
      Strings whose features are power spectra, float16[T, bins], for `augment.vary`.
    """
    takes: dict[str, dict[int, list[Recording]]] = {}
    for recording in recordings:
        takes.setdefault(recording.speaker, {}).setdefault(recording.digit, []).append(recording)
    return [
        _join(rng, _draw(rng, takes, parts))
        for rng in (np.random.default_rng([*seed, i]) for i in range(count))
    ]


def _said(rng: Rng, by: ModuleType, count: int) -> list[tuple[int, np.ndarray]]:
    """Returns digits and their spectra, of one voice of `synthesis` or `voices`."""
    voice = by.draw_voice(rng)
    return [(digit, by.say(rng, voice, digit)) for digit in rng.integers(10, size=count)]


def _draw(
    rng: Rng, takes: dict[str, dict[int, list[Recording]]], parts: Collection[str]
) -> list[tuple[int, np.ndarray]]:
    """Returns digits and their spectra."""
    count = int(rng.integers(3, data.MOST_DIGITS + 1))
    chance = rng.random()
    if "synthetic" in parts and chance < SYNTHETIC:
        return _said(rng, synthesis, count)
    if "accents" in parts and SYNTHETIC <= chance < SYNTHETIC + ACCENTS:
        return _said(rng, voices, count)

    speakers = sorted(takes)
    speaker, longer = speakers[rng.integers(len(speakers))], rng.uniform(0.9, 1.13)
    several = "several" in parts and rng.random() < 0.33
    found = []
    for _ in range(count):
        who = speakers[rng.integers(len(speakers))] if several else speaker
        known = sorted(takes[who])
        digit = known[rng.integers(len(known))]
        chosen = takes[who][digit]
        sound = chosen[rng.integers(len(chosen))].sound
        if "speed" in parts:
            sound = _stretch(sound, longer * rng.uniform(0.93, 1.07))
        sound = np.pad(sound[: len(sound) // data.HOP * data.HOP], data.AROUND)
        found.append((digit, data.power(sound)))
    return found


def _stretch(sound: np.ndarray, longer: float) -> np.ndarray:
    """Returns the sound so many times as long, and as much lower."""
    place = np.linspace(0, len(sound) - 1, int(len(sound) * longer))
    return np.interp(place, np.arange(len(sound)), sound).astype(np.float32)


def _join(rng: Rng, said: Sequence[tuple[int, np.ndarray]]) -> DigitString:
    """Joins digits with silence between, as `data.glue` joins sounds, but without noise."""
    power = np.zeros((data.MOST_FRAMES, len(data.BANDS)), np.float32)
    digits, bounds = [], []
    place = rng.integers(*SILENCES)
    for digit, x in said:
        after = rng.integers(*SILENCES)
        if place + len(x) + after > len(power):
            break
        power[place : place + len(x)] = x * np.exp(2 * rng.normal(0, 0.2))
        digits.append(digit)
        bounds.append((place, place + len(x)))
        place += len(x) + after
    power = power[:place]
    # Where the deviation of a sound is 0.1, its spectra have this mean.
    power *= 0.01 * np.square(np.hanning(data.WINDOW)).sum() / max(power.mean(), data.FLOOR)
    seconds = np.array(bounds) * data.HOP / data.RATE
    features = np.minimum(power, LOUDEST).astype(np.float16)
    return DigitString(features, np.array(digits, np.int32), seconds)
