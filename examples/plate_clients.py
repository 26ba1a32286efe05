"""Measures a running `plate_serve.py`: time to an answer, with 1, 16 and 64 clients.

    python examples/plate_clients.py IMAGE_OR_DIR…

Each client sends one picture, waits for its reading, and sends the next. Prints a table. A request
is lost if it has no answer, or one that is not a reading of its picture; then the exit code is 1.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recognition.images import list_images

HEADER = "| clients | requests | lost | images/s | p50 | p99 |\n|---:|---:|---:|---:|---:|---:|"


class Load:
    """Requests of some clients, and what came of them.

    Args:
      url: the address of the service.
      pictures: contents of image files.
    """

    def __init__(self, url: str, pictures: Sequence[bytes]):
        self._url, self._pictures = url, pictures
        self._texts: dict[int, str] = {}
        self.problems: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def run(self, clients: int, seconds: float) -> None:
        """Runs so many clients for so long; each finishes what it has begun."""
        import aiohttp

        connector = aiohttp.TCPConnector(limit=clients)
        async with aiohttp.ClientSession(connector=connector) as session:
            end = time.perf_counter() + seconds
            await asyncio.gather(*(self._client(session, c, end) for c in range(clients)))

    async def _client(self, session, index: int, end: float) -> None:
        while time.perf_counter() < end:
            index = (index + 1) % len(self._pictures)
            start = time.perf_counter()
            if problem := await self._ask(session, index):
                self.problems[problem] += 1
            else:
                self.seconds.append(time.perf_counter() - start)

    async def _ask(self, session, index: int) -> str | None:
        """Returns what is wrong with the answer to one request, if anything."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("pictures", self._pictures[index], filename=str(index))
        try:
            async with session.post(f"{self._url}/read", data=form) as response:
                answer = await response.json()
            if response.status != 200:
                return f"{response.status}: {answer['errors'][0]}"
            (reading,) = answer["readings"]
            if reading["file"] != str(index):
                return "the answer is another picture's"
            if self._texts.setdefault(index, reading["text"]) != reading["text"]:
                return "the text is another one than before"
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return None


async def measure(url: str, pictures: Sequence[bytes], clients: int, seconds: float) -> int:
    """Prints a row of the table, and on stderr what went wrong; returns how many were lost."""
    load = Load(url, pictures)
    await load.run(clients, seconds)
    lost, done = load.problems.total(), load.seconds
    p50, p99 = np.percentile(done, [50, 99]) * 1000 if done else (np.nan, np.nan)
    requests, rate = lost + len(done), len(done) / seconds
    row = f"| {clients} | {requests} | {lost} | {rate:.0f} | {p50:.0f} ms | {p99:.0f} ms |"
    print(row, flush=True)
    for problem, count in load.problems.items():
        print(f"{count} × {problem}", file=sys.stderr)
    return lost


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Measure a service of plates.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="IMAGE_OR_DIR")
    add("--url", default="http://127.0.0.1:8000", help="where plate_serve.py listens")
    add("--clients", type=int, nargs="+", default=[1, 16, 64], help="at the same time")
    add("--seconds", type=float, default=10, help="for each number of clients")
    args = parser.parse_args(arguments)
    try:
        pictures = [Path(file).read_bytes() for file in list_images(args.paths)]
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}") from error
    if not pictures:
        raise SystemExit("there is no image to send")
    print(HEADER)
    url = args.url.rstrip("/")
    lost = [asyncio.run(measure(url, pictures, c, args.seconds)) for c in args.clients]
    return 1 if any(lost) else 0


if __name__ == "__main__":
    sys.exit(main())
