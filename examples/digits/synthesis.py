"""Digits of synthetic voices: a formant synthesiser (Klatt 1980) with settings drawn at random.

Every voice has another vocal tract, pitch, breath, accent and tempo. Power spectra are computed
directly, as a source times the resonances of the vocal tract; there is no sound.
"""

import itertools
from typing import NamedTuple

import numpy as np

from digits import data

# Columns: the first three formants of a man in Hz, roughly those of Klatt 1980, and of Peterson and
# Barney 1952; levels in dB of voice, breath, hiss, flat noise and the burst of k, "." for none; by
# how much the bandwidths are wider; milliseconds. "p" is the silence before a stop.
PHONES = """
iy  310 2200 2960    0   .   .   .   .  1  160
ih  400 1900 2570    0   .   .   .   .  1  100
eh  530 1780 2500    0   .   .   .   .  1  120
ah  640 1190 2450    0   .   .   .   .  1  150
aa  730 1090 2440    0   .   .   .   .  1  120
ae  660 1650 2420    0   .   .   .   .  1  130
ao  560  850 2410    0   .   .   .   .  1  180
ow  520  980 2350    0   .   .   .   .  1  110
oh  380  820 2300   -1   .   .   .   .  1  110
uw  330 1100 2280   -1   .   .   .   .  1  200
yu  340 1800 2350   -1   .   .   .   .  1  200
ey  460 2000 2600    0   .   .   .   .  1  110
ai  440 1950 2550   -1   .   .   .   .  1  120
ax  490 1450 2500   -3   .   .   .   .  1   70
er  470 1350 1650   -1   .   .   .   .  1  100
w   300  640 2200   -5   .   .   .   .  1   70
r   420 1250 1750   -3   .   .   .   .  1   70
dx  400 1500 2500  -12   .   .   .   .  1   30
ux  400 1500 2450   -4   .   .   .   .  1   30
n   280 1550 2500   -7   .   .   .   .  2   90
v   260 1100 2200  -11   .   . -33   .  2   70
z   260 1450 2550  -12   . -19   .   .  2   80
s   320 1450 2550    .   . -13   .   .  2  110
f   340 1100 2150    .   .   . -27   .  2   90
th  320 1300 2550    .   .   . -28   .  2   80
p   400 1600 2600    .   .   .   .   .  1   70
t   380 1700 2650    .   . -17 -22   .  1   18
h   400 1600 2500    . -20   . -34   .  1   40
k   350 1950 2750    .   .   .   . -17  1   25
"""
# Ways to say each digit, in several accents. Frequent ones are given twice.
PRONUNCIATIONS = (
    "z ih r ow oh|z iy r ow oh|z ih dx ow oh|z iy r oh|s iy r ow oh",
    "w ah n|w ah n|w aa n|w ao n",
    "t h yu uw|t h yu uw|t h uw|t h yu|t uw|t yu oh",
    "th r iy|th r iy|th r ih iy|s r iy|f r iy|t r iy|th dx iy|"
    "th ux dx iy|t ux dx iy|th ux dx ih iy",
    "f ao r|f ao r|f ao|f ow r|f ao er|f ow er|f oh er|f aa er",
    "f aa ai v|f aa ai v|f ah ai v|f aa ai f|f ae ai v",
    "s ih p k s|s ih p k s|s iy p k s|s ih p s",
    "s eh v ax n|s eh v ax n|s eh v n|s ae v ax n|z eh v ax n",
    "ey iy p t h|ey iy p t|ey iy p|ey ey p t h|ey iy t",
    "n aa ai n|n aa ai n|n ah ai n|n ae ai n",
)
SILENCE = -90.0  # dB
BANDWIDTHS = 70.0, 90.0, 130.0, 200.0, 250.0  # Hz, of five formants
HIGH_FORMANTS = 3500.0, 4500.0  # Hz, of the last two
FREQUENCIES = np.linspace(0, data.RATE / 2, len(data.BANDS))
Rng = np.random.Generator


