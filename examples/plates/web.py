"""The service of `plate_serve.py` as a web application, with aiohttp.

aiohttp is server, forms and client in one package. `GET /` is a page with a form, `POST /` the page
with results, `POST /read` the same results as JSON. Each takes a form with files.
"""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import numpy as np
from aiohttp import BodyPartReader, web
from PIL import Image

from plates import data
from plates.page import POLICY, page
from plates.serving import MOST_WAITING, Batcher, Busy, Reader, Reading
from recognition.images import decode_image

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Image.MAX_IMAGE_PIXELS = None  # the limit below is checked instead


class Limits(NamedTuple):
    """What a request may have.

    Attributes:
      pictures: files.
      megabytes: of the whole request.
      megapixels: of each picture.
      seconds: until the request has come in.
    """

    pictures: int = 16
    megabytes: float = 16
    megapixels: float = 24
    seconds: float = 30

    def __str__(self) -> str:
        return (
            f"Up to {self.pictures} pictures (JPEG, PNG, BMP or WebP) of {self.megapixels:g} "
            f"megapixels, {self.megabytes:g} MB in all."
        )


class Refused(Exception):
    """A request or a picture that can't be read: a status from 400 on, and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Result(NamedTuple):
    """What was read, and the sentences and the status of what was not."""

    read: list[tuple[str, np.ndarray, Reading]]
    errors: list[str]
    status: int = 200


async def _files(request: web.Request, limits: Limits) -> list[tuple[str, bytes]]:
    """Returns names and contents of a form's files. Raises Refused, as soon as it is too much."""
    most = limits.megabytes * 1e6
    too_large = Refused(413, f"The request is too large; it must have at most {most / 1e6:g} MB.")
    if request.content_type != "multipart/form-data":
        raise Refused(415, "The request is no form (multipart/form-data) with pictures.")
    if (request.content_length or 0) > most:
        raise too_large
    found, size = [], 0
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or not part.filename:
            continue
        content = bytearray()
        while chunk := await part.read_chunk(2**16):
            content += chunk
            size += len(chunk)
            if size > most:
                raise too_large
        if len(found) == limits.pictures:
            sentence = f"There are too many pictures; send at most {limits.pictures} at once."
            raise Refused(413, sentence)
        found.append((part.filename, bytes(content)))
    if not found:
        raise Refused(400, "There is no picture in the form.")
    return found


async def _received(request: web.Request, limits: Limits) -> list[tuple[str, bytes]]:
    try:
        async with asyncio.timeout(limits.seconds):
            return await _files(request, limits)
    except TimeoutError:
        sentence = f"The request has not come in within {limits.seconds:g} seconds."
        raise Refused(408, sentence) from None
    except (ValueError, AssertionError, LookupError, RuntimeError) as error:
        raise Refused(400, "The form is broken.") from error


def _plate(name: str, content: bytes, limits: Limits) -> np.ndarray:
    """Returns a picture as the model takes it. Raises Refused."""
    try:
        # OpenCV returns grey for what is missing of a damaged picture; Pillow fails.
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height <= limits.megapixels * 1e6:
                picture.load()
        if width * height > limits.megapixels * 1e6:
            most = f"it must have at most {limits.megapixels:g} megapixels"
            raise Refused(413, f"{name} has {width} x {height} pixels; {most}.")
        return data.resize(decode_image(content))
    except Refused:
        raise
    except Exception as error:  # a damaged file can raise anything
        sentence = f"{name} is damaged, or not a picture; it must be JPEG, PNG, BMP or WebP."
        raise Refused(415, sentence) from error


class Service:
    """The handlers, and the task that reads.

    Args:
      reader: the compiled model.
      limits: of requests.
    """

    def __init__(self, reader: Reader, limits: Limits):
        self._batcher, self._limits = Batcher(reader), limits

    async def _result(self, request: web.Request) -> Result:
        try:
            files = await _received(request, self._limits)
        except Refused as error:
            return Result([], [str(error)], error.status)
        named, errors, status = [], [], 200
        for name, content in files:
            try:
                image = await asyncio.to_thread(_plate, name, content, self._limits)
                named.append((name, image))
            except Refused as error:
                errors.append(str(error))
                status = error.status
        try:
            readings = await self._batcher.read([image for _, image in named])
        except Busy:
            return Result([], [f"{MOST_WAITING} pictures are waiting; try again later."], 503)
        read = [(*one, reading) for one, reading in zip(named, readings, strict=True)]
        return Result(read, errors, status)

    async def form(self, request: web.Request) -> web.Response:
        return web.Response(text=page(str(self._limits)), content_type="text/html")

    async def show(self, request: web.Request) -> web.Response:
        read, errors, status = await self._result(request)
        text = page(str(self._limits), read, errors)
        return web.Response(text=text, status=status, content_type="text/html")

    async def answer(self, request: web.Request) -> web.Response:
        read, errors, status = await self._result(request)
        readings = [as_json(name, reading) for name, _, reading in read]
        text = json.dumps({"readings": readings, "errors": errors}, ensure_ascii=False)
        return web.json_response(text=text, status=status)

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """Reads until the application has answered all requests that it took."""
        task = asyncio.create_task(self._batcher.run())
        yield
        task.cancel()


def as_json(name: str, reading: Reading) -> dict:
    """Returns a reading as JSON types."""
    rounded = lambda x: [round(float(y), 4) for y in x]  # noqa: E731
    characters = [
        {"character": c, "confidence": round(float(score), 4), "posteriors": rounded(posteriors)}
        for c, score, posteriors in zip(
            reading.text, reading.scores, reading.posteriors.T, strict=True
        )
    ]
    return {
        "file": name,
        "text": reading.text,
        "confidence": round(reading.confidence, 4),
        "characters": characters,
        "blank": rounded(reading.blank),
    }


@web.middleware
async def _guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Adds headers; what goes wrong here is logged, and answered with one sentence."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(text=f"{error.reason}.", status=error.status)
    except Exception:
        logging.exception("%s %s", request.method, request.path)
        response = web.Response(text="The service failed; its log says why.", status=500)
    response.headers.update(_HEADERS)
    return response


def application(reader: Reader, limits: Limits) -> web.Application:
    """Returns the web application."""
    service = Service(reader, limits)
    app = web.Application(middlewares=[_guarded])
    app.add_routes(
        [
            web.get("/", service.form),
            web.post("/", service.show),
            web.post("/read", service.answer),
        ]
    )
    app.cleanup_ctx.append(service.running)
    return app
