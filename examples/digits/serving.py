"""Serving of streams: each has a row of a `Listener` while it lasts, then another gets the row."""

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import jaxctc
from digits.data import RATE
from digits.listening import PIECE, Heard, Listener
from digits.models import SECONDS_A_FRAME
from digits.streams import Pieces, Pipe, Source, WaveFile

PATIENCE = 0.002  # seconds to wait when no stream has a piece
FULL = "more digits than a hypothesis may have were not sure; a narrower beam is sure earlier"


@dataclass
class Stream:
    """A stream in its row."""

    name: str
    source: Source
    started: float  # when its sound begins, if it comes as it is spoken
    arrived: float  # when the last of it came
    pieces: Pieces = field(default_factory=Pieces)
    digits: list[int] = field(default_factory=list)  # so far
    open: bool = True  # is there more sound to come?


@dataclass
class Served:
    """What a service has done so far."""

    seconds: float = 0.0  # of sound
    failed: int = 0
    heard: list[tuple[str, list[int]]] = field(default_factory=list)  # of each stream its digits
    lags: list[float] = field(default_factory=list)  # of each piece, from its arrival to its digits
    delays: list[float] = field(default_factory=list)  # of each digit, from its start until told


class Service:
    """Hears streams, as many at a time as a listener has rows.

    Args:
      listener: hears them.
      names: wav files, or "-" for stdin.
      live: whether files are read at the speed at which they were spoken.
      timeout: seconds after which a pipe that sends nothing is ended; None means never.
      tell: called with each digit, a dict.
      complain: called with the name of a stream that can't be heard, and a sentence that says why.
    """

    def __init__(
        self,
        listener: Listener,
        names: Sequence[str],
        *,
        live: bool,
        timeout: float | None,
        tell: Callable[[dict[str, Any]], None],
        complain: Callable[[str, str], None],
    ):
        self._listener, self._live, self._timeout = listener, live, timeout
        self._waiting = deque(names)
        self._rows: list[Stream | None] = [None] * listener.streams
        self._tell, self._complain = tell, complain
        self.served = Served()

    def end(self) -> None:
        """No more sound is read: what has come is heard, and that is all."""
        self._waiting.clear()
        for stream in filter(None, self._rows):
            self._close(stream)

    def step(self) -> bool:
        """Hears a piece of every stream that has one; False if all streams are over."""
        now = time.perf_counter()
        for row in range(len(self._rows)):
            self._admit(row, now)
            self._read(row, now)
        ready = {i: s for i, s in enumerate(self._rows) if s is not None and s.pieces.ready}
        if ready:
            self._hear(ready)
        elif any(self._rows):
            time.sleep(PATIENCE)
        return any(self._rows) or bool(self._waiting)

    def _admit(self, row: int, now: float) -> None:
        """Gives a row that is free to the next stream that can be opened."""
        while self._rows[row] is None and self._waiting:
            name = self._waiting.popleft()
            try:
                source = Pipe(sys.stdin) if name == "-" else WaveFile(name)
            except ValueError as error:
                self._fail(name, str(error))
                continue
            # Streams don't begin at the same time, so that their pieces don't come together.
            offset = PIECE / RATE * row / len(self._rows) if self._live else 0.0
            self._rows[row] = stream = Stream(name, source, now + offset, now)
            self.served.heard.append((name, stream.digits))

    def _read(self, row: int, now: float) -> None:
        """Takes the sound of a stream that has come."""
        stream = self._rows[row]
        if stream is None:
            return
        timed = self._live and isinstance(stream.source, WaveFile)
        while stream.open and not stream.pieces.ready:
            due = stream.started + (stream.pieces.count + PIECE) / RATE
            if timed and due > now:
                break
            try:
                sound = stream.source.read(PIECE)
            except ValueError as error:
                self._fail(stream.name, str(error))
                sound = None
            if sound is not None and not len(sound) and self._silent(stream, now):
                self._fail(stream.name, f"has sent nothing for {self._timeout:g} seconds")
                sound = None
            if sound is None:
                self._close(stream)
            elif len(sound):
                stream.pieces.put(sound)
                stream.arrived = due if timed else time.perf_counter()
            else:
                break
        if stream.pieces.over:  # too short for any digit
            self._leave(row)

    def _silent(self, stream: Stream, now: float) -> bool:
        """Whether a stream has sent nothing for too long."""
        return self._timeout is not None and now - stream.arrived > self._timeout

    def _close(self, stream: Stream) -> None:
        if stream.open:
            stream.open = False
            stream.pieces.end()

    def _hear(self, ready: dict[int, Stream]) -> None:
        rows = self._listener.silence()
        for row, stream in ready.items():
            for place, value in zip(rows, stream.pieces.take(), strict=True):
                place[row] = value
        heard = self._listener.hear(rows)
        for row, stream in ready.items():
            self._report(row, stream, heard)
        now = time.perf_counter()
        self.served.lags += [now - stream.arrived for stream in ready.values()]

    def _report(self, row: int, stream: Stream, heard: Heard) -> None:
        for i in range(heard.counts[row]):
            seconds = float(heard.frames[row, i]) * SECONDS_A_FRAME
            digit = int(heard.labels[row, i]) - 1
            self._tell(
                {
                    "stream": stream.name,
                    "seconds": round(seconds, 2),
                    "digit": digit,
                    "confidence": round(float(heard.confidences[row, i]), 4),
                }
            )
            stream.digits.append(digit)
            if self._live:
                self.served.delays.append(time.perf_counter() - stream.started - seconds)
        if heard.full[row]:
            self._fail(stream.name, FULL)
            self._leave(row)
        elif stream.pieces.over:
            self._leave(row)

    def _leave(self, row: int) -> None:
        stream = self._rows[row]
        assert stream is not None
        self.served.seconds += stream.pieces.count / RATE
        self._rows[row] = None

    def _fail(self, name: str, error: str) -> None:
        self.served.failed += 1
        self._complain(name, error)


