"""Prints a table of the results of digit runs.

    python examples/digits_table.py [--by-speaker] runs/digits-*

A line has the mean, the lowest and the highest value of all runs that differ only in seed and in
the speaker left out; with --by-speaker, of those that differ only in seed.
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


def minutes(run: Path) -> float:
    """Returns the processor time of a run's steps, however many processors and stops there were."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    counts = [b - a for a, b in zip([0, *steps], steps, strict=False)]
    return sum(n * x["processor_seconds/step"] for n, x in zip(counts, lines, strict=True)) / 60


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


def read(run: Path) -> tuple[str, str, dict[str, float]]:
    """Returns the options of a run, the speaker left out, and its results."""
    try:
        result = json.loads((run / "result.json").read_text())
    except (OSError, ValueError):
        raise SystemExit(f"{run}: no finished run of digits_train.py there") from None
    settings = training.load_config(run)["settings"]
    return options(settings), settings["unseen"], result | {"minutes": minutes(run)}


def cell(column: str, values: Sequence[float]) -> str:
    """Returns the mean over runs, with the lowest and the highest value."""
    low, mean, high = min(values), sum(values) / len(values), max(values)
    if column.endswith("rate"):
        found, between = f"{100 * mean:.2f} %", f" ({100 * low:.2f}–{100 * high:.2f})"
    else:
        found, between = f"{mean:.0f} ms", f" ({low:.0f}–{high:.0f})"
    return found + (between if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print a table of runs of digits_train.py.")
    parser.add_argument("--by-speaker", action="store_true", help="a line for each left out")
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args(arguments)
    groups: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for run in args.runs:
        given, speaker, result = read(run)
        what = f"`{given}`" if given else "none"
        key = (what, speaker) if args.by_speaker else (what,)
        groups.setdefault(key, []).append(result)
    heads = ["options", "left out"][: 1 + args.by_speaker]
    print(f"| {' | '.join([*heads, *COLUMNS.values(), 'runs', 'processor minutes'])} |")
    print("|---|" + "---|" * args.by_speaker + "---:|" * (len(COLUMNS) + 2))
    for names, results in groups.items():
        cells = [*names, *(cell(c, [r[c] for r in results]) for c in COLUMNS)]
        took = sum(r["minutes"] for r in results) / len(results)
        print(f"| {' | '.join(cells)} | {len(results)} | {took:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
