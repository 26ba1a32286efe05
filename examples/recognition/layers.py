"""Convolutions that train fast on a CPU, in Flax NNX."""

import jax
import jax.numpy as jnp
from flax import nnx


class Conv(nnx.Module):
    """A convolution as one matrix product of shifted copies of the image.

    On a CPU, XLA trains this about twice as fast as a convolution. After `plain_convolutions` it is
    one operation.

    Args:
      inputs, outputs: channels.
      kernel: height and width.
      strides: height and width.
      padding: rows and columns of zeros on either side.
      dtype: of the computation; the weights are float32.
    """

    def __init__(
        self,
        inputs,
        outputs,
        kernel,
        *,
        strides=(1, 1),
        padding=(0, 0),
        bias=True,
        dtype="float32",
        rngs,
    ):
        initial = nnx.initializers.he_normal(in_axis=(0, 1, 2))
        self.kernel = nnx.Param(initial(rngs.params(), (*kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        self.strides, self.padding, self.dtype = strides, padding, jnp.dtype(dtype)
        self.plain = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, inputs] to [batch, height', width', outputs]."""
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        sides = [(p, p) for p in self.padding]
        if self.plain:
            layout = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                x, kernel, self.strides, sides, dimension_numbers=layout
            )
        else:
            height, width, _, outputs = kernel.shape
            if any(self.padding):
                x = jnp.pad(x, ((0, 0), *sides, (0, 0)))
            rows, columns = windows(x, (height, width), self.strides)
            patches = jnp.concatenate([x[:, r, c] for r in rows for c in columns], axis=-1)
            y = patches @ kernel.reshape(-1, outputs)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


def plain_convolutions(model: nnx.Module) -> None:
    """Makes each `Conv` of a model one operation, for converters and other compilers."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Conv):
            module.plain = True


def windows(x, size, strides) -> list[list[slice]]:
    """Returns per axis the slices of x that hold the first, second, … element of each window."""
    return [
        [slice(i, i + length - window + 1, stride) for i in range(window)]
        for length, window, stride in zip(x.shape[1:3], size, strides, strict=True)
    ]