def _read_phones() -> tuple[list[str], np.ndarray]:
    rows = [line.split() for line in PHONES.split("\n") if line]
    numbers = [[SILENCE if cell == "." else float(cell) for cell in row[1:]] for row in rows]
    return [row[0] for row in rows], np.array(numbers)


_NAMES, _PHONES = _read_phones()
_WAYS = [
    [[_NAMES.index(name) for name in way.split()] for way in ways.split("|")]
    for ways in PRONUNCIATIONS
]


class Voice(NamedTuple):
    """What all digits of a string have in common."""

    formants: np.ndarray  # [phones, 5] in Hz
    levels: np.ndarray  # [phones, 5] in dB, of the columns of `PHONES`
    widths: np.ndarray  # [phones, 5], bandwidths in Hz
    seconds: np.ndarray  # [phones]
    ways: np.ndarray  # [10], which pronunciation of each digit
    noises: np.ndarray  # [3, bins], spectra of the last three columns of `levels`
    pitch: float  # in Hz
    fall: float  # by which share the pitch falls in a digit
    tilt: float  # above 300 Hz, the source's power falls as the frequency to the power -2 tilt
    glide: float  # seconds from one phone to the next, roughly
    fade: float  # in dB, from the start of a digit to its end
    room: float  # seconds in which sound decays by 60 dB, at 500 Hz
    trim: float  # quieter frames at the ends are cut off: their power as a share of the loudest


def draw_voice(rng: Rng) -> Voice:
    """Returns a voice drawn at random."""
    phones = len(_PHONES)
    size = np.exp(rng.normal(0.03, 0.09))  # 1 for a man; larger for a shorter vocal tract
    accent = rng.normal(1, 0.08, (phones, 3)) ** np.array([1, 0.8, 0.5])
    formants = np.empty((phones, 5))
    formants[:, :3] = _PHONES[:, :3] * accent * size * rng.normal(1, 0.04, 3)
    formants[:, 3:] = np.array(HIGH_FORMANTS) * size * rng.normal(1, 0.05, 2)
    levels = _PHONES[:, 3:8] + rng.normal([0, 0, -9, -5, -3], 6) * np.array([0, 1, 1, 1, 1])
    levels = np.maximum(levels + rng.normal(0, 2, levels.shape), SILENCE)
    levels[:, 1] = np.maximum(levels[:, 1], levels[:, 0] + rng.uniform(-38, -14))
    tempo = rng.normal(-0.1, 0.22) + rng.normal(0, 0.3, phones)
    return Voice(
        formants,
        levels,
        widths=np.array(BANDWIDTHS) * np.exp(rng.normal(0, 0.25, 5)) * _PHONES[:, 8:9],
        seconds=_PHONES[:, 9] / 1000 * np.exp(tempo),
        ways=np.array([rng.integers(len(ways)) for ways in _WAYS]),
        noises=_draw_noises(rng, size),
        pitch=115 * size**3 * np.exp(rng.normal(0, 0.2)),
        fall=rng.uniform(-0.1, 0.6),
        tilt=rng.uniform(0.5, 1.4),
        glide=rng.uniform(0.012, 0.04),
        fade=rng.uniform(0, 20),
        room=rng.uniform(0.03, 0.4),
        trim=10 ** rng.uniform(-6, -2.3),
    )


def _draw_noises(rng: Rng, size: float) -> np.ndarray:
    """Returns the spectra of hiss, flat noise and the burst of k, [3, bins], with mean 1."""
    hump = lambda place, width: np.exp(-0.5 * ((FREQUENCIES - place) / width) ** 2)  # noqa: E731
    hiss = hump(rng.uniform(3100, 5200), rng.uniform(500, 1100))
    flat = (FREQUENCIES / 2000 + 0.1) ** rng.uniform(-0.5, 1)
    burst = hump(rng.uniform(1300, 2400) * size, 400) + 0.05
    noises = np.stack([hiss, flat, burst])
    return noises / noises.mean(1, keepdims=True)


