"""Two recognisers that map a plate's image to logits of 18 frames, in Flax NNX.

`Light` trains from scratch in minutes on a CPU. `LPRNet` (Zherdev and Gruzdev, 2018, arXiv
1806.10447) has exactly the structure of the published weights, which `plate_import.py` imports.
Both take images [batch, 24, 94, 3], BGR, 0…255, and return logits [batch, 18, classes]; in
training, LPRNet also takes a key for its dropout.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from recognition.layers import Conv, windows

IMAGE_SHAPE = (24, 94, 3)
FRAMES = 18


def _max_pool(x: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Returns the maximum of each 3x3 window: rows first, then columns."""
    rows, columns = windows(x, (3, 3), strides)
    a, b, c = (x[:, r] for r in rows)
    x = jnp.maximum(jnp.maximum(a, b), c)
    a, b, c = (x[:, :, r] for r in columns)
    return jnp.maximum(jnp.maximum(a, b), c)


class ConvNormRelu(nnx.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs, outputs, kernel, *, rngs, bias=False, dtype="float32", **options):
        self.conv = Conv(inputs, outputs, kernel, bias=bias, dtype=dtype, rngs=rngs, **options)
        self.norm = nnx.BatchNorm(
            outputs, momentum=0.9, epsilon=1e-5, dtype=jnp.dtype(dtype), rngs=rngs
        )

    def __call__(self, x: jax.Array, fixed: bool | None = None) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x), use_running_average=fixed))


