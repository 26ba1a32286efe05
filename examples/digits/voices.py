"""Digits said by speech synthesisers: espeak-ng and SVOX Pico, in many voices and accents.

Both come with the extra `voices`. espeak-ng is a formant synthesiser (GPL 3) with 80 voices,
SVOX Pico (Apache 2.0) has six voices that were trained on speakers. Voices of other languages say
digits that are spelt so that they sound English, with the accent of the language.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from digits import data

ENGLISH = "zero one two three four five six seven eight nine"
GERMAN = (
    "siero uann tuh sri fohr faif six sewen eht nain",
    "ziro wann tuh fri fohr feif sicks zewen ejt nein",
)
SPANISH = "siro uan tu tri for faif six seven eit nain"
ITALIAN = "zirou uan tu tri for faiv six seven eit nain"
# The digits as they are spelt in each language so that they sound English, in one or two ways.
ESPEAK = {
    "en-us": (ENGLISH,),
    "en-us-nyc": (ENGLISH,),
    "en": (ENGLISH,),
    "en-gb-x-rp": (ENGLISH,),
    "en-gb-scotland": (ENGLISH,),
    "en-gb-x-gbclan": (ENGLISH,),
    "en-gb-x-gbcwmd": (ENGLISH,),
    "en-029": (ENGLISH,),
    "de": GERMAN,
    "nl": (
        "ziero wan toe srie foor faaiv siks seven eejt najn",
        "zirro won toe trie for faif siks sevven eet naain",
    ),
    "fr": ("zirô ouane tou sri fôr faïve sixe sévène éite naïne",),
    "fr-be": ("zirô ouonne tou fri fôre faïf sixe sèvenne ète naïne",),
    "fr-ch": ("zérô ouane tou tri fôr faïve sixe sévenn éite naïne",),
    "es": (SPANISH,),
    "it": (ITALIAN,),
    "pt": ("zirou uane tu trí fór faive sics séven eite naine",),
    "el": (
        "ζίρο ουάν του θρι φορ φάιβ σιξ σέβεν έιτ νάιν",
        "ζίροου γουάν τού θρί φόορ φάιφ σίξ σέβν έϊτ νάιν",
    ),
    "pl": ("ziro łan tu tri for fajw siks sewen ejt najn",),
    "cs": ("zírou uan tú srí fór fajv siks sevn ejt najn",),
    "ru": ("зи́роу уа́н ту́ сри́ фо́р фа́йв си́кс сэ́вэн э́йт на́йн",),
    "sv": ("siro oann to tri får fajv six seven ejt najn",),
    "hu": ("zíró uán tú szrí fór fájv sziksz szeven éjt nájn",),
    "tr": ("ziro van tu tri for fayv siks sevın eyt nayn",),
    "hi": ("ज़ीरो वन टू थ्री फ़ोर फ़ाइव सिक्स सेवन एट नाइन",),
    "ro": ("ziro uan tu tri for faiv six seven eit nain",),
    "fi": ("siirou uan tuu trii foor faiv siks seven eit nain",),
}
PICO = {
    "en-US": (ENGLISH,),
    "en-GB": (ENGLISH,),
    "de-DE": GERMAN,
    "es-ES": (
        "siro uan tu zri for faif six seven eit nain",
        "ziro guan tu tri foor faiv siks seben éit náin",
    ),
    "fr-FR": (
        "zirô ouane tou sri fôr faïve sixe sévène éite naïne",
        "zirro ouonne tou tri fore faïf sikse sèvenne ète naïne",
    ),
    "it-IT": (ITALIAN,),
}
# Voices of espeak-ng that no person has.
UNLIKELY = ("anikaRobot", "Demonic", "whisper", "whisperf", "UniRobot", "croak", "Tweaky", "Hugo")
# And those that never say a word twice the same, whatever the seed of its noise.
UNSTEADY = ("Alicia", "f2", "f3", "f5", "sandro", "victor")
M_PERTURB = -6  # of malloc.h
Rng = np.random.Generator
Say = Callable[[Rng, str], tuple[np.ndarray, float]]  # samples, and their rate in Hz


class Engine(Protocol):
    """A synthesiser."""

    accents: dict[str, tuple[str, ...]]  # names of languages, and spellings of the digits

    def draw(self, rng: Rng, accent: str) -> Say:
        """Returns a voice drawn at random, as a function that says a word."""
        ...


class Espeak:
    """libespeak-ng. What it says depends a little on what it said before."""

    accents = ESPEAK
    SYNCHRONOUS, UTF8, RATE, PITCH, RANGE = 2, 1, 1, 3, 4  # of its speak_lib.h

    def __init__(self):
        import espeakng_loader  # pyright: ignore[reportMissingImports]

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._seed = ctypes.CDLL(None).srand
        folder = Path(espeakng_loader.get_data_path())
        path = str(folder.parent).encode()
        self._rate = self._library.espeak_Initialize(self.SYNCHRONOUS, 0, path, 0)
        names = sorted(file.name for file in (folder / "voices" / "!v").iterdir())
        self._variants = [name for name in names if name not in UNLIKELY + UNSTEADY]
        self._pieces: list[bytes] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._take)  # kept, since the library does not keep it
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, sound, count: int, _) -> int:
        if sound and count > 0:
            self._pieces.append(ctypes.string_at(sound, 2 * count))
        return 0

    def draw(self, rng: Rng, accent: str) -> Say:
        variant = self._variants[rng.integers(len(self._variants))]
        voice = f"{accent}+{variant}".encode()
        rate = 150 * np.exp(rng.normal(0, 0.25))
        pitch, spread = rng.integers(20, 80), rng.integers(10, 90)

        def say(rng: Rng, word: str) -> tuple[np.ndarray, float]:
            now = {
                self.RATE: np.clip(rate * np.exp(rng.normal(0, 0.1)), 80, 400),
                self.PITCH: np.clip(pitch + rng.normal(0, 6), 0, 99),
                self.RANGE: spread,
            }
            if self._library.espeak_SetVoiceByName(voice):
                raise RuntimeError(f"espeak-ng has no voice {voice.decode()}")
            for name, value in now.items():
                self._library.espeak_SetParameter(name, int(value), 0)
            self._seed(int(rng.integers(2**31)))  # of its noise; it takes the time otherwise
            self._pieces.clear()
            text = word.encode()
            self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, self.UTF8, None, None)
            return data.samples(b"".join(self._pieces)), self._rate

        return say


@contextlib.contextmanager
def _zeroed() -> Iterator[None]:
    """Has glibc fill new memory with zeros: SVOX Pico reads some that it never wrote."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # other libraries have none
    mallopt(M_PERTURB, 255)  # it fills with the inverse
    try:
        yield
    finally:
        mallopt(M_PERTURB, 0)


