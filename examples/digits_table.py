"""Prints a table of the results of digit runs, one line for all runs that differ only in seed.

python examples/digits_table.py runs/digits-*
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import digits_train
import training

COLUMNS = {
    "known_digit_error_rate": "digit errors",
    "unseen_digit_error_rate": "unseen speaker",
    "known_boundary_error_ms": "boundaries off",
    "unseen_boundary_error_ms": "unseen speaker",
}


def minutes(run: Path, batch_size: int) -> float:
    """Returns how long a run trained, without the time it was stopped."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    counts = [b - a for a, b in zip([0, *steps], steps, strict=False)]
    rates = [line["strings/s"] for line in lines]
    return sum(n * batch_size / rate for n, rate in zip(counts, rates, strict=True)) / 60


def options(settings: dict) -> str:
    """Returns the options of a run that are not the default, without data, unseen and seed."""
    given = []
    for name, default in vars(digits_train.parse_arguments([])).items():
        value = settings.get(name, default)
        if value != default and name not in ("data", "unseen", "seed"):
            given.append(f"--{name.replace('_', '-')}")
            if value is not True:
                value = " ".join(value) if isinstance(value, list) else str(value)
                given.append("CTC" if name == "init" else value)
    return " ".join(given)


def read(run: Path) -> tuple[str, dict[str, float]]:
    """Returns the options of a run, without its seed, and its results."""
    try:
        result = json.loads((run / "result.json").read_text())
    except (OSError, ValueError):
        raise SystemExit(f"{run}: no finished run of digits_train.py there") from None
    settings = training.load_config(run)["settings"]
    return options(settings), result | {"minutes": minutes(run, settings["batch_size"])}


def cell(column: str, values: Sequence[float]) -> str:
    """Returns the mean over seeds, with the lowest and the highest value."""
    mean = sum(values) / len(values)
    if column.endswith("rate"):
        return f"{100 * mean:.2f} % ({100 * min(values):.2f}–{100 * max(values):.2f})"
    return f"{mean:.0f} ms ({min(values):.0f}–{max(values):.0f})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print a table of runs of digits_train.py.")
    parser.add_argument("runs", nargs="+", type=Path)
    groups: dict[str, list[dict[str, float]]] = {}
    for run in parser.parse_args(arguments).runs:
        given, result = read(run)
        groups.setdefault(given, []).append(result)
    print(f"| options | {' | '.join(COLUMNS.values())} | seeds | minutes |")
    print("|---|" + "---:|" * (len(COLUMNS) + 2))
    for given, results in groups.items():
        cells = [cell(c, [r[c] for r in results]) for c in COLUMNS]
        took = sum(r["minutes"] for r in results) / len(results)
        what = f"`{given}`" if given else "none"
        print(f"| {what} | {' | '.join(cells)} | {len(results)} | {took:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