class Residual(nnx.Module):
    """A 3x3 convolution whose result is added to its input.

    With `squeeze`, its channels are first weighted by what is seen in the whole image (Hu et al.,
    CVPR 2018), such as blur.
    """

    def __init__(self, channels, *, squeeze: bool, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.layer = ConvNormRelu(channels, channels, (3, 3), padding=(1, 1), **options)
        options["dtype"] = jnp.dtype(dtype)
        self.squeeze = nnx.List(
            [
                nnx.Linear(channels, channels // 4, **options),
                nnx.Linear(channels // 4, channels, **options),
            ]
            if squeeze
            else []
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.layer(x)
        if self.squeeze:
            narrow, wide = self.squeeze
            y = y * (2 * nnx.sigmoid(wide(nnx.relu(narrow(y.mean((1, 2), keepdims=True))))))
        return x + y


class Light(nnx.Module):
    """Convolutions and a linear layer: 29 million products per image with two residual blocks.

    Every image is first normalised to mean 0 and variance 1 in each colour, so that a dim plate
    in yellow light looks like a bright one.

    Args:
      classes: characters and the blank.
      width: channels of the first layer; 32 trains in minutes, 48 reads a little better.
      residuals: the number of residual blocks; 1, as earlier versions had, is without squeezing.
      dtype: of the computation; weights and running means are float32.
    """

    def __init__(
        self,
        classes: int,
        *,
        width: int = 32,
        residuals: int = 1,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        squeeze = residuals > 1
        w, options = width, {"dtype": dtype, "rngs": rngs}
        self.layers = nnx.List(
            [
                ConvNormRelu(3, w, (4, 4), strides=(2, 2), padding=(1, 1), **options),
                ConvNormRelu(w, 2 * w, (3, 3), strides=(2, 2), padding=(1, 1), **options),
                *[Residual(2 * w, squeeze=squeeze, **options) for _ in range(residuals)],
                ConvNormRelu(2 * w, 4 * w, (3, 3), strides=(2, 1), padding=(1, 1), **options),
                # The full height, and 7 columns: 24 columns become the 18 frames.
                ConvNormRelu(4 * w, 6 * w, (3, 7), **options),
            ]
        )
        self.head = nnx.Linear(6 * w, classes, dtype=jnp.dtype(dtype), rngs=rngs)

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        x = images.astype(jnp.float32)
        spread = x.std((1, 2), keepdims=True)
        x = (x - x.mean((1, 2), keepdims=True)) / (spread + 4)  # + 4: don't amplify noise
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


class SmallBlock(nnx.Module):
    """LPRNet's bottleneck: 1x1, 3x1, 1x3, 1x1."""

    def __init__(self, inputs, outputs, **options):
        middle = outputs // 4
        self.convs = nnx.List(
            [
                Conv(inputs, middle, (1, 1), **options),
                Conv(middle, middle, (3, 1), padding=(1, 0), **options),
                Conv(middle, middle, (1, 3), padding=(0, 1), **options),
                Conv(middle, outputs, (1, 1), **options),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in self.convs[:-1]:
            x = nnx.relu(conv(x))
        return self.convs[-1](x)


def _dropped(dropout: nnx.Dropout, x: jax.Array, key: jax.Array | None) -> jax.Array:
    # Not called when it does nothing, since converters do not know it with a key.
    return x if dropout.deterministic else dropout(x, rngs=key)


class LPRNet(nnx.Module):
    """The published network; features of four depths are pooled to 4x18 and concatenated.

    Args:
      classes: characters and the blank.
      normalise: each feature map is divided by its mean square over the "image" (the result for
        an image does not depend on the others) or over the "batch" (as published, and best for
        the published weights).
      fixed_norms: whether batch norms keep their mean and variance in training. Those of the
        published weights are 0 and 1, far from those of batches: updating them would make the
        weights useless in a few steps.
      dtype: of the computation; weights and running means are float32.
    """

    def __init__(
        self,
        classes: int,
        *,
        normalise: str = "image",
        fixed_norms: bool = False,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if normalise not in ("image", "batch"):
            raise ValueError(f'normalise is {normalise!r}; it must be "image" or "batch"')
        self.normalise, self.fixed_norms = normalise, fixed_norms
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvNormRelu(3, 64, (3, 3), bias=True, **options)
        self.blocks = nnx.List(
            [
                SmallBlock(64, 128, **options),
                SmallBlock(64, 256, **options),
                SmallBlock(256, 256, **options),
            ]
        )
        self.norms = nnx.List(
            [
                nnx.BatchNorm(n, momentum=0.9, dtype=jnp.dtype(dtype), rngs=rngs)
                for n in (128, 256, 256)
            ]
        )
        self.wide = ConvNormRelu(64, 256, (1, 4), bias=True, **options)
        self.tall = ConvNormRelu(256, classes, (13, 1), bias=True, **options)
        self.dropouts = nnx.List([nnx.Dropout(0.5), nnx.Dropout(0.5)])
        self.container = Conv(64 + 128 + 256 + classes, classes, (1, 1), **options)

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        fixed = True if self.fixed_norms else None
        x = (images.astype(jnp.float32) - 127.5) * 0.0078125
        first = x = self.stem(x, fixed)
        x = _max_pool(x, (1, 1))
        second = x = nnx.relu(self.norms[0](self.blocks[0](x), use_running_average=fixed))
        x = _max_pool(x[..., ::2], (1, 2))
        x = nnx.relu(self.norms[1](self.blocks[1](x), use_running_average=fixed))
        third = x = nnx.relu(self.norms[2](self.blocks[2](x), use_running_average=fixed))
        x = _max_pool(x[..., ::4], (1, 2))
        keys = (None, None) if key is None else jax.random.split(key)
        x = self.wide(_dropped(self.dropouts[0], x, keys[0]), fixed)
        fourth = self.tall(_dropped(self.dropouts[1], x, keys[1]), fixed)
        pooled = [
            nnx.avg_pool(first, window_shape=(5, 5), strides=(5, 5)),
            nnx.avg_pool(second, window_shape=(5, 5), strides=(5, 5)),
            nnx.avg_pool(third, window_shape=(4, 10), strides=(4, 2)),
            fourth,
        ]
        axes = (1, 2, 3) if self.normalise == "image" else (0, 1, 2, 3)
        scaled = [f / jnp.square(f).mean(axes, keepdims=True) for f in pooled]
        return self.container(jnp.concatenate(scaled, -1)).mean(1)


def mixes_images(model: nnx.Module) -> bool:
    """Whether the result for an image depends on the other images of the batch."""
    return isinstance(model, LPRNet) and model.normalise == "batch"


MODELS = {"light": Light, "lprnet": LPRNet}
HEADS = {"light": "head", "lprnet": "container"}  # the layers that return logits


def build(description: dict, classes: int, seed: int = 0) -> nnx.Module:
    """Returns a model by its description, such as {"name": "lprnet", "normalise": "batch"}."""
    options = dict(description)
    model = MODELS[options.pop("name")]
    # Under jit, one program draws all initial weights, instead of one program each.
    return nnx.jit(lambda: model(classes, **options, rngs=nnx.Rngs(seed)))()
