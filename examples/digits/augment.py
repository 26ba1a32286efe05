"""Training strings made different at every step: other speakers, tempos, rooms and microphones.

All of it is done to power spectra, on the device, and to the whole batch at once.
"""

from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np

from digits import data

BINS = len(data.BANDS)
LOWEST = 60.0  # Hz, where the first band begins
KEPT = 0.8  # of the frequencies; those above are squeezed so that the highest stays where it is
# Of numpy, as all arrays of modules: processes can be joined only before there are arrays of JAX.
NO_WARP = np.array([[1, 0]], np.float32)


def vary(
    batch: dict[str, jax.Array], key: jax.Array, parts: Collection[str]
) -> dict[str, jax.Array]:
    """Returns a batch of strings, varied at random.

    Args:
      batch: of `mixing.training_strings`: "features" are power spectra [batch, T, BINS].
      key: what is drawn depends only on it.
      parts: which of `PARTS` to do. Without any, there is only the white noise of the tests.

    Returns:
      The batch with log mel energies [batch, T, MELS] as "features", and other "frames", at most T.
    """
    power, frames = batch["features"].astype(jnp.float32), batch["frames"]
    keys = dict(zip(PARTS, jax.random.split(key, len(PARTS)), strict=True))
    x = power @ bands(_random_warps(keys["tract"], len(power)) if "tract" in parts else NO_WARP)
    for name, change in CHANGES.items():
        if name in parts:
            x, frames = change(x, frames, keys[name])
    x += _random_noise(x, frames, keys["noise"], colours="noise" in parts)
    return batch | {"features": jnp.log(x + data.FLOOR), "frames": frames}


def bands(warp: jax.Array | np.ndarray) -> jax.Array:
    """Returns triangular mel bands [batch, BINS, MELS] for spectra whose frequencies are warped.

    Args:
      warp: [batch, 2]. A frequency is multiplied by the first number, and higher ones by more if
        the second is positive, lower ones by less. `NO_WARP` gives `data.BANDS`.
    """
    scale, bend = warp[:, :1], warp[:, 1:]
    share = jnp.linspace(0, 1, BINS)
    warped = lambda x: x * (scale + bend * (x - KEPT / 2))  # noqa: E731
    edge = jnp.minimum(KEPT, KEPT / (scale + bend * KEPT / 2))
    top = warped(edge)
    above = top + (share - edge) * (1 - top) / (1 - edge)
    share = jnp.where(share < edge, warped(share), above)
    lowest, highest = _mel(LOWEST), _mel(data.RATE / 2)
    place = (_mel(share * data.RATE / 2) - lowest) / (highest - lowest) * (data.MELS + 1)
    return jax.nn.relu(1 - jnp.abs(place[:, :, None] - jnp.arange(1, data.MELS + 1)))


def _mel(frequency):
    return 1127 * jnp.log1p(frequency / 700)


def _random_warps(key: jax.Array, batch: int) -> jax.Array:
    """Vocal tracts of other lengths (Jaitly and Hinton 2013), and of other shapes."""
    return jax.random.uniform(
        key, (batch, 2), minval=jnp.array([0.9, -0.1]), maxval=jnp.array([1.12, 0.1])
    )


def _hum(x, frames, key):
    """Noise of any colour, 8 to 40 dB below, only while somebody speaks: that of a recording."""
    said = x.sum(2, keepdims=True) > 0
    return x + said * _random_noise(x, frames, key, colours=True), frames


