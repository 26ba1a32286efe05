"""Reading as a service: images that come in one by one are read in batches of a few fixed sizes."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plates import models
from plates.reading import SHIFTS, Details, read_in_detail
from recognition.charsets import decode

# Of the batches; each is a program, compiled at the start. None is padded, and none is larger: on a
# CPU the time of a batch is in proportion to its images, so larger ones would only be later.
SIZES = (1, 4, 16)
MOST_WAITING = 1024  # images


class Reading(NamedTuple):
    """What was read of one image.

    Attributes:
      text: S characters.
      confidence: the model's probability of the text.
      scores: the probability of each character at the frame where it is highest, [S].
      posteriors: that of each character at each frame, given the text, [T, S].
      blank: that of the blank, [T].
    """

    text: str
    confidence: float
    scores: np.ndarray
    posteriors: np.ndarray
    blank: np.ndarray


class Reader:
    """A model compiled for batches of each of `sizes`; results do not depend on the size.

    Args:
      model: as of `load_reader`; its result for an image may not depend on the others.
      charset: its characters.
      sizes: numbers of images, ascending from 1.
      views: as in `read_images`.
    """

    def __init__(
        self,
        model: nnx.Module,
        charset: str,
        sizes: Sequence[int] = SIZES,
        views: int = len(SHIFTS),
    ):
        graph, self._state = nnx.split(model)
        self._charset, self.sizes = charset, sizes

        def read(state, images) -> Details:
            return read_in_detail(nnx.merge(graph, state), images, views)

        def compiled(size: int) -> jax.stages.Compiled:
            images = jax.ShapeDtypeStruct((size, *models.IMAGE_SHAPE), jnp.uint8)
            return jax.jit(read).lower(self._state, images).compile()

        self._programs = {size: compiled(size) for size in sizes}

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """Reads images, uint8[24, 94, 3] in BGR; their number is one of `sizes`."""
        found = self._programs[len(images)](self._state, np.stack(images))
        readings = []
        for labels, confidence, scores, posteriors, blank in zip(
            *map(np.asarray, found), strict=True
        ):
            text = decode(labels, self._charset)
            count = len(text)
            row = float(confidence), scores[:count], posteriors[:, :count], blank
            readings.append(Reading(text, *row))
        return readings


class Busy(Exception):
    """Too many images are waiting."""


class Batcher:
    """Reads images of many callers together: those that came in while the last batch was read.

    So a lone image does not wait for others, and the more come in, the larger batches are.
    """

    def __init__(self, reader: Reader):
        self._reader = reader
        self._waiting: list[tuple[np.ndarray, asyncio.Future[Reading]]] = []
        self._some = asyncio.Event()

    async def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """Reads images. Raises Busy if `MOST_WAITING` would wait."""
        if len(self._waiting) + len(images) > MOST_WAITING:
            raise Busy
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._waiting.extend(zip(images, futures, strict=True))
        self._some.set()
        return await asyncio.gather(*futures)

    async def run(self) -> None:
        """Reads until cancelled."""
        while True:
            await self._some.wait()
            # Those whose caller has gone are not read.
            waiting = [(image, future) for image, future in self._waiting if not future.done()]
            size = max((size for size in self._reader.sizes if size <= len(waiting)), default=0)
            self._waiting = waiting[size:]
            if not self._waiting:
                self._some.clear()
            if size:
                await self._answer(*zip(*waiting[:size], strict=True))

    async def _answer(self, images, futures) -> None:
        try:
            readings = await asyncio.to_thread(self._reader.read, images)
        except Exception as error:  # is that of these callers; others go on
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, reading in zip(futures, readings, strict=True):
            if not future.done():
                future.set_result(reading)
