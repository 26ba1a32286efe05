"""The recogniser of lines, in Flax NNX: convolutions that see a few characters, and line averages.

It maps lines [batch, 24, W] with their widths to logits of W / 2 frames and their lengths. What is
right of a line's width is not read: the logits of its frames are the same at each padding.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from recognition.layers import Conv
from text.shapes import STRIDE

DILATIONS = (1, 2, 4)  # of the layers that see the context; each divides a padded width's frames


class Layer(nnx.Module):
    """Convolution, batch norm, ReLU, on the columns of the lines only."""

    def __init__(self, inputs, outputs, kernel, *, rngs, dtype="float32", **options):
        self.conv = Conv(inputs, outputs, kernel, bias=False, dtype=dtype, rngs=rngs, **options)
        self.norm = nnx.BatchNorm(
            outputs, momentum=0.95, epsilon=1e-5, dtype=jnp.dtype(dtype), rngs=rngs
        )

    def __call__(self, x: jax.Array, inside: jax.Array) -> jax.Array:
        """Maps [batch, H, W, inputs] to [batch, H', W', outputs]; `inside` is [batch, 1, W', 1]."""
        y = self.conv(x)
        y = self.norm(y, mask=jnp.broadcast_to(inside, (*y.shape[:-1], 1)))
        return nnx.relu(y) * inside.astype(y.dtype)


class Residual(nnx.Module):
    """A layer whose result is added to its input."""

    def __init__(self, channels, kernel, **options):
        padding = kernel[0] // 2, kernel[1] // 2
        self.layer = Layer(channels, channels, kernel, padding=padding, **options)

    def __call__(self, x: jax.Array, inside: jax.Array) -> jax.Array:
        return x + self.layer(x, inside)


class Context(nnx.Module):
    """A residual layer over five columns that are `dilation` apart.

    Its channels are weighted by what is seen in the whole line (Hu et al., CVPR 2018): how wide
    the font's spaces are, for instance.
    """

    def __init__(self, channels, dilation, *, rngs, dtype="float32"):
        options = {"dtype": dtype, "rngs": rngs}
        self.dilation = dilation
        self.layer = Layer(channels, channels, (1, 5), padding=(0, 2), **options)
        options["dtype"] = jnp.dtype(dtype)
        self.narrow = nnx.Linear(channels, max(1, channels // 4), **options)
        self.wide = nnx.Linear(max(1, channels // 4), channels, **options)

    def __call__(self, x: jax.Array, inside: jax.Array) -> jax.Array:
        """Maps [batch, 1, W, channels] to the same shape; `dilation` divides W."""
        batch, _, width, _ = x.shape
        # Every `dilation`-th column makes a row, so that the convolution needs no dilation.
        rows = lambda y: y.reshape(batch, width // self.dilation, self.dilation, -1).swapaxes(1, 2)  # noqa: E731
        y = self.layer(rows(x), rows(inside)).swapaxes(1, 2).reshape(x.shape)
        count = jnp.maximum(inside.sum((1, 2), keepdims=True), 1).astype(y.dtype)
        seen = y.sum((1, 2), keepdims=True) / count
        return x + y * (2 * nnx.sigmoid(self.wide(nnx.relu(self.narrow(seen)))))


class Reader(nnx.Module):
    """Eight convolutions and a linear layer; a frame sees 76 columns, about eight characters.

    Lines are first normalised: each pixel less the mean around it, then variance 1, and dark ink:
    the paper has more pixels, so that ink is the tail of the distribution.

    Args:
      classes: characters and the blank, which is the last.
      width: channels of the first layer.
      dtype: of the computation; weights and running means are float32.
    """

    def __init__(self, classes: int, *, width: int = 24, dtype: str = "float32", rngs: nnx.Rngs):
        w, options = width, {"dtype": dtype, "rngs": rngs}
        self.layers = nnx.List(
            [
                Layer(1, w, (4, 4), strides=(2, STRIDE), padding=(1, 1), **options),
                Layer(w, 2 * w, (3, 3), strides=(2, 1), padding=(1, 1), **options),
                Residual(2 * w, (3, 3), **options),
                Layer(2 * w, 4 * w, (3, 3), strides=(2, 1), padding=(1, 1), **options),
                Layer(4 * w, 6 * w, (3, 3), padding=(0, 1), **options),  # the full height
                *(Context(6 * w, dilation, **options) for dilation in DILATIONS),
            ]
        )
        self.head = nnx.Linear(6 * w, classes, dtype=jnp.dtype(dtype), rngs=rngs)

    def __call__(self, images: jax.Array, widths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the logits [batch, W / 2, classes] and how many frames of each line count.

        Args:
          images: uint8 [batch, 24, W], grey; W is even.
          widths: int32 [batch], the columns of each line.
        """
        columns = jnp.arange(images.shape[2])
        x = _normalised(images, (columns < widths[:, None])[:, None])[..., None]
        lengths = -(-widths // STRIDE)
        inside = (columns[: images.shape[2] // STRIDE] < lengths[:, None])[:, None, :, None]
        for layer in self.layers:
            x = layer(x, inside)
        return self.head(x[:, 0]), lengths


def _normalised(images: jax.Array, inside: jax.Array) -> jax.Array:
    """Returns lines with mean 0 around each pixel, variance 1 and dark ink, and 0 outside."""
    x = jnp.where(inside, images.astype(jnp.float32), 0)
    pixels = jnp.broadcast_to(inside, x.shape).astype(x.dtype)
    around = _sums_around(x) / jnp.maximum(_sums_around(pixels), 1)
    x = jnp.where(inside, x - around, 0)
    count = jnp.maximum(pixels.sum((1, 2), keepdims=True), 1)
    mean = lambda y: y.sum((1, 2), keepdims=True) / count  # noqa: E731
    x = x / (jnp.sqrt(mean(x**2)) + 2)  # + 2: don't amplify noise
    return jnp.where(mean(x**3) > 0, -x, x)


def _sums_around(x: jax.Array) -> jax.Array:
    """Returns the sums of x [batch, H, W] over the 25x25 pixels around each."""
    x = jnp.pad(x, ((0, 0), (12, 12), (12, 12)))
    for axis in (1, 2):
        for step in (1, 5):  # sums of five neighbours, then of five such sums
            size = x.shape[axis] - 4 * step
            first, *others = (
                jax.lax.slice_in_dim(x, i * step, i * step + size, axis=axis) for i in range(5)
            )
            x = sum(others, first)
    return x


def build(description: dict, classes: int, seed: int = 0) -> nnx.Module:
    """Returns a model by its description, such as {"width": 24, "dtype": "float32"}."""
    # Under jit, one program draws all initial weights, instead of one program each.
    return nnx.jit(lambda: Reader(classes, **description, rngs=nnx.Rngs(seed)))()
