"""Recognisers of digits, in Flax NNX: a convolutional encoder, and a transducer with it."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from digits import normalise
from digits.data import HOP, MELS, RATE

CLASSES = 11  # the blank, then the digits
STRIDE = 4  # frames of features per frame of logits
CHANNELS = 1, 16, 32  # of the bands, and after each of the first two convolutions
SECONDS_A_FRAME = STRIDE * HOP / RATE


class Block(nnx.Module):
    """A convolution over five frames whose result is added to its input."""

    def __init__(self, width: int, **options):
        self.norm = nnx.LayerNorm(width, use_fast_variance=False, **options)
        self.conv = nnx.Conv(width, width, 5, **options)
        self.dropout = nnx.Dropout(0.1, broadcast_dims=(1,))  # random numbers are slow on a CPU

    def __call__(self, x: jax.Array, inside: jax.Array, key: jax.Array | None) -> jax.Array:
        # Also after the norm, whose bias would make padding differ from the end of the array.
        y = nnx.relu(self.conv(self.norm(x) * inside))
        return x + self.dropout(y, rngs=key, deterministic=key is None)


class Encoder(nnx.Module):
    """Maps features [batch, T, MELS] to logits, one frame of 50 ms per four frames.

    Each string is first normalised to mean 0 and variance 1 in every band. The first two
    convolutions are over time and bands, so that a voice with higher formants looks alike a few
    bands higher. Padding is never read.

    Args:
      width: channels of the blocks.
      blocks: the number of blocks.
      running: whether a frame is normalised by mean and variance of those before it, so that a
        stream gives what the whole string gives.
      dtype: of the computation; the weights are float32.
    """

    def __init__(
        self,
        *,
        width: int = 96,
        blocks: int = 5,
        running: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.running = running
        options = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        self.stem = nnx.List(
            [
                nnx.Conv(channels, more, (6, 5), strides=2, padding=2, **options)
                for channels, more in itertools.pairwise(CHANNELS)
            ]
        )
        self.project = nnx.Linear(MELS // 4 * CHANNELS[-1], width, **options)
        self.blocks = nnx.List([Block(width, **options) for _ in range(blocks)])
        self.norm = nnx.LayerNorm(width, use_fast_variance=False, **options)
        self.head = nnx.Linear(width, CLASSES, **options)

    def encode(self, features, frames, key=None) -> tuple[jax.Array, jax.Array]:
        """Returns encodings [batch, T // 4, width] and their lengths, int32[batch]."""
        inside = (jnp.arange(features.shape[1]) < frames[:, None])[:, :, None]
        if self.running:
            if key is not None:  # a string's loudness is known only after some time
                loudness = jax.random.uniform(
                    jax.random.fold_in(key, len(self.blocks) + 1), (len(features), 1, 1)
                )
                features = features + 4 * loudness - 2
            x, _ = normalise.running(normalise.typical(len(features)), features, inside)
            x *= inside
        else:
            x = normalise.whole(features, inside)
        if key is not None:
            x = _mask_out(x, jax.random.fold_in(key, len(self.blocks)))
        lengths = frames
        x = x[:, :, :, None]
        for conv in self.stem:
            x = nnx.relu(conv(x * inside[:, :, :, None]))
            lengths = lengths // 2
            inside = (jnp.arange(x.shape[1]) < lengths[:, None])[:, :, None]
        x = self.project(x.reshape(*x.shape[:2], -1))
        for i, block in enumerate(self.blocks):
            x = block(x * inside, inside, None if key is None else jax.random.fold_in(key, i))
        return self.norm(x), lengths

    def __call__(self, features, frames, key=None) -> tuple[jax.Array, jax.Array]:
        """Returns logits [batch, T // 4, CLASSES] and their lengths."""
        x, lengths = self.encode(features, frames, key)
        return self.head(x), lengths


def _mask_out(x: jax.Array, key: jax.Array) -> jax.Array:
    """Sets two stretches of bands and two of frames to 0 (SpecAugment, Park et al. 2019)."""
    keys = jax.random.split(key, 4)
    for k, axis, longest in zip(keys, (1, 1, 2, 2), (10, 10, 8, 8), strict=True):
        size = x.shape[axis]
        start, length = jax.random.uniform(k, (2, x.shape[0], 1)) * jnp.array(
            [size, longest]
        ).reshape(2, 1, 1)
        place = jnp.arange(size)
        hidden = (place >= start) & (place < start + length)
        x = jnp.where(jnp.expand_dims(hidden, 3 - axis), 0, x)
    return x


class Transducer(nnx.Module):
    """An encoder, a predictor of the last label only, and a joint network.

    The two `simple` layers are the simple joint, which chooses the positions for pruning.
    """

    def __init__(
        self,
        *,
        width: int = 96,
        joined: int = 64,
        running: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.encoder = Encoder(width=width, running=running, dtype=dtype, rngs=rngs)
        options = {"dtype": jnp.dtype(dtype), "rngs": rngs}
        self.project = nnx.Linear(width, joined, **options)
        self.predictor = nnx.Embed(CLASSES, joined, **options)
        self.head = nnx.Linear(joined, CLASSES, **options)
        self.simple_encoder = nnx.Linear(width, CLASSES, **options)
        self.simple_predictor = nnx.Embed(CLASSES, CLASSES, **options)

    def join(self, encoded: jax.Array, predicted: jax.Array) -> jax.Array:
        """Maps the sum of encodings and predictions [..., joined] to logits."""
        return self.head(jnp.tanh(encoded + predicted))

    def __call__(self, features, frames, labels, key=None) -> tuple[jax.Array, jax.Array]:
        """Returns logits [batch, T // 4, U + 1, CLASSES] and their numbers of frames."""
        x, lengths = self.encoder.encode(features, frames, key)
        predicted = self.predictor(before_labels(labels))
        return self.join(self.project(x)[:, :, None], predicted[:, None]), lengths


def before_labels(labels: jax.Array) -> jax.Array:
    """Returns the last label after 0, 1, … labels, [batch, U + 1]; the blank is the start."""
    return jnp.pad(labels, ((0, 0), (1, 0)))


MODELS = {"encoder": Encoder, "transducer": Transducer}


def build(name: str, seed: int = 0, dtype: str = "float32", *, running: bool = False) -> nnx.Module:
    """Returns one of `MODELS` with weights drawn from a seed."""
    # Under jit, one program draws all initial weights, instead of one program each.
    return nnx.jit(lambda: MODELS[name](running=running, dtype=dtype, rngs=nnx.Rngs(seed)))()