class Pico:
    """SVOX Pico, whose voices are women's: they are made deeper."""

    accents = PICO
    RATE = 16000

    def __init__(self):
        import py_nanotts  # pyright: ignore[reportMissingImports]

        self._engine = py_nanotts.NanoTTS()

    def draw(self, rng: Rng, accent: str) -> Say:
        tempo = np.exp(rng.normal(0.1, 0.25))
        pitch, longer = rng.uniform(0.5, 1.5), rng.uniform(0.95, 1.25)

        def say(rng: Rng, word: str) -> tuple[np.ndarray, float]:
            with _zeroed():
                content = self._engine.speak(
                    word,
                    voice=accent,
                    speed=float(tempo * np.exp(rng.normal(0, 0.1))),
                    pitch=float(pitch * np.exp(rng.normal(0, 0.06))),
                )
            return data.samples(content), self.RATE / longer / rng.uniform(0.97, 1.03)

        return say


@functools.cache
def engines() -> tuple[Engine, ...]:
    """Returns the synthesisers; ends the program with a sentence where they are not installed."""
    try:
        return Espeak(), Pico()
    except ImportError as error:
        raise SystemExit(
            f"{error.name} is not installed: pip install -e '.[voices]', or --without accents"
        ) from None


class Voice(NamedTuple):
    """What all digits of a string have in common."""

    say: Say
    words: list[str]
    trim: float  # quieter frames at the ends are cut off: their power as a share of the loudest
    fade: float  # in dB, from the start of a digit to its end


def draw_voice(rng: Rng) -> Voice:
    """Returns a voice drawn at random."""
    engine = engines()[rng.integers(2)]
    # An accent with two spellings counts twice.
    pairs = [(accent, words) for accent, ways in engine.accents.items() for words in ways]
    accent, words = pairs[rng.integers(len(pairs))]
    trim, fade = 10 ** rng.uniform(-6, -2.3), rng.uniform(0, 12)
    return Voice(engine.draw(rng, accent), words.split(), trim, fade)


def say(rng: Rng, voice: Voice, digit: int) -> np.ndarray:
    """Returns the power spectra of a digit, float32[T, bins]."""
    sound = resample(*voice.say(rng, voice.words[digit]))
    sound = sound[rng.integers(data.HOP) :] * (0.1 / max(sound.std(), data.FLOOR))
    power = data.power(np.pad(sound[: len(sound) // data.HOP * data.HOP], data.AROUND))
    loud = power.mean(1)
    kept = np.flatnonzero(loud >= voice.trim * loud.max())
    power = power[kept[0] : kept[-1] + 1]
    fade = voice.fade * np.linspace(0, 1, len(power)) ** 2
    return (power * 10 ** (-fade[:, None] / 10)).astype(np.float32)


def resample(sound: np.ndarray, rate: float) -> np.ndarray:
    """Returns a sound of a higher rate at `data.RATE`, without what is above half of that."""
    sound = np.pad(sound, (0, -len(sound) % 256))  # a length whose transform is fast
    count = int(len(sound) * data.RATE / rate)
    spectrum = np.fft.rfft(sound)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(sound))).astype(np.float32)
