"""Reading as a service: images that come in one by one are read in batches of a few fixed sizes."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from plates import models
from plates.charset import decode
from plates.reading import SHIFTS, Details, read_in_detail

SIZES = (1, 4, 16, 64)  # of the batches; each is a program, compiled at the start
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
    """A model compiled for batches of each of `sizes`; the result for an image is that of any size.

    Args:
      model: as of `load_reader`; its result for an image may not depend on the others.
      charset: its characters.
      sizes: numbers of images, ascending.
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
        self._charset, self.most = charset, sizes[-1]

        def read(state, images) -> Details:
            return read_in_detail(nnx.merge(graph, state), images, views)

        def compiled(size: int) -> jax.stages.Compiled:
            images = jax.ShapeDtypeStruct((size, *models.IMAGE_SHAPE), jnp.uint8)
            return jax.jit(read).lower(self._state, images).compile()

        self._programs = {size: compiled(size) for size in sizes}

    def read(self, images: Sequence[np.ndarray]) -> list[Reading]:
        """Reads up to `most` images, uint8[24, 94, 3] in BGR."""
        size = next(size for size in self._programs if size >= len(images))
        batch = np.zeros((size, *models.IMAGE_SHAPE), np.uint8)
        batch[: len(images)] = images
        found = jax.tree.map(np.asarray, self._programs[size](self._state, batch))
        readings = []
        for labels, confidence, scores, posteriors, blank in zip(*found, strict=True):
            text = decode(labels, self._charset)
            count = len(text)
            row = float(confidence), scores[:count], posteriors[:, :count], blank
            readings.append(Reading(text, *row))
        return readings[: len(images)]


class Busy(Exception):
    """Too many images are waiting."""


class Batcher:
    """Reads images of many callers together: all that came in while the last batch was read.

    So a lone image does not wait for others, and the more come in, the larger batches are.
    """

    def __init__(self, reader: Reader):
        self._reader = reader
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[Reading]]] = deque()
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
            taken = []
            while self._waiting and len(taken) < self._reader.most:
                image, future = self._waiting.popleft()
                if not future.done():  # else its caller has gone
                    taken.append((image, future))
            if not self._waiting:
                self._some.clear()
            if taken:
                await self._answer(*zip(*taken, strict=True))

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
