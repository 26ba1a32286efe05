"""Prints what digit runs were measured to do, one line for runs that differ in their seed only.

python examples/digits_table.py runs/digits-*
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import training

COLUMNS = {
    "known_digit_error_rate": "digit errors",
    "unseen_digit_error_rate": "unseen speaker",
    "known_boundary_error_ms": "boundaries off",
    "unseen_boundary_error_ms": "unseen speaker",
}


def minutes(run: Path, batch_size: int) -> float:
    """Returns how long a run trained, whether or not it was stopped in between."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    counts = [b - a for a, b in zip([0, *steps], steps, strict=False)]
    rates = [line["strings/s"] for line in lines]
    return sum(n * batch_size / rate for n, rate in zip(counts, rates, strict=True)) / 60


def read(run: Path) -> tuple[tuple, dict[str, float]]:
    """Returns what a run has in common with those of other seeds, and its numbers."""
    try:
        result = json.loads((run / "result.json").read_text())
    except (OSError, ValueError):
        raise SystemExit(f"{run}: no finished run of digits_train.py there") from None
    settings = training.load_config(run)["settings"]
    start = "from a CTC run" if settings["init"] else "from nothing"
    kind = result["objective"], start, settings["steps"]
    return kind, result | {"minutes": minutes(run, settings["batch_size"])}


def cell(column: str, values: Sequence[float]) -> str:
    """The mean of the seeds, and their extremes."""
    mean = sum(values) / len(values)
    if column.endswith("rate"):
        return f"{100 * mean:.2f} % ({100 * min(values):.2f}–{100 * max(values):.2f})"
    return f"{mean:.0f} ms ({min(values):.0f}–{max(values):.0f})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print a table of runs of digits_train.py.")
    parser.add_argument("runs", nargs="+", type=Path)
    groups: dict[tuple, list[dict[str, float]]] = {}
    for run in parser.parse_args(arguments).runs:
        kind, result = read(run)
        groups.setdefault(kind, []).append(result)
    print(f"| objective | start | steps | {' | '.join(COLUMNS.values())} | seeds | minutes |")
    print("|---|---|---:|" + "---:|" * (len(COLUMNS) + 2))
    for (objective, start, steps), results in groups.items():
        cells = [cell(c, [r[c] for r in results]) for c in COLUMNS]
        took = sum(r["minutes"] for r in results) / len(results)
        print(
            f"| `{objective}` | {start} | {steps} | {' | '.join(cells)} "
            f"| {len(results)} | {took:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
