"""Strings of spoken digits joined from single recordings, and their log-mel features.

Recordings are those of the Free Spoken Digit Dataset, `{digit}_{speaker}_{index}.wav`, 8 kHz.
By its convention indices 0 to 4 are for testing. Without recordings, tones of telephone keys are
used instead, with a different pitch and tempo for each "speaker". Since strings are joined here,
the start and end of every digit are known.
"""

import wave
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grain
import kaldi_native_fbank
import numpy as np

from training.devices import Rows

RATE, HOP, WINDOW, MELS = 8000, 100, 200, 40  # samples; a frame every 12.5 milliseconds
AROUND = (WINDOW - HOP) // 2  # samples of a window on either side of its frame
FLOOR = 1e-6  # added to energies
MOST_DIGITS, MOST_FRAMES = 7, 352  # of a training string
TEST_INDICES = range(5)
TONE_SPEAKERS = ("alto", "baritone", "bass", "soprano", "tenor")


class Recording(NamedTuple):
    """One digit: samples, float32 in -1…1, the digit, its speaker, and the recording's index."""

    sound: np.ndarray
    digit: int
    speaker: str
    index: int


class DigitString(NamedTuple):
    """Features float32[T, MELS], digits int32[S], and the start and end of each, seconds [S, 2]."""

    features: np.ndarray
    digits: np.ndarray
    bounds: np.ndarray


def open_wave(path: str | Path) -> wave.Wave_read:
    """Opens a mono 16-bit file of 8 kHz."""
    try:
        file = wave.open(str(path))  # noqa: SIM115, the caller closes it
    except (EOFError, wave.Error) as error:
        raise ValueError(f"is not a wav file: {str(error) or 'it ends in its header'}") from None
    form = file.getframerate(), file.getnchannels(), file.getsampwidth()
    if form != (RATE, 1, 2):
        file.close()
        raise ValueError(f"is not mono with 16 bits at {RATE} Hz")
    return file


def samples(content: bytes) -> np.ndarray:
    """Returns samples of 16 bits as float32 in -1…1."""
    return np.frombuffer(content, "<i2").astype(np.float32) / 2**15


def read_wave(path: str | Path) -> np.ndarray:
    """Returns the samples of a mono 16-bit file of 8 kHz, float32 in -1…1."""
    with open_wave(path) as file:
        return samples(file.readframes(file.getnframes()))


def write_wave(path: str | Path, sound: np.ndarray) -> None:
    """Writes samples in -1…1 to a mono 16-bit file of 8 kHz; louder ones are cut off."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes())


def load_recordings(directory: str | Path) -> list[Recording]:
    """Returns the recordings in `directory`, in a fixed order."""
    if not Path(directory).is_dir():
        raise SystemExit(f"{directory}: no such directory")
    recordings = []
    for file in sorted(Path(directory).glob("*.wav")):
        digit, _, rest = file.stem.partition("_")
        speaker, _, index = rest.rpartition("_")
        if not (len(digit) == 1 and digit.isdecimal() and speaker and index.isdecimal()):
            raise SystemExit(f"{file}: the name is not digit_speaker_index.wav")
        try:
            recordings.append(Recording(read_wave(file), int(digit), speaker, int(index)))
        except ValueError as error:
            raise SystemExit(f"{file}: {error}") from None
    if not recordings:
        raise SystemExit(f"{directory}: no recording named digit_speaker_index.wav")
    return recordings


def tone_recordings(count: int = 20) -> list[Recording]:
    """Returns `count` "recordings" of each key of a telephone for each of `TONE_SPEAKERS`."""
    rows, columns = (697, 770, 852, 941), (1209, 1336, 1477)
    recordings = []
    for digit in range(10):
        row, column = (3, 1) if digit == 0 else divmod(digit - 1, 3)
        for who, speaker in enumerate(TONE_SPEAKERS):
            for index in range(count):
                rng = np.random.default_rng([digit, who, index])
                pitch = 1 + 0.03 * (who - 2) + rng.normal(0, 0.005)
                length = int(RATE * rng.uniform(0.15, 0.3) * (1 + 0.1 * who))
                time = np.arange(length) / RATE * 2 * np.pi * pitch
                sound = np.sin(rows[row] * time) + rng.uniform(0.3, 1) * np.sin(
                    columns[column] * time
                )
                sound *= 0.1 * np.hanning(length) ** 0.5
                recordings.append(Recording(sound.astype(np.float32), digit, speaker, index))
    return recordings


def mel_bands() -> np.ndarray:
    """Returns triangular bands as a matrix [bins, MELS]."""
    frames = kaldi_native_fbank.FrameExtractionOptions(
        samp_freq=RATE, frame_shift_ms=1000 * HOP / RATE, frame_length_ms=1000 * WINDOW / RATE
    )
    bands = kaldi_native_fbank.MelBanksOptions(num_bins=MELS, low_freq=60)
    matrix = kaldi_native_fbank.MelBanks(bands, frames, 1.0).get_matrix()
    return np.ascontiguousarray(matrix.T)


BANDS = mel_bands()


def log_mel(sound: np.ndarray) -> np.ndarray:
    """Returns log energies, float32[T, MELS]; frame t is centred at sample ``(t + 1/2) HOP``."""
    frames = len(sound) // HOP
    return energies(np.pad(sound[: frames * HOP], AROUND))


def energies(sound: np.ndarray) -> np.ndarray:
    """Returns the log energies of all windows within `sound`, one every HOP: float32[..., T, MELS].

    `log_mel` adds `AROUND` zeros at both ends first.
    """
    return np.log(power(sound) @ BANDS + FLOOR)


def power(sound: np.ndarray) -> np.ndarray:
    """Returns the power spectra of all windows within `sound`: float32[..., T, bins]."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW, axis=-1)[..., ::HOP, :]
    spectrum = np.fft.rfft(windows * np.hanning(WINDOW).astype(np.float32), 2 * (len(BANDS) - 1))
    return np.square(np.abs(spectrum)).astype(np.float32)


