"""Cycles of a program compiled for a TPU, counted in the text of its final instruction bundles.

libtpu writes a file of bundles for each operation of a program, and one, TLP, for the program
around them. A bundle takes a cycle, if no memory is waited for. Bundles of loops count as often as
the loop runs; both sides of a branch count.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.chips import Count

DELAY = 4  # bundles after a branch that run before it is taken


def dump_to(folder: Path):
    """Lets libtpu write bundles into a folder. It reads this once, before it first compiles."""
    os.environ["LIBTPU_INIT_ARGS"] = (
        f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
        "--xla_jf_dump_llo_pass_label_regex=final_bundles"
    )


class _Loop(NamedTuple):
    start: int  # its first bundle
    end: int  # the bundle after its last
    trips: int


_BUNDLE = re.compile(r"^ *(?:0x[0-9a-f]+|0) +([A-Z]{2})? *: *>* *\{(.*)$", re.M)
_COMMENT = re.compile(r"/\*.*?\*/")


def _trips(text: str, last: str) -> int | None:
    """How often a loop runs that ends where the predicate `last` holds; None if none ends there."""
    if f"{last} = pmov 1" in text:
        return 1
    compare = re.search(rf"{last} = scmp\.(ge|gt|eq)\.s32\.totalorder (%\S+), ([%\w]+)(.*)", text)
    if compare and compare[1] == "eq":  # of 0, and a number that is 1 if the loop goes on
        chosen = re.search(rf"{compare[2]} = scalar_select /\*predicate=\*/(%\w+)", text)
        compare = chosen and re.search(
            rf"{chosen[1]} = scmp\.(lt)\.s32\.totalorder (%\S+), (\d+)(.*)", text
        )
    if not compare:
        return None
    step = re.search(rf"{compare[2]} = sadd\.s32 (\d+), (%\S+)", text)
    counted = (
        compare[1] == "lt"  # XLA's loops, whose counter may be spilled to memory
        or compare[4].startswith(" /* loop exit test")
        or (step and f"{step[2]} = sphi" in text)
    )
    if not counted:
        return None
    # A loop to a bound that the program computes copies a remainder: at least once.
    bound = int(compare[3]) + (compare[1] == "gt") if compare[3].isdigit() else 1
    return -(-bound // (int(step[1]) if step else 1))


def _loops(marks: list[str], bundles: list[str]) -> list[_Loop]:
    """The loops, inner ones first. A loop starts at a mark, and ends at its branch back."""
    text = "\n".join(bundles)
    found, open_at = [], []
    for index, (mark, bundle) in enumerate(zip(marks, bundles, strict=True)):
        if mark == "LB":
            open_at.append(index)
        branch = re.search(r"sbr\.rel \(!(%\S+)\)", _COMMENT.sub("", bundle))
        trips = _trips(text, branch[1]) if branch and open_at else None
        if trips is None:
            continue
        start = open_at.pop()
        if "iteration index, stage = 1" in bundles[start]:
            trips -= 2  # rounds of a grid that only start the first copies or end the last
        found.append(_Loop(start, index + 1 + DELAY, trips))
    if open_at:
        raise ValueError(f"the loops at bundles {open_at} have no end")
    return found


def count(text: str, calls: Callable[[str], Count] = lambda name: Count(0)) -> Count:
    """Cycles of the bundles in a file's text; `calls` are those of the operations called."""
    lines = [(m[1] or "", m[2]) for m in _BUNDLE.finditer(text)]
    bundles = [bundle for _, bundle in lines]
    loops = sorted(_loops([mark for mark, _ in lines], bundles))

    def between(start: int, end: int, loops: list[_Loop]) -> Count:
        total = Count(0)
        while start < end:
            if loops and loops[0].start == start:
                loop = loops[0]
                inside = [x for x in loops[1:] if x.start < loop.end]
                body = between(start, loop.end, inside)
                total = total.plus(Count(0, ((loop.trips, body),)) if loop.trips > 1 else body)
                start, loops = loop.end, loops[1 + len(inside) :]
                continue
            called = re.search(r"inlined_call[^/]*/\* %(\S+) =", bundles[start])
            total = total.plus(Count(1)).plus(calls(called[1]) if called else Count(0))
            start += 1
        return total

    return between(0, len(bundles), loops)


def cycles(folder: Path, program: str) -> Count:
    """Of a program, from the files that libtpu wrote for it and the text of its HLO."""
    texts = {}
    for path in folder.glob("*-final_bundles.txt"):
        found = re.fullmatch(r"\d+-(.*)-\d+-final_bundles\.txt", path.name)
        if found and not path.name.endswith("schedule-analysis_final_bundles.txt"):
            texts.setdefault(found[1], []).append(path.read_text())
    # Of operations that are equal but for names, libtpu writes one.
    form = _forms(program)
    alike = {form.get(name): name for name in texts}

    def calls(name: str) -> Count:
        written = name if name in texts else alike.get(form[name])
        if written is None:
            raise ValueError(f"{name} is called, and libtpu wrote no bundles of it")
        return count(max(texts[written], key=len))

    return count(max(texts["TLP"], key=len), calls)


def _forms(program: str) -> dict[str, str]:
    """For the name of each operation, its text and that of what it calls, without names."""
    bodies = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) [^\n]*\{\n(.*?)^\}", program, re.M | re.S))

    def without_names(text: str) -> str:
        return re.sub(r"%[\w.-]+", "%", re.sub(r", (?:metadata|backend_config)=.*", "", text))

    found = {}
    for name, text in re.findall(r"^\s*(?:ROOT )?%([\w.-]+) = (.*)$", program, re.M):
        called = re.search(r"calls=%?([\w.-]+)", text)
        found[name] = without_names(text) + without_names(bodies[called[1]] if called else "")
    return found
