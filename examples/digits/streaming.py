"""The encoder on streams: pieces give the encodings of the whole, up to rounding.

Convolutions keep their last inputs. An encoding needs 0.58 seconds of sound after its own end: 0.08
for the two strided convolutions and the window of a frame, 0.1 for each of the five blocks.

Frames are normalised by the mean and variance of those before. An encoder that was trained so gives
what it gives for the whole; another is given what it does not know, and mishears more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from digits import normalise
from digits.data import MELS
from digits.models import CHANNELS, Encoder

EARLY = 2  # features before the first, so that no stage waits for an input that it does not need
BEHIND = 12  # encodings that the newest one is behind the sound, with UNIT more at most
UNKNOWN = 2**30  # frames of a stream whose end is not known


class Memory(NamedTuple):
    """What the encoder keeps of each stream between two pieces."""

    start: jax.Array  # int32 [batch]: the number of the next feature; the first is `-EARLY`
    moments: normalise.Moments
    inputs: list[jax.Array]  # of each convolution its last four, [batch, 4, …]


def begin(encoder: Encoder, batch: int) -> Memory:
    """Returns the memory before the first piece."""
    shapes = [(MELS >> i, channels) for i, channels in enumerate(CHANNELS[:-1])]
    shapes += [(block.conv.in_features,) for block in encoder.blocks]
    inputs = [jnp.zeros((batch, 4, *shape)) for shape in shapes]
    return Memory(jnp.full(batch, -EARLY, jnp.int32), normalise.typical(batch), inputs)


def encode(
    encoder: Encoder, memory: Memory, features: jax.Array, frames: jax.Array
) -> tuple[jax.Array, jax.Array, Memory]:
    """Encodes the next piece of each stream.

    Args:
      encoder: of `models`.
      memory: what this function, or `begin`, returned.
      features: [batch, T, MELS], T a multiple of 4. Those that are not of the stream, before
        its first or after its last, are not read.
      frames: int32[batch], the number of features of each stream; `UNKNOWN` while it goes on.

    Returns:
      Encodings [batch, T // 4, width]; the number of the first one, int32[batch], negative at
      the stream's start, where the first encodings are none of the stream's; and the memory.
    """
    start, lengths = memory.start, frames
    mask = _inside(start, features.shape[1], lengths)
    x, moments = normalise.running(memory.moments, features, mask)
    inputs, x = [], x[:, :, :, None]
    for conv, before in zip(encoder.stem, memory.inputs, strict=False):
        x = jnp.concatenate([before, x * mask[:, :, :, None]], 1)
        inputs.append(x[:, -4:])
        x, start, lengths = nnx.relu(_convolved(conv, x)), (start - 2) // 2, lengths // 2
        mask = _inside(start, x.shape[1], lengths)
    x = encoder.project(x.reshape(*x.shape[:2], -1))
    for block, before in zip(encoder.blocks, memory.inputs[len(inputs) :], strict=True):
        x = jnp.concatenate([before, x * mask], 1)
        inputs.append(x[:, -4:])
        mask = _inside(start - 4, x.shape[1], lengths)
        x = x[:, 2:-2] + nnx.relu(_convolved(block.conv, block.norm(x) * mask))
        start, mask = start - 2, mask[:, 2:-2]
    after = Memory(memory.start + features.shape[1], moments, inputs)
    return encoder.norm(x), start, after


def _inside(start: jax.Array, size: int, lengths: jax.Array) -> jax.Array:
    place = start[:, None] + jnp.arange(size)
    return ((place >= 0) & (place < lengths[:, None]))[:, :, None]


def _convolved(conv: nnx.Conv, x: jax.Array) -> jax.Array:
    """The convolution without padding in time, as one product: pieces are too short for more."""
    assert conv.bias is not None
    kernel = conv.kernel[...]
    if x.ndim == 4:  # over bands as well
        x = jnp.pad(x, ((0, 0), (0, 0), (2, 2), (0, 0)))
        x = jnp.concatenate([x[:, :, i : i + x.shape[2] - 4 : 2] for i in range(5)], -1)
    size, stride = kernel.shape[0], 2 if x.ndim == 4 else 1
    count = (x.shape[1] - size) // stride + 1
    taps = [x[:, i : i + stride * (count - 1) + 1 : stride] for i in range(size)]
    return jnp.concatenate(taps, -1) @ kernel.reshape(-1, conv.out_features) + conv.bias[...]
