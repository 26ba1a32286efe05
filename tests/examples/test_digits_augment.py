"""Training strings: how they are joined, synthetic voices, and what is varied at every step."""

import ctypes
import sys

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("kaldi_native_fbank")

import jax  # noqa: E402

from digits import augment, data, mixing, models, normalise, synthesis, voices  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")

PARTS = tuple(part for part in mixing.PARTS if part != "accents")
RECORDINGS = data.tone_recordings(count=2)
vary = jax.jit(augment.vary, static_argnums=2)
bands = jax.jit(augment.bands)


def batch_of(count: int = 4) -> dict[str, np.ndarray]:
    strings = mixing.training_strings(RECORDINGS, count, [1], PARTS)
    return data.stack(strings, data.MOST_FRAMES)


def power_of(features, frames) -> np.ndarray:
    inside = np.arange(data.MOST_FRAMES) < np.asarray(frames)[:, None]
    return (np.exp(features) * inside[:, :, None]).sum((1, 2))


def test_a_training_string_is_a_function_of_seed_and_number_and_fits():
    one = mixing.training_strings(RECORDINGS, 6, [1], PARTS)
    two = mixing.training_strings(RECORDINGS, 3, [1], PARTS)
    for a, b in zip(one[:3], two, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    for string in one:
        assert len(string.features) <= data.MOST_FRAMES
        assert 1 <= len(string.digits) == len(string.bounds) <= data.MOST_DIGITS
        times = (np.arange(len(string.features)) + 0.5) * data.HOP / data.RATE
        said = np.any([(times > a) & (times < b) for a, b in string.bounds], 0)
        loud = string.features.astype(np.float32).mean(1)
        assert np.all(loud[~said] == 0)
        assert np.mean(loud[said] > 0) > 0.9


def test_resonances_are_those_of_their_poles():
    formants = np.array([[500, 1500, 2500, 3500, 4500], [300, 2200, 3000, 3400, 4700.0]])
    widths = np.array([[60, 90, 120, 200, 250], [40, 200, 300, 100, 80.0]])
    found = synthesis.resonances(formants, widths)
    for row, place, width in zip(found, formants, widths, strict=True):
        poles = np.concatenate([-width / 2 + 1j * place, -width / 2 - 1j * place])
        response = np.prod(poles / (1j * synthesis.FREQUENCIES[:, None] - poles), -1)
        np.testing.assert_allclose(row, np.abs(response) ** 2, rtol=1e-9)


@pytest.mark.parametrize("pitch", [100, 160, 250])
def test_harmonics_are_those_of_pulses_in_a_window(pitch):
    time = np.arange(0, 1, 1 / data.RATE)
    pulses = np.diff(np.floor(time * pitch), prepend=-1).astype(np.float32)
    expected = data.power(pulses).mean(0)
    found = synthesis.harmonics(np.array([float(pitch)]))[0]
    inside = (synthesis.FREQUENCIES > 60) & (synthesis.FREQUENCIES < 1500)
    found, expected = (x[inside] / x[inside].mean() for x in (found, expected))
    assert np.abs(found - expected).mean() < 0.2


def test_synthetic_digits_sound_as_their_phones():
    rng = np.random.default_rng(0)
    voices = [synthesis.draw_voice(rng) for _ in range(20)]
    said = [[synthesis.say(rng, voice, digit) for digit in range(10)] for voice in voices]
    for x in (x for row in said for x in row):
        assert x.dtype == np.float32
        assert 4 <= len(x) <= 150
        assert np.all(np.isfinite(x))
        assert np.all(x >= 0)

    def centre(x):  # of the power between 700 and 3000 Hz, at the loudest frame
        kept = (synthesis.FREQUENCIES > 700) & (synthesis.FREQUENCIES < 3000)
        frame = x[np.argmax(x.mean(1))][kept]
        return (frame * synthesis.FREQUENCIES[kept]).sum() / frame.sum()

    # "three" and "eight" have high second formants, "four" and "one" have low ones.
    centres = np.array([[centre(x) for x in row] for row in said]).mean(0)
    assert min(centres[[3, 8]]) > 1.25 * max(centres[[1, 4]])
    again = synthesis.say(np.random.default_rng(5), voices[0], 7)
    np.testing.assert_array_equal(again, synthesis.say(np.random.default_rng(5), voices[0], 7))
    assert synthesis.draw_voice(rng).pitch != voices[0].pitch


def test_every_accent_says_all_digits():
    pytest.importorskip("espeakng_loader", reason="needs the `voices` extra")
    pytest.importorskip("py_nanotts", reason="needs the `voices` extra")
    for engine in voices.engines():
        for accent, ways in engine.accents.items():
            say = engine.draw(np.random.default_rng(0), accent)
            found = []
            for words in ways:
                voice = voices.Voice(say, words.split(), trim=1e-3, fade=6.0)
                assert len(voice.words) == 10
                found += [voices.say(np.random.default_rng(1), voice, i) for i in range(10)]
            assert all(5 <= len(x) <= 100 and np.all(np.isfinite(x)) for x in found), accent
            assert len({x.tobytes() for x in found[-10:]}) == 10, accent  # each is said
    strings = mixing.training_strings(RECORDINGS, 4, [1], ("accents",))
    assert all(0 < len(string.features) <= data.MOST_FRAMES for string in strings)


def test_a_word_is_the_same_whatever_pico_said_before():
    pytest.importorskip("py_nanotts", reason="needs the `voices` extra")
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("only glibc can fill new memory with zeros")

    def three(engine):
        say = engine.draw(np.random.default_rng(0), "en-US")
        return say(np.random.default_rng(1), "three")[0]

    engine = voices.Pico()
    first = three(engine)
    for accent in engine.accents:
        engine.draw(np.random.default_rng(0), accent)(np.random.default_rng(2), "seven")
    np.testing.assert_array_equal(three(engine), first)


def test_voices_that_are_not_installed_are_named(monkeypatch):
    voices.engines.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SystemExit, match=r"^espeakng_loader is not installed: .*--without accents"):
        voices.draw_voice(np.random.default_rng(0))


