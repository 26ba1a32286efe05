"""A reader as one function, in a file that is run without this repository: StableHLO or ONNX."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plates import models
from recognition.layers import plain_convolutions

PLATFORMS = ("cpu", "cuda", "tpu")
Array = jax.Array | np.ndarray


class Outputs(NamedTuple):
    """What an exported reader returns of images [N, 24, 94, 3].

    Attributes:
      logits: the model's, float32[N, T, classes]; the last class is the blank.
      labels: the classes on the best path, int32[N, T], padded with -1.
      scores: the probability of each label at the frame where it is highest, float32[N, T]; 0 in
        padding.
      confidence: the probability of the best path, float32[N].
    """

    logits: Array
    labels: Array
    scores: Array
    confidence: Array


def greedy(logits: jax.Array) -> Outputs:
    """Decodes logits as `jaxctc.ctc_greedy_decode` does, without scatter.

    Converters to ONNX have no rule for each form of it. The T × T comparisons cost nothing
    beside the network, since T is 18.
    """
    logits = logits.astype(jnp.float32)
    frames, classes = logits.shape[1:]
    probabilities = jax.nn.softmax(logits)
    path = jnp.argmax(logits, -1).astype(jnp.int32)
    best = jnp.max(probabilities, -1)
    before = jnp.pad(path[:, :-1], ((0, 0), (1, 0)), constant_values=classes - 1)
    label = path != classes - 1
    first = label & (path != before)
    place = jnp.where(label, jnp.cumsum(first.astype(jnp.int32), axis=1) - 1, -1)
    at = place[:, :, None] == jnp.arange(frames, dtype=jnp.int32)  # [N, frame, place of its label]
    labels = jnp.max(jnp.where(at, path[:, :, None], -1), axis=1)
    scores = jnp.max(jnp.where(at, best[:, :, None], 0), axis=1)
    return Outputs(logits, labels, scores, jnp.prod(best, axis=-1))


def reader(model: nnx.Module) -> Callable[[jax.Array], Outputs]:
    """Returns the function to export: from images uint8[N, 24, 94, 3], BGR, to `Outputs`."""
    model.eval()
    plain_convolutions(model)
    return lambda images: greedy(model(images))


def _images(batch) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, *models.IMAGE_SHAPE), jnp.uint8)


def to_stablehlo(read: Callable) -> bytes:
    """Returns the function as a file that `jax.export.deserialize` reads, for any batch size."""
    (batch,) = jax.export.symbolic_shape("batch")
    export = jax.export.export(jax.jit(lambda images: tuple(read(images))), platforms=PLATFORMS)
    return bytes(export(_images(batch)).serialize())


def to_onnx(read: Callable, charset: str) -> bytes:
    """Returns the function as an ONNX file, for any batch size, with the characters in it.

    Raises:
      ImportError: If the `export` extra is not installed.
    """
    import jax2onnx  # pyright: ignore[reportMissingImports]

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of what is deleted below
    model = jax2onnx.to_onnx(
        read, [_images("batch")], input_names=["images"], output_names=[*Outputs._fields]
    )
    # The converter changes the order of axes after it has noted shapes, which are then wrong.
    del model.graph.value_info[:]
    model.metadata_props.add(key="charset", value=charset)
    return model.SerializeToString()


def run_stablehlo(content: bytes, images: np.ndarray) -> Outputs:
    """Reads images with the bytes of a StableHLO file."""
    return Outputs(*map(np.asarray, jax.export.deserialize(bytearray(content)).call(images)))


def run_onnx(content: bytes, images: np.ndarray) -> Outputs:
    """Reads images with the bytes of an ONNX file, on the CPU."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return Outputs(*map(np.asarray, session.run(None, {"images": images})))
