"""The service of plates: readings as of `plate_read.py`, batches, limits, and what is bad."""

import asyncio
import io
import socket
import threading

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")
pytest.importorskip("aiohttp", reason="needs the `serve` extra")

import cv2  # noqa: E402
from aiohttp import FormData  # noqa: E402
from aiohttp.test_utils import TestClient, TestServer  # noqa: E402
from flax import nnx  # noqa: E402
from PIL import Image  # noqa: E402

import plate_clients  # noqa: E402
import plate_serve  # noqa: E402
import training  # noqa: E402
from plates import data, models, serving  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402
from plates.reading import read_images  # noqa: E402
from plates.serving import Reader  # noqa: E402
from plates.web import Limits, application  # noqa: E402

LIMITS = Limits(pictures=3, megabytes=0.2, megapixels=0.1, seconds=0.5)


@pytest.fixture(scope="module")
def model():
    """A model that is not trained, and reads some text in most images."""
    model = models.build({"name": "light", "width": 8}, len(PLATE_CHARACTERS) + 1, seed=2)
    model.eval()
    return model


@pytest.fixture(scope="module")
def reader(model) -> Reader:
    return Reader(model, PLATE_CHARACTERS, sizes=(1, 4), views=2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return data.stack_images(data.rendered_plates(PLATE_CHARACTERS, 4, seed=9))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def form(*files: bytes, name: str = "a.png") -> FormData:
    found = FormData(quote_fields=False)  # names as browsers send them
    for content in files:
        found.add_field("pictures", content, filename=name)
    return found


def with_client(reader, use):
    """Runs `use(client)` beside a service."""

    async def run():
        async with TestClient(TestServer(application(reader, LIMITS))) as client:
            return await use(client)

    return asyncio.run(run())


def test_readings_are_those_of_the_model(reader, model, images):
    texts, confidences, logits = read_images(model, images, PLATE_CHARACTERS, views=2)
    assert all(texts)
    model.eval()
    for count in (4, 1):
        for i, reading in enumerate(reader.read(images[:count])):
            assert reading.text == texts[i]
            assert reading.confidence == pytest.approx(confidences[i], rel=1e-3)
            assert reading.scores.shape == (len(texts[i]),)
            assert ((reading.scores > 0) & (reading.scores <= 1)).all()
            total = reading.posteriors.sum(1) + reading.blank
            np.testing.assert_allclose(total, 1, atol=1e-4)
            assert reading.posteriors.shape == (len(logits[i]), len(texts[i]))


def test_json_and_page_have_what_was_read(reader, images):
    async def use(client):
        files = [png(image) for image in images[:2]]
        async with client.post("/read", data=form(*files, name="皖<i>.png")) as answer:
            assert answer.status == 200
            found = await answer.json()
        async with client.post("/", data=form(*files, name="皖<i>.png")) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            return found, await answer.text()

    found, page = with_client(reader, use)
    assert found["errors"] == []
    for line, reading in zip(found["readings"], reader.read(images), strict=False):
        assert line["file"] == "皖<i>.png"
        assert line["text"] == reading.text
        assert line["confidence"] == pytest.approx(reading.confidence, abs=1e-3)
        assert "".join(part["character"] for part in line["characters"]) == reading.text
        np.testing.assert_allclose(
            [part["confidence"] for part in line["characters"]], reading.scores, atol=1e-3
        )
        np.testing.assert_allclose(
            [part["posteriors"] for part in line["characters"]], reading.posteriors.T, atol=1e-3
        )
        assert f'<h2 lang="zh">{reading.text}</h2>' in page
    assert "<i>" not in page
    assert "皖&lt;i&gt;.png" in page
    assert page.count("<svg") == 2


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_bad_requests_get_a_status_and_a_sentence(reader, images):
    good = png(images[0])
    damaged = "is damaged, or not a picture"
    cases = [
        ([b"nothing"], 415, damaged),
        ([b""], 415, damaged),
        ([good[: len(good) // 2]], 415, damaged),
        ([picture(400, 400)], 413, "has 400 x 400 pixels; it must have at most 0.1 megapixels"),
        ([good] * 4, 413, "send at most 3 at once"),
        ([b"x" * 300_000], 413, "it must have at most 0.2 MB"),
        ([], 415, "is no form"),
    ]

    async def use(client):
        for files, status, sentence in cases:
            for path in ("/", "/read"):
                async with client.post(path, data=form(*files)) as answer:
                    text = await answer.text()
                    assert answer.status == status, text
                    assert sentence in text
        # A form without files, as of an empty file field.
        empty = FormData(default_to_multipart=True)
        empty.add_field("pictures", b"", filename="")
        async with client.post("/read", data=empty) as answer:
            assert answer.status == 400
            assert "no picture in the form" in await answer.text()

        # One that is good is read beside one that is not.
        async with client.post("/read", data=form(good, b"nothing")) as answer:
            assert answer.status == 415
            found = await answer.json()
            assert len(found["readings"]) == len(found["errors"]) == 1

        headers = {"Content-Type": "multipart/form-data"}  # without a boundary
        async with client.post("/read", data=b"x", headers=headers) as answer:
            assert (answer.status, (await answer.json())["errors"]) == (
                400,
                ["The form is broken."],
            )
        for path, status in (("/none", 404), ("/read", 405)):
            async with client.get(path) as answer:
                assert answer.status == status

        async def slowly():
            yield b"--b\r\n"
            await asyncio.sleep(5)

        headers["Content-Type"] += "; boundary=b"
        async with client.post("/read", data=slowly(), headers=headers) as answer:
            assert answer.status == 408
            assert "within 0.5 seconds" in await answer.text()

    with_client(reader, use)


class Held(Reader):
    """A reader that waits to be let go, and notes how many images each batch has."""

    def __init__(self, reader: Reader):
        self.__dict__ |= reader.__dict__
        self.batches, self.go, self.broken = [], threading.Event(), False

    def read(self, images):
        self.batches.append(len(images))
        assert self.go.wait(60)
        if self.broken:
            raise RuntimeError("out of memory")
        return super().read(images)


def test_what_comes_together_is_read_together_and_nothing_is_lost(reader, images, monkeypatch):
    held = Held(reader)
    texts = [reading.text for reading in reader.read(images)]

    async def use(client):
        async def ask(i):
            async with client.post("/read", data=form(png(images[i % 4]))) as answer:
                return answer.status, await answer.json()

        tasks = [asyncio.create_task(ask(0))]
        while not held.batches:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(ask(i)) for i in range(1, 7)]
        batcher = client.server.app.cleanup_ctx[-1].__self__._batcher
        while len(batcher._waiting) < 6:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(serving, "MOST_WAITING", 6)
        status, answer = await ask(0)
        assert status == 503
        assert answer["errors"][0].endswith("try again later.")
        # A stop waits for all that came in; a client that has gone is not read.
        tasks.pop(3).cancel()
        await asyncio.sleep(0.05)
        stop = asyncio.create_task(client.server.close())
        await asyncio.sleep(0.05)
        held.go.set()
        answers = await asyncio.gather(*tasks)
        await stop
        return answers

    answers = with_client(held, use)
    assert [status for status, _ in answers] == [200] * 6
    found = [answer["readings"][0]["text"] for _, answer in answers]
    assert found == [texts[i] for i in (0, 1, 2, 0, 1, 2)]
    assert held.batches == [1, 4, 1]


def test_clients_count_what_is_lost(reader, images, capsys):
    pictures = [png(image) for image in images]

    async def use(client):
        url = str(client.make_url("/")).rstrip("/")
        return [
            await plate_clients.measure(url, pictures, 3, 0.3),
            await plate_clients.measure(f"{url}/none", pictures, 3, 0.05),
            await plate_clients.measure(url, [b"nothing"], 3, 0.05),
        ]

    nothing, *rest = with_client(reader, use)
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()]
    assert nothing == int(rows[0][2]) == 0
    assert int(rows[0][1]) >= 3
    assert 0 < float(rows[0][4].split()[0]) <= float(rows[0][5].split()[0])
    assert all(rest)
    assert [row[1] for row in rows[1:]] == [row[2] for row in rows[1:]] == [*map(str, rest)]


def test_a_failure_is_answered_and_the_service_goes_on(reader, images, caplog):
    held = Held(reader)
    held.go.set()

    async def use(client):
        for broken, status in ((True, 500), (False, 200)):
            held.broken = broken
            async with client.post("/read", data=form(png(images[0]))) as answer:
                assert answer.status == status
                assert "memory" not in await answer.text()

    with_client(held, use)
    assert "out of memory" in caplog.text


def test_the_script_says_what_is_wrong(model, reader, tmp_path, monkeypatch, capsys):
    for options, sentence in [
        (["--port=0"], "--port must be between 1 and 65535"),
        (["--max-pictures=0"], "--max-pictures must be positive"),
    ]:
        with pytest.raises(SystemExit):
            plate_serve.main(["--checkpoint=x", *options])
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no checkpoint there"):
        plate_serve.main([f"--checkpoint={tmp_path}"])

    training.save_model(tmp_path / "digits", model, {"model": "encoder"})
    with pytest.raises(SystemExit, match=r"is not a run of plate_train\.py"):
        plate_serve.main([f"--checkpoint={tmp_path / 'digits'}"])

    description = {"name": "light", "width": 8}
    training.save_model(
        tmp_path / "run", model, {"model": description, "charset": PLATE_CHARACTERS}
    )
    monkeypatch.setattr(plate_serve, "Reader", lambda *_, **__: reader)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"127.0.0.1:{port}: "):
            plate_serve.main([f"--checkpoint={tmp_path / 'run'}", f"--port={port}"])

    published = nnx.eval_shape(lambda: models.LPRNet(11, normalise="batch", rngs=nnx.Rngs(0)))
    monkeypatch.setattr(plate_serve, "load_reader", lambda _: (published, "0123456789"))
    with pytest.raises(SystemExit, match="depends on the others of its batch"):
        plate_serve.main(["--checkpoint=published"])