def error_rate(heard: Sequence[tuple[str, list[int]]]) -> float | None:
    """Returns the rate of wrong digits of files named …-DIGITS.wav; None if there are none."""
    said = [(digits, re.fullmatch(r".*-([0-9]+)", Path(name).stem)) for name, digits in heard]
    pairs = [(digits, list(map(int, match[1]))) for digits, match in said if match]
    if not pairs:
        return None
    size = max(len(digits) for pair in pairs for digits in pair)
    found, true = (
        np.array([[*digits, *[-1] * (size - len(digits))] for digits in column], np.int32)
        for column in zip(*pairs, strict=True)
    )
    return float(jaxctc.error_rate(found, true))


def serve(
    listener: Listener,
    names: Sequence[str],
    *,
    live: bool,
    timeout: float | None,
    stopped: Callable[[], bool],
    tell: Callable[[dict[str, Any]], None],
    complain: Callable[[str, str], None],
) -> dict[str, Any]:
    """Hears all streams, until `stopped` says True, and returns what was done and how fast."""
    service = Service(listener, names, live=live, timeout=timeout, tell=tell, complain=complain)
    begun, processed, ended = time.perf_counter(), time.process_time(), False
    while service.step():
        if stopped() and not ended:
            ended = True
            service.end()
    served, spent = service.served, time.perf_counter() - begun
    report = {
        "streams": listener.streams,
        "failed": served.failed,
        "digits": sum(len(digits) for _, digits in served.heard),
        "sound_seconds": round(served.seconds, 2),
        "seconds": round(spent, 2),
        "processor_seconds": round(time.process_time() - processed, 2),
        "real_time_factor": round(spent / served.seconds, 5) if served.seconds else None,
    }
    rate = None if ended else error_rate(served.heard)  # streams that were ended lack digits
    if rate is not None:
        report["digit_error_rate"] = round(rate, 6)
    for name, values in (("lag", served.lags), ("delay", served.delays)):
        for share in (50, 99) if values else ():
            report[f"{name}_ms_p{share}"] = round(1000 * float(np.percentile(values, share)), 1)
    return report
