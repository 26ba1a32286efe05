"""ARPA files of n-gram models, read a chunk of lines at a time."""

import gzip
import os
import re
import zlib
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 23  # bytes of text at a time: what is read must not take much more than the tables
START, END, UNKNOWN = "<s>", "</s>", "<unk>"


class Section(NamedTuple):
    """The n-grams of one order, without those that have words nobody asked for."""

    order: int
    words: np.ndarray  # int32 [n-grams, order]: numbers of words
    log10: np.ndarray  # float32 [n-grams]
    backoff: np.ndarray  # float32 [n-grams]: log10


def read(path: str | os.PathLike, wanted: set[str]) -> tuple[dict[str, int], list[Section]]:
    """The words of a file that are wanted, numbered, and its n-grams of these words.

    Raises:
      ValueError: If the file is not in ARPA format, is cut off or damaged, its n-grams do not match
        the counts in its header, or a probability is above 1.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return _Reader(path, wanted).read(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); it must be a whole gzip file.") from None


class _Reader:
    """What has been read of a file so far."""

    def __init__(self, path, wanted: set[str]):
        self.path = path
        self.wanted = {word.encode() for word in wanted}
        self.numbers: dict[bytes, int] = {}
        self.counts: dict[int, int] = {}  # of the header
        self.found: dict[int, int] = {}
        self.parts: dict[int, list[Section]] = {}
        self.line = 0

    def read(self, file) -> tuple[dict[str, int], list[Section]]:
        order = None  # None before the header, 0 in the header, then the order of the section
        for lines in iter(lambda: file.readlines(CHUNK), []):
            if self.line == 0:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            marks = [i for i, line in enumerate(lines) if line.lstrip(b" \t")[:1] == b"\\"]
            begin = 0
            for mark in [*marks, len(lines)]:
                self._rows(lines[begin:mark], order, self.line + begin)
                if mark < len(lines):
                    order = self._mark(lines[mark], order, self.line + mark)
                    if order == -1:
                        return self._result()
                begin = mark + 1
            self.line += len(lines)
        raise ValueError(f"{self.path} has no \\data\\ to \\end\\; it must be a whole ARPA file.")

    def _mark(self, line: bytes, order: int | None, number: int) -> int | None:
        """The order of the section that begins, 0 for the header and -1 for the end."""
        text = line.strip()
        if text == b"\\data\\":
            return 0
        if order is None:
            return None
        if text == b"\\end\\":
            return -1
        matched = re.fullmatch(rb"\\(\d+)-grams:", text)
        if matched is None:
            raise self._bad(line, number)
        if int(matched[1]) != order + 1:
            wanted = f"\\{order + 1}-grams:"
            raise ValueError(
                f"{self.path}, line {number + 1}: section {text.decode()} is out of order; it must "
                f"be {wanted}"
            )
        return order + 1

    def _rows(self, lines: list[bytes], order: int | None, first: int) -> None:
        if order is None or not lines:
            return
        if order == 0:
            for i, line in enumerate(lines):
                matched = re.fullmatch(rb"\s*ngram\s+(\d+)\s*=\s*(\d+)\s*", line)
                if matched is not None:
                    self.counts[int(matched[1])] = int(matched[2])
                elif line.strip():
                    raise self._bad(line, first + i)
            return
        rows = [line.split() for line in lines]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        for i in np.flatnonzero((lengths != order + 1) & (lengths != order + 2)):
            # Only these separate words: a form feed may be a word.
            rows[i] = [x for x in re.split(rb"[ \t\r\n]+", lines[i]) if x]
            lengths[i] = len(rows[i])
            if lengths[i] not in (0, order + 1, order + 2):
                raise self._bad(lines[i], first + int(i))
        if not lengths.all():
            places = np.flatnonzero(lengths)
            rows, lengths = [rows[i] for i in places], lengths[places]
        else:
            places = np.arange(len(rows))
        try:
            log10 = np.array([row[0] for row in rows], "S").astype(np.float64)
            backoff = np.zeros(len(rows))
            has = np.flatnonzero(lengths == order + 2)
            backoff[has] = np.array([rows[i][-1] for i in has] or ["0"], "S").astype(np.float64)[
                : len(has)
            ]
            wrong = np.flatnonzero(~(log10 <= 0) | ~np.isfinite(backoff))
        except ValueError:
            wrong = [i for i, row in enumerate(rows) if not _numbers(row, order)]
        if len(wrong):
            place = places[wrong[0]]
            raise self._bad(lines[place], first + place)
        self._keep(order, rows, log10, backoff)

    def _keep(self, order: int, rows: list, log10: np.ndarray, backoff: np.ndarray) -> None:
        self.found[order] = self.found.get(order, 0) + len(rows)
        if order == 1:
            self._utf8([row[1] for row in rows])
            before = len(self.numbers)
            for row in rows:
                word = b"<unk>" if row[1] == b"<UNK>" else row[1]
                self.numbers.setdefault(word, len(self.numbers))
            if len(self.numbers) - before != len(rows):
                raise ValueError(f"{self.path} has a word twice; its n-grams must differ.")
            words = np.arange(before, len(self.numbers), dtype=np.int32)[:, None]
            self._add(Section(1, words, log10, backoff))
            return
        if order == 2 and self.wanted:
            self._forget()
        number = self.numbers
        columns = [[number.get(row[i], -1) for row in rows] for i in range(1, order + 1)]
        words = np.array(columns, np.int32).reshape(order, len(rows)).T
        kept = (words >= 0).all(axis=1)
        self._add(Section(order, words[kept], log10[kept], backoff[kept]))

    def _utf8(self, words: list[bytes]) -> None:
        try:
            b" ".join(words).decode()
        except UnicodeDecodeError as error:
            place = bytes(error.object[: error.start]).count(b" ")
            raise ValueError(f"{self.path} has {words[place]!r}; it must be UTF-8.") from None

    def _add(self, part: Section) -> None:
        small = part.log10.astype(np.float32), part.backoff.astype(np.float32)
        self.parts.setdefault(part.order, []).append(Section(part.order, part.words, *small))

    def _forget(self) -> None:
        """Keeps the words that are wanted; called when all are known."""
        section = _joined(self.parts.pop(1))
        kept = [i for word, i in self.numbers.items() if word in self.wanted]
        names = [word for word in self.numbers if word in self.wanted]
        self.numbers = {word: i for i, word in enumerate(names)}
        if b"<unk>" in self.numbers:
            self.numbers[b"<UNK>"] = self.numbers[b"<unk>"]
        words = np.arange(len(kept), dtype=np.int32)[:, None]
        self.parts[1] = [Section(1, words, section.log10[kept], section.backoff[kept])]
        self.wanted = set()

    def _result(self) -> tuple[dict[str, int], list[Section]]:
        found, counts = ({n: x for n, x in y.items() if x} for y in (self.found, self.counts))
        if found != counts:
            raise ValueError(
                f"{self.path} has {found} n-grams; its header says {counts}, and it must be right."
            )
        if 1 not in counts:
            raise ValueError(f"{self.path} has no n-grams; it must have words.")
        if self.wanted:
            self._forget()
        self.numbers.pop(b"<UNK>", None)
        words = {word.decode(): i for word, i in self.numbers.items()}
        # An order without n-grams is one all the same: the back-offs below it count.
        orders = range(1, max(self.counts) + 1)
        return words, [_joined(self.parts.get(n) or [_nothing(n)]) for n in orders]

    def _bad(self, line: bytes, number: int) -> ValueError:
        text = line.decode(errors="replace").strip(" \t\r\n")
        return ValueError(
            f"{self.path}, line {number + 1}: {text!r} is not a line of an ARPA file."
        )


def _numbers(row: list[bytes], order: int) -> bool:
    """Whether the first field and the back-off are numbers."""
    try:
        return float(row[0]) <= 0 and (len(row) == order + 1 or np.isfinite(float(row[-1])))
    except ValueError:
        return False


def _nothing(order: int) -> Section:
    values = np.zeros(0, np.float32)
    return Section(order, np.zeros((0, order), np.int32), values, values)


def _joined(parts: list[Section]) -> Section:
    arrays = zip(*(part[1:] for part in parts), strict=True)
    return Section(parts[0].order, *(np.concatenate(x) for x in arrays))
