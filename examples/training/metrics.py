"""The metrics that a run writes."""

import json
from pathlib import Path


class MetricsFile:
    """One JSON object per line; lines that a continued run will write again are removed."""

    def __init__(self, path: Path, step: int):
        self._path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if _step_of(line) <= step))

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line cut off by a crash