def _vowels(x, frames, key):
    """Moves the spectrum up and down by at most a band, another way every few frames."""
    knots = jax.random.uniform(key, (len(x), x.shape[1] // 12 + 2, 2), minval=-1)
    time = jnp.arange(x.shape[1]) / 12
    low, part = time.astype(jnp.int32), (time % 1)[:, None]
    knots = knots[:, low] * (1 - part) + knots[:, low + 1] * part
    height = jnp.linspace(0, 1, data.MELS)
    shift = knots[:, :, :1] * (1 - height) + knots[:, :, 1:] * height
    around = jnp.pad(x, ((0, 0), (0, 0), (1, 1)), mode="edge")
    up, down = jax.nn.relu(shift), jax.nn.relu(-shift)
    return x * (1 - up - down) + up * around[:, :, :-2] + down * around[:, :, 2:], frames


def _tempo(x, frames, key):
    """Another tempo, which sways."""
    size = x.shape[1]
    tempo, period, depth, phase = jax.random.uniform(key, (4, len(x), 1))
    longer = jnp.exp(0.5 * tempo - 0.25)[:, 0]
    lengths = jnp.clip((frames * longer).astype(jnp.int32), 1, size)
    period = 30 + 60 * period
    time = jnp.arange(size)
    place = (time + 0.5) * (frames / lengths)[:, None] - 0.5
    sway = 0.35 * depth * period / (2 * jnp.pi)
    place += sway * jnp.sin(2 * jnp.pi * (time / period + phase))
    place = jnp.clip(place, 0, frames[:, None] - 1)
    low = place.astype(jnp.int32)
    part = (place - low)[:, :, None]
    high = jnp.minimum(low + 1, frames[:, None] - 1)
    take = jax.vmap(lambda x, i: x[i])
    return take(x, low) * (1 - part) + take(x, high) * part, lengths


def _equaliser(x, frames, key):
    """A microphone that is not flat, and half of the time lacks low frequencies."""
    keys = jax.random.split(key)
    lowest, depth, chosen = jax.random.uniform(keys[1], (3, len(x), 1))
    lowest = jnp.where(chosen < 0.5, 1 + 9 * lowest, 0)
    cut = 6 * depth * jax.nn.relu(1 - jnp.arange(data.MELS) / jnp.maximum(lowest, 1e-3))
    return x * jnp.exp(_curves(keys[0], len(x)) - cut)[:, None], frames


def _curves(key, batch):
    """Random smooth curves over the bands, [batch, MELS]: natural logarithms of power."""
    place = np.pi * (np.arange(data.MELS) + 0.5) / data.MELS
    curves = np.array([1.4 / np.sqrt(i) * np.cos(i * place) for i in range(1, 6)], np.float32)
    return jax.random.normal(key, (batch, 5)) @ curves


def _reverberation(x, frames, key):
    """Sound that decays for up to 0.5 seconds by 60 dB, in half of the strings."""
    decay, level, chosen = jax.random.uniform(key, (3, len(x), 1))
    seconds = 0.1 + 0.4 * decay
    keep = jnp.exp(-jnp.log(1e6) * data.HOP / data.RATE / seconds)
    gain = jnp.where(chosen < 0.5, (1 - keep) * 10 ** (-1.2 * level), 0)

    def step(room, now):
        return keep * (room + now), now + gain * room

    _, x = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))
    return x.swapaxes(0, 1), frames


def _random_noise(x, frames, key, *, colours):
    """White noise, 15 to 40 dB below the string; with colours, of any colour, 8 to 40 dB below."""
    keys = jax.random.split(key, 3)
    starts = jax.random.randint(keys[0], (len(x),), 0, len(NOISE) - x.shape[1])
    noise = jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(NOISE, start, x.shape[1]))(starts)
    if colours:
        noise *= jnp.exp(_curves(keys[1], len(x)))[:, None]
    highest = -0.8 if colours else -1.5
    level = jax.random.uniform(keys[2], (len(x),), minval=-4.0, maxval=highest)
    return noise * _louder(noise, x, frames, level)


def _voices(x, frames, key):
    """Another string in the background, 15 to 40 dB below, in half of the strings."""
    level, chosen = jax.random.uniform(key, (2, len(x)))
    other = jnp.roll(_within(x, frames), 1, 0)
    gain = _louder(other, x, frames, -4.0 + 2.5 * level)
    return x + other * jnp.where((chosen < 0.5)[:, None, None], gain, 0), frames


def _louder(other, x, frames, level):
    """By what to multiply `other` to have it so many powers of ten above `x`."""
    wanted = _within(x, frames).sum((1, 2)) * 10**level
    return (wanted / jnp.maximum(_within(other, frames).sum((1, 2)), data.FLOOR))[:, None, None]


def _within(x, frames):
    return x * (jnp.arange(x.shape[1]) < frames[:, None])[:, :, None]


def _make_noise() -> np.ndarray:
    sound = np.random.default_rng(0).standard_normal(4096 * data.HOP, np.float32)
    return data.power(sound) @ data.BANDS


NOISE = _make_noise()
CHANGES: dict[str, Callable] = {
    "hum": _hum,
    "vowels": _vowels,
    "tempo": _tempo,
    "equaliser": _equaliser,
    "reverberation": _reverberation,
    "voices": _voices,
}
PARTS = ("tract", *CHANGES, "noise")
