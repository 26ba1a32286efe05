"""Streams of sound: where it comes from, and how it is cut into pieces for a `Listener`."""

import queue
import threading
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np

from digits import data
from digits.listening import PIECE, UNIT
from digits.models import STRIDE
from digits.streaming import BEHIND, EARLY, UNKNOWN

UNKNOWN_SAMPLES = (2**31 - 4096) // 2  # a header of so many or more does not tell how many
WHOLE = PIECE + 2 * data.AROUND  # samples of a piece, with what its windows need on either side


class Source(Protocol):
    """Where a stream's sound comes from."""

    def read(self, count: int) -> np.ndarray | None:
        """Returns up to so many samples, none if none are there yet, or None at the end.

        Raises ValueError with a sentence about the source if it is not as it must be.
        """
        ...


class WaveFile:
    """A wav file."""

    def __init__(self, path: str | Path):
        try:
            # A named pipe would stop all streams until somebody writes to it.
            if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
                raise ValueError("is not a file")
            if Path(path).is_file() and not Path(path).stat().st_size:
                raise ValueError("is empty")
            self._file = data.open_wave(path)
        except OSError as error:
            raise ValueError(f"can't be read: {error.strerror}") from None
        self._count = 0

    def read(self, count: int) -> np.ndarray | None:
        try:
            found = self._file.readframes(count)
        except OSError as error:
            raise ValueError(f"can't be read: {error.strerror}") from None
        self._count += len(found) // 2
        if found[1:]:
            return data.samples(found[: len(found) // 2 * 2])
        self._file.close()
        # Who writes to a pipe can't know the length, and leaves the greatest number in the header.
        meant = self._file.getnframes()
        if self._count < meant < UNKNOWN_SAMPLES:
            raise ValueError(f"is cut off: it has {self._count} samples of {meant}")
        if not self._count:
            raise ValueError("is empty")
        return None


class Pipe:
    """Samples of 16 bits, low byte first, from a pipe, which a thread reads as they come."""

    def __init__(self, file: TextIO | None):
        if file is None or file.closed:
            raise ValueError("is closed")
        self._arrived: queue.SimpleQueue[bytes | OSError] = queue.SimpleQueue()
        self._file, self._rest, self._count, self._over = file.buffer, b"", 0, False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while content := self._file.read1(2 * PIECE):  # pyright: ignore[reportAttributeAccessIssue]
                self._arrived.put(content)
            self._arrived.put(b"")
        except OSError as error:
            self._arrived.put(error)

    def read(self, count: int) -> np.ndarray | None:
        while len(self._rest) < 2 * count and not self._over and not self._arrived.empty():
            content = self._arrived.get()
            if isinstance(content, OSError):
                self._over = True
                raise ValueError(f"can't be read: {content.strerror}")
            self._rest, self._over = self._rest + content, not content
        size = min(2 * count, len(self._rest) // 2 * 2)
        found, self._rest = self._rest[:size], self._rest[size:]
        self._count += size // 2
        if found or not self._over:
            return data.samples(found)
        if self._rest:
            raise ValueError("is cut off: its last sample has only one byte")
        if not self._count:
            raise ValueError("is empty")
        return None


class Pieces:
    """A stream's sound, cut into pieces. However it comes in, the pieces are the same."""

    def __init__(self):
        # A window of the first features, which are before the stream, begins so early.
        self._sound = np.zeros(EARLY * data.HOP + data.AROUND, np.float32)
        self.count = 0  # samples so far
        self._taken, self._frames, self._last = 0, UNKNOWN, UNKNOWN

    def put(self, sound: np.ndarray) -> None:
        self._sound = np.concatenate([self._sound, sound])
        self.count += len(sound)

    def end(self) -> None:
        """There is no more sound. The last pieces are silence that follows."""
        self._frames = self.count // data.HOP
        encodings = self._frames // STRIDE
        self._last = -(-(encodings + BEHIND) // UNIT) if encodings else 0
        keep = len(self._sound) - self.count % data.HOP
        more = (self._last - self._taken) * PIECE + WHOLE + data.AROUND
        self._sound = np.pad(self._sound[:keep], (0, max(more - keep, 0)))

    @property
    def over(self) -> bool:
        return self._taken >= self._last

    @property
    def ready(self) -> bool:
        # A window never reads what `end` would remove: the part of a feature at the end.
        return not self.over and len(self._sound) >= WHOLE + data.AROUND

    def take(self) -> tuple[np.ndarray, int, bool, bool, bool]:
        """Returns the next piece as a row of `listening.Rows`."""
        sound, self._sound = self._sound[:WHOLE], self._sound[PIECE:]
        self._taken += 1
        return sound, self._frames, self._taken == 1, True, self.over