def test_sounds_of_other_rates_keep_what_is_below_4_khz():
    time = np.arange(4096) / 22050
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (1000, 5000))
    found = voices.resample(low + high, 22050)
    assert len(found) == pytest.approx(4096 * data.RATE / 22050, abs=1)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) * (4096 / 22050 / len(found)))
    inside = slice(100, -100)
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.05)


def test_bands_are_those_of_the_features_and_move():
    warps = np.array([[1, 0], [1.1, 0], [1, 0.2]], np.float32)
    plain, higher, bent = np.asarray(bands(warps))
    np.testing.assert_allclose(plain, data.BANDS, atol=1e-4)
    places = np.arange(augment.BINS) / (augment.BINS - 1)
    for band in range(5, 30):  # narrow bands have few bins
        before, after = (places @ m[:, band] / m[:, band].sum() for m in (plain, higher))
        assert after == pytest.approx(before / 1.1, abs=0.004)
    low, high = (np.argmax(bent[:, band]) - np.argmax(plain[:, band]) for band in (10, 34))
    assert low > 0 > high
    extreme = np.array([[s, b] for s in (0.82, 1.22) for b in (-0.2, 0.2)], np.float32)
    found = np.asarray(bands(extreme))
    assert np.all(np.diff(np.argmax(found[:, :, 5:], 1), axis=1) >= 0)
    assert np.all(found[:, -1] < 1e-3)  # the highest frequency stays where it is
    assert np.all(found[:, -2, -1] > 0)


def test_modules_hold_no_arrays_of_jax():
    # They would start JAX, after which `jax.distributed` can't join processes.
    held = [
        x
        for m in (augment, data, mixing, models, normalise, synthesis, voices)
        for x in vars(m).values()
    ]
    assert not any(isinstance(x, jax.Array) for x in held)


def test_without_any_part_features_are_those_of_the_sound_with_white_noise():
    sound = np.random.default_rng(0).normal(0, 0.1, 3050).astype(np.float32)
    batch = {"features": data.power(sound)[None], "frames": np.array([29], np.int32)}
    found = vary(batch, jax.random.key(0), ())
    assert found["frames"].tolist() == [29]
    more = np.asarray(found["features"][0]) - data.energies(sound)
    assert more.min() > -1e-3
    assert 1e-4 < more.mean() < 0.1


@pytest.mark.parametrize(("parts", "highest"), [((), -1.5), (("noise",), -0.8)])
def test_noise_is_as_loud_as_it_says(parts, highest):
    batch = batch_of(8)
    clean = (batch["features"].astype(np.float32) @ data.BANDS).sum((1, 2))
    found = vary(batch, jax.random.key(2), parts)
    levels = np.log10(power_of(found["features"], found["frames"]) / clean - 1)
    assert np.all((levels > -4.05) & (levels < highest + 0.05))
    assert np.ptp(levels) > 1


@pytest.mark.parametrize("part", augment.PARTS)
def test_each_part_changes_strings_as_it_says(part):
    batch = batch_of(8)
    plain = vary(batch, jax.random.key(1), ())
    found, again = (vary(batch, jax.random.key(1), (part,)) for _ in range(2))
    np.testing.assert_array_equal(found["features"], again["features"])
    assert np.all(np.isfinite(found["features"]))
    assert np.abs(found["features"] - plain["features"]).mean() > 0.01
    frames = found["frames"]
    if part == "tempo":
        longer = frames / batch["frames"]
        assert np.all((longer > 0.75) & (longer < 1.3) & (frames <= data.MOST_FRAMES))
        assert len(set(longer.tolist())) > 4
        return
    np.testing.assert_array_equal(frames, batch["frames"])
    if part == "voices":
        more = power_of(found["features"], frames) / power_of(plain["features"], frames) - 1
        assert np.all(more > -1e-3)
        assert 10**-4 < more.max() < 10**-1.45
    if part == "hum":
        # In silence there is only the white noise, which is as much louder as the string.
        silent = batch["features"].sum(2) == 0
        more = found["features"] - plain["features"]
        assert np.all(more > -1e-4)
        assert np.log(1 + 10**-0.8) > more[silent].max()
        assert more[~silent].max() > 1
    if part == "reverberation":
        assert np.all(found["features"] >= plain["features"] - 1e-4)


def test_no_padding_is_read_and_time_goes_on():
    batch = batch_of()
    batch["frames"] = np.minimum(batch["frames"], 300)
    outside = np.arange(data.MOST_FRAMES) >= batch["frames"][:, None]
    poisoned = batch | {"features": batch["features"].copy()}
    poisoned["features"][outside] = 3e4
    one, two = (vary(b, jax.random.key(3), augment.PARTS) for b in (batch, poisoned))
    np.testing.assert_array_equal(one["frames"], two["frames"])
    for row, length in enumerate(one["frames"]):
        np.testing.assert_allclose(
            one["features"][row, :length], two["features"][row, :length], rtol=1e-4, atol=1e-4
        )
    ramp = np.tile(np.arange(data.MOST_FRAMES, dtype=np.float32)[:, None], (4, 1, 1))
    found, frames = jax.jit(augment.CHANGES["tempo"])(ramp, batch["frames"], jax.random.key(4))
    for row, length in zip(found, frames, strict=True):
        assert np.all(np.diff(row[:length, 0]) >= 0)