def say(rng: Rng, voice: Voice, digit: int) -> np.ndarray:
    """Returns the power spectra of a digit, float32[T, bins], never twice the same."""
    phones = np.array(_WAYS[digit][voice.ways[digit]])
    seconds = voice.seconds[phones] * np.exp(rng.normal(0, 0.08) + rng.normal(0, 0.1, len(phones)))
    ends = np.cumsum(seconds)
    time = np.arange(0, ends[-1] + 0.02 + voice.room, data.HOP / data.RATE)
    formants = voice.formants[phones] * rng.normal(1, 0.025, (len(phones), 5))
    formants = _track(formants, ends[:-1], time, voice.glide)
    widths = _track(voice.widths[phones], ends[:-1], time, voice.glide)
    levels = np.pad(voice.levels[phones], ((1, 1), (0, 0)), constant_values=SILENCE)
    levels = _track(levels, np.append(0, ends), time, 0.004)
    levels[:, :2] -= voice.fade * (time[:, None] / ends[-1]) ** 2
    levels = 10 ** (levels / 10)
    fall = voice.fall * (0.5 - np.minimum(time / ends[-1], 1))
    pitch = voice.pitch * rng.normal(1, 0.05) * (1 + fall)

    source = harmonics(pitch) * (1 + (FREQUENCIES / 300) ** 2) ** -voice.tilt
    noise = rng.exponential(size=(len(time), len(FREQUENCIES) + 2))
    noise = 0.25 * noise[:, :-2] + 0.5 * noise[:, 1:-1] + 0.25 * noise[:, 2:]
    power = resonances(formants, widths) * (levels[:, :1] * source + levels[:, 1:2] * 0.1 * noise)
    power += levels[:, 2:] @ voice.noises * noise
    seconds = voice.room * (0.5 + 400 / (FREQUENCIES + 300))  # high frequencies decay faster
    keep = 10 ** (-6 * data.HOP / data.RATE / seconds)
    for before, now in itertools.pairwise(power):
        np.maximum(now, keep * before, out=now)
    loud = power.mean(1)
    kept = np.flatnonzero(loud >= voice.trim * loud.max())
    return power[kept[0] : kept[-1] + 1].astype(np.float32)


def _track(values: np.ndarray, ends: np.ndarray, time: np.ndarray, glide: float) -> np.ndarray:
    """Returns values [time, …] that go from each phone's to the next one's, at the phones' ends."""
    reached = 1 / (1 + np.exp(np.clip((ends - time[:, None]) / glide, -50, 50)))
    return values[0] + reached @ np.diff(values, axis=0)


def resonances(formants: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Returns the power [T, bins] that formants [T, 5] of such widths let through; 1 at 0 Hz."""
    place, half = formants[:, :, None], widths[:, :, None] / 2
    away = ((FREQUENCIES - place) ** 2 + half**2) * ((FREQUENCIES + place) ** 2 + half**2)
    return ((place**2 + half**2) ** 2 / away).prod(1)


def harmonics(pitch: np.ndarray) -> np.ndarray:
    """Returns the power spectra [T, bins] of pulses with pitches [T] in a Hann window.

    Each multiple of the pitch is a lobe as wide as that of the window, and somewhat wider at high
    frequencies, which move more when the pitch moves.
    """
    wide = 2 * data.RATE / data.WINDOW + 0.02 * FREQUENCIES
    pitch = pitch[:, None]
    off = np.abs(FREQUENCIES - pitch * np.round(FREQUENCIES / pitch))
    lobes = sum((1 + np.cos(np.pi * np.minimum(x / wide, 1))) ** 2 for x in (off, pitch - off))
    return lobes * pitch / wide * (FREQUENCIES > 40)
