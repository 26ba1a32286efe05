"""Training strings, joined from power spectra, so that they can be of speakers who do not exist.

Two takes of a digit are aligned by dynamic time warping; their log spectra are then interpolated,
or extrapolated. All digits of a string get the same mixture of the same two voices.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from digits import data
from digits.data import DigitString, Recording

PARTS = ("speed", "between", "several")
SILENCES = 4, 21  # frames: the shortest, and more than the longest
LOUDEST = 6e4  # as float16
Rng = np.random.Generator


def training_strings(
    recordings: Iterable[Recording],
    count: int,
    seed: Sequence[int],
    parts: Collection[str] = PARTS,
) -> list[DigitString]:
    """Returns `count` strings of 5 to 7 digits, or fewer where `MOST_FRAMES` have no room for them.

    Args:
      recordings: the recordings to join.
      count: the number of strings.
      seed: the seed; string i depends only on it and i.
      parts: "speed": recordings are faster and higher, or slower and lower. "between": half of the
        strings are of voices between two, or beyond one of them. "several": a third of the strings
        are of several speakers.

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


def _draw(
    rng: Rng, takes: dict[str, dict[int, list[Recording]]], parts: Collection[str]
) -> list[tuple[int, np.ndarray]]:
    """Returns digits and their spectra."""
    speakers = sorted(takes)
    speaker, other = (speakers[i] for i in rng.integers(len(speakers), size=2))
    several = "several" in parts and rng.random() < 0.33
    between = "between" in parts and rng.random() < 0.5
    speeds, share = rng.uniform(0.85, 1.25, 2), rng.uniform(-0.4, 1.4)

    def spectra(speaker: str, digit: int, longer: float) -> np.ndarray:
        chosen = takes[speaker][digit]
        sound = chosen[rng.integers(len(chosen))].sound
        if "speed" in parts:
            sound = _stretch(sound, longer * rng.uniform(0.93, 1.07))
        return data.power(np.pad(sound[: len(sound) // data.HOP * data.HOP], data.AROUND))

    found = []
    for _ in range(rng.integers(5, data.MOST_DIGITS + 1)):
        who = speakers[rng.integers(len(speakers))] if several else speaker
        known = sorted(takes[who])
        digit = known[rng.integers(len(known))]
        x = spectra(who, digit, speeds[0])
        if between and digit in takes[other]:
            y = spectra(other, digit, speeds[1])
            x = mixture(x, y * (x.mean() / max(y.mean(), data.FLOOR)), share)
        found.append((digit, x))
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


def mixture(x: np.ndarray, y: np.ndarray, share: float) -> np.ndarray:
    """Returns spectra [T, bins] between those of two takes of a digit.

    Args:
      x, y: power spectra [T, bins], each with its own T.
      share: 0 gives `x`, 1 gives `y`; below 0 and above 1 it is beyond one of them. Lengths are
        mixed too.
    """
    places = warping_path(_shape(x), _shape(y)).T
    time = np.maximum.accumulate((1 - share) * places[0] + share * places[1])
    at = np.linspace(0, time[-1], max(4, round(time[-1]) + 1))
    logs = [
        _between_frames(np.log(z + data.FLOOR), np.interp(at, time, place))
        for z, place in zip((x, y), places, strict=True)
    ]
    mixed = (1 - share) * logs[0] + share * logs[1]
    return np.exp(mixed.clip(np.log(data.FLOOR), np.log(LOUDEST))).astype(np.float32)


def _shape(power: np.ndarray) -> np.ndarray:
    """What is compared: log mel energies, less those that a microphone and a voice have always."""
    x = np.log(power @ data.BANDS + 1e-4)
    return x - x.mean(0)


def _between_frames(x: np.ndarray, place: np.ndarray) -> np.ndarray:
    low = place.astype(int)
    part = (place - low)[:, None]
    return x[low] * (1 - part) + x[np.minimum(low + 1, len(x) - 1)] * part


def warping_path(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the frames that belong together, int[L, 2], by dynamic time warping.

    The path goes from the first frames to the last, each step by a frame of one or of both. It has
    the smallest sum of squared distances, 1.5 times for steps of both (Sakoe and Chiba 1978).
    """
    distance = np.square(x[:, None] - y[None]).sum(-1)
    cost = np.full((len(x) + 1, len(y) + 1), np.inf)
    cost[0, 0] = 0
    for total in range(2, len(x) + len(y) + 1):  # an antidiagonal at once
        i = np.arange(max(1, total - len(y)), min(len(x), total - 1) + 1)
        j = total - i
        here = distance[i - 1, j - 1]
        one = np.minimum(cost[i - 1, j], cost[i, j - 1]) + here
        cost[i, j] = np.minimum(one, cost[i - 1, j - 1] + 1.5 * here)
    i, j, path = len(x), len(y), []
    while i and j:
        path.append((i - 1, j - 1))
        here = distance[i - 1, j - 1]
        steps = {
            (i - 1, j - 1): cost[i - 1, j - 1] + 1.5 * here,
            (i - 1, j): cost[i - 1, j] + here,
            (i, j - 1): cost[i, j - 1] + here,
        }
        i, j = min(steps, key=steps.__getitem__)
    return np.array(path[::-1])
