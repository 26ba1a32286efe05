"""The page of the service in a browser: phone and desktop, by keyboard, by dropping, and errors."""

import asyncio
import contextlib
import shutil
import threading

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")
pytest.importorskip("aiohttp", reason="needs the `serve` extra")
playwright = pytest.importorskip("playwright.sync_api", reason="needs the `browser` extra")

from aiohttp import web  # noqa: E402
from PIL import Image  # noqa: E402

from plates.serving import Reading  # noqa: E402
from plates.web import Limits, application  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

TEXT, FRAMES = "皖AD12345", 18
WIDTHS = {"phone": (360, 740), "desktop": (1280, 800)}


class Reader:
    """Reads the same in every picture."""

    sizes = (1, 2)

    def read(self, images):
        frames = np.zeros((FRAMES, len(TEXT)))
        frames[2 * np.arange(len(TEXT)) + 1, range(len(TEXT))] = 0.75
        scores = np.linspace(0.5, 1, len(TEXT))
        return [Reading(TEXT, 0.875, scores, frames, 1 - frames.sum(1)) for _ in images]


@contextlib.contextmanager
def running_service():
    """Yields the address of a service in another thread."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []

    async def start():
        runner = web.AppRunner(application(Reader(), Limits(pictures=3, megabytes=1)))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        ready.set()
        return runner

    def run():
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(30)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def page(browser, request):
    width, height = WIDTHS[request.param]
    complaints = []
    with running_service() as address:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("filechooser", lambda _: None)  # from the start no dialog of the system opens
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        yield page
        # No error, and nothing that has to be scrolled sideways.
        assert not [text for text in complaints if "status of 4" not in text]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


@pytest.fixture
def picture(tmp_path) -> str:
    file = tmp_path / "a very long name of a file that does not fit into one line of a phone.png"
    Image.new("RGB", (94, 24), "navy").save(file)
    return str(file)


def focused(page) -> str:
    """The element that has the focus, which must be seen to have it."""
    return page.evaluate(
        """() => {
          const element = document.activeElement;
          if (getComputedStyle(element).outlineStyle === "none") return "focus is not seen";
          return element.localName;
        }"""
    )


def assert_read(page, count: int) -> None:
    articles = page.get_by_role("article")
    assert articles.count() == count
    for i in range(count):
        article = articles.nth(i)
        assert article.get_by_role("heading").inner_text() == TEXT
        shown = article.get_by_role("listitem").all_inner_texts()
        assert [text.split()[0] for text in shown] == list(TEXT)
        assert shown[0].split()[1] == "50.0%"
        assert "Confidence 87.5%" in article.inner_text()
        for kind in ("img", "svg"):
            box = article.locator(kind).bounding_box()
            assert box["width"] > 200
            assert box["x"] + box["width"] <= page.viewport_size["width"]
        bars = article.locator("rect")
        assert bars.count() == FRAMES + len(TEXT)
        assert bars.nth(1).bounding_box()["height"] > 20


def test_pictures_are_read_with_the_keyboard_alone(page, picture):
    page.keyboard.press("Tab")
    assert focused(page) == "input"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([picture, picture])
    page.keyboard.press("Tab")
    assert focused(page) == "button"
    page.keyboard.press("Enter")
    page.wait_for_selector("article")
    assert_read(page, 2)


def test_a_picture_is_dropped_and_a_broken_one_is_named(page, picture, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    box = page.get_by_label("Pictures of plates").bounding_box()
    devtools = page.context.new_cdp_session(page)
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    files = {"items": [], "files": [picture, str(broken)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "data": files, **where})
    page.get_by_role("button", name="Read").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("broken.png is damaged, or not a picture;")
    assert_read(page, 1)


def test_too_large_a_request_is_refused_on_the_page(page, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2_000_000))
    page.get_by_label("Pictures of plates").set_input_files(large)
    page.get_by_role("button", name="Read").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "The request is too large; it must have at most 1 MB."
