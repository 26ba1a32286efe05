"""The rows of a run as tables, and as a file for the documents."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import RESULTS, SHAPES, table

# Of each table of times: the parts it is from, and what each column is called in the rows.
LOSSES = {
    "kernel": ("kernel", "kernel"),
    "scan": ("scan", "scan"),
    "scan, 4 frames a round": ("unrolled", "scan, unrolled"),
    "torch": ("torch", "torch"),
    "cuDNN": ("torch", "torch, cuDNN"),
    "optax": ("scan", "optax"),
}
BUFFERS = {
    f"{way}, {state}": (f"command buffers {state}", way)
    for way in ("kernel", "scan")
    for state in ("on", "off")
}
MEASURED = {
    "Loss and gradient, ms": "loss and gradient",
    "Loss alone, ms": "loss",
    "Memory of loss and gradient, results included, MiB": "added MiB",
    "Memory of loss and gradient, results not included, MiB": "temporary MiB",
    "Seconds of compiling loss and gradient": "compile seconds",
}
# What may be missing or fail, and the run is none the worse.
PEERS = {"torch", "torch, cuDNN", "torchaudio", "optax"}


def read(path: Path) -> list[dict]:
    """The rows of the last run in a file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    starts = [i for i, row in enumerate(rows) if row["part"] == "machine" and "error" not in row]
    return rows[starts[-1] :] if starts else rows


def sections(rows: list[dict]) -> dict[str, str]:
    """Tables by heading: what is right, what was timed, and what failed."""
    found = {"Kernels against the scan on the CPU": _correct(rows)}
    for heading, key in MEASURED.items():
        found[heading] = _by_shape(rows, LOSSES, key)
    found["Loss and gradient with command buffers on and off, ms"] = _by_shape(
        rows, BUFFERS, "loss and gradient"
    )
    found["Transducer loss, (4, 200, 50, 500)"] = _rows(
        rows, "transducers", ["loss and gradient", "loss", "added MiB", "temporary MiB"]
    )
    found["Decoding of BPE speech"] = _rows(rows, "decoding", ["ms"])
    found["What was left out"] = _listed(rows, "left out", lambda row: row.get("left out"))
    found["What failed"] = _listed(rows, "error", _fault)
    return {heading: text for heading, text in found.items() if text}


def is_good(rows: list[dict]) -> bool:
    """Whether nothing is wrong, crashed or was stopped, except peers."""
    return not any(_fault(row) for row in rows if row.get("name") not in PEERS)


def keep(path: Path) -> str:
    """Writes a run's tables and rows to the results of its card; returns what was written."""
    try:
        rows = read(path)
        about = rows[0]
        found = about["part"]
    except OSError:
        raise SystemExit(f"{path} can not be read; --keep takes the gpu.jsonl of a run.") from None
    except (ValueError, LookupError, TypeError):
        raise SystemExit(f"{path} is no gpu.jsonl of a run: a line is no result.") from None
    if found != "machine" or not about.get("card"):
        raise SystemExit(f"{path} does not begin with a GPU: it is of a dry run.")
    slug = "-".join(re.findall(r"[a-z0-9]+", about["device"].lower()))
    to = RESULTS / slug / "gpu.json"
    to.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": about, "sections": sections(rows), "data": rows}
    to.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return str(to)


def _cell(row: dict | None, key: str) -> object:
    found = None if row is None else row.get(key, "failed" if "error" in row else None)
    return "–" if found is None else found


def _correct(rows: list[dict]) -> str:
    keys = ["largest error", "tolerance", "other integers", "kernels", "launches"]
    lines: list[list[object]] = [
        [row["case"], "yes" if row.get("right") else "**no**", *(_short(row, key) for key in keys)]
        for row in rows
        if row["part"] == "correct" and "case" in row
    ]
    return table(["", "right", *keys], lines) if lines else ""


def _short(row: dict, key: str) -> object:
    found = _cell(row, key)
    return f"{found:.0e}" if isinstance(found, float) else found


def _by_shape(rows: list[dict], columns: dict[str, tuple[str, str]], key: str) -> str:
    places = {(row["part"], row.get("name"), row.get("shape")): row for row in rows}
    shapes = [x for x in SHAPES if any(shape == x for *_, shape in places)]
    columns = {
        column: place
        for column, place in columns.items()
        if any(key in row for row in rows if (row["part"], row.get("name")) == place)
    }
    lines = [
        [shape, *(_cell(places.get((*place, shape)), key) for place in columns.values())]
        for shape in shapes
    ]
    return table(["", *columns], lines) if columns else ""


def _rows(rows: list[dict], part: str, keys: list[str]) -> str:
    rows = [row for row in rows if row["part"] == part and "name" in row]
    return (
        table(["", *keys], [[r["name"], *(_cell(r, key) for key in keys)] for r in rows])
        if rows
        else ""
    )


def _fault(row: dict) -> str | None:
    """What failed or is wrong, if anything."""
    if "error" in row or row.get("right", True):
        return row.get("error")
    error, tolerance = row["largest error"], row["tolerance"]
    return f"wrong: error {error:.0e}, tolerance {tolerance:.0e}; {row['other integers']} integers"


def _listed(rows: list[dict], what: str, text: Callable[[dict], str | None]) -> str:
    """Rows of which there is such a text."""
    lines: list[list[object]] = [
        [row["part"], row.get("case") or row.get("name") or "", row.get("shape", ""), said]
        for row in rows
        if (said := text(row))
    ]
    return table(["part", "what", "shape", what], lines) if lines else ""