def glue(
    rng: np.random.Generator, recordings: Sequence[Recording], *, silence: float = 0.25
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a string's sound, digits and bounds: recordings with silence between them, and noise.

    Args:
      rng: draws silences, loudness and noise.
      recordings: in this order.
      silence: the longest silence before and after each recording, in seconds.
    """
    pieces, digits, bounds, place = [], [], [], 0
    before = np.zeros(int(rng.uniform(0.05, silence) * RATE), np.float32)
    for recording in recordings:
        after = np.zeros(int(rng.uniform(0.05, silence) * RATE), np.float32)
        end = place + len(before) + len(recording.sound)
        pieces += [before, recording.sound * np.float32(np.exp(rng.normal(0, 0.2)))]
        digits.append(recording.digit)
        bounds.append((end - len(recording.sound), end))
        place, before = end, after
    sound = np.concatenate([*pieces, before])
    # The level of the noise relative to the string: -40 to -15 decibels.
    level = sound.std() * 10 ** rng.uniform(-2, -0.75)
    sound = sound + level * rng.standard_normal(len(sound), np.float32)
    sound *= np.float32(0.1 / max(sound.std(), 1e-6))
    return sound, np.array(digits, np.int32), np.array(bounds) / RATE


def make_strings(
    recordings: Iterable[Recording], count: int, seed: Sequence[int]
) -> list[DigitString]:
    """Returns `count` strings of 3 to 7 digits, each of one speaker.

    Args:
      recordings: the recordings to join.
      count: the number of strings.
      seed: the seed; string i depends only on it and i.
    """
    by_speaker: dict[str, dict[int, list[Recording]]] = {}
    for recording in recordings:
        by_speaker.setdefault(recording.speaker, {}).setdefault(recording.digit, []).append(
            recording
        )
    speakers = sorted(by_speaker)

    def make(i: int) -> DigitString:
        rng = np.random.default_rng([*seed, i])
        digits = by_speaker[speakers[rng.integers(len(speakers))]]
        known = sorted(digits)
        chosen = []
        for _ in range(rng.integers(3, MOST_DIGITS + 1)):
            takes = digits[known[rng.integers(len(known))]]
            chosen.append(takes[rng.integers(len(takes))])
        sound, labels, bounds = glue(rng, chosen)
        return DigitString(log_mel(sound), labels, bounds)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, range(count)))


def stack(strings: Sequence[DigitString], frames: int) -> dict[str, np.ndarray]:
    """Returns a batch, padded to `frames` and `MOST_DIGITS`. Digit d is class d + 1."""
    kind = strings[0].features.dtype
    batch = {
        "features": np.zeros((len(strings), frames, strings[0].features.shape[1]), kind),
        "frames": np.array([len(s.features) for s in strings], np.int32),
        "labels": np.zeros((len(strings), MOST_DIGITS), np.int32),
        "label_lengths": np.array([len(s.digits) for s in strings], np.int32),
    }
    for i, string in enumerate(strings):
        batch["features"][i, : len(string.features)] = string.features
        batch["labels"][i, : len(string.digits)] = string.digits + 1
    return batch


def training_batches(
    strings: Sequence[DigitString], batch_size: int, seed: int, rows: range | None = None
) -> grain.DatasetIterator:
    """Returns an endless iterator of batches, each epoch in another order.

    "index" has the index of each row in `strings`. `rows` are the rows of each batch to return;
    None for all.
    """

    def batch(indices: Sequence[int]) -> dict[str, np.ndarray]:
        examples = stack([strings[i] for i in indices], MOST_FRAMES)
        return examples | {"index": np.array(indices, np.int32)}

    dataset = grain.MapDataset.range(len(strings)).seed(seed).shuffle().repeat()
    rows = rows or range(batch_size)
    dataset = grain.MapDataset.source(Rows(dataset, batch_size, rows))
    dataset = dataset.batch(len(rows), batch_fn=batch)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
