"""Runs the benchmarks; writes docs/benchmarks.md and the README's tables from the results.

python benchmarks/run.py                  # everything, less than half an hour
python benchmarks/run.py ctc.speed        # only this one
python benchmarks/run.py --write          # only the documents, from the last results
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # a command knows the modules of its own directory only
from benchmarks.common import RESULTS, table  # noqa: E402

TITLES = {
    "ctc.speed": "Speed of the CTC loss",
    "ctc.memory": "Memory of the CTC loss",
    "ctc.exactness": "Exactness of the CTC loss",
    "ctc.soak": "Random batches against the CTC loss",
    "ctc.two_ended": "An idea that did not pay: the lattice from both ends",
    "transducer.speed": "Speed and memory of the transducer loss",
    "ctc.decode_speed": "Speed and accuracy of decoding",
    "automata.speed": "Speed of general automata",
}
NOTES = {
    "ctc.memory": """Gradients of half precision are added up in float32 and rounded last, which
takes a float32 array of the gradient's shape: rounded before, what is left of two nearly equal
numbers would be lost.""",
    "ctc.soak": """Faults are a NaN, a negative loss, a gradient that is not finite, whose rows do
not sum to 0 or that is not 0 in padding, and an infeasible pair with another answer than `inf` and
zeros. Among the batches are ragged, empty, zero-frame and infeasible pairs, float32, bfloat16 and
float16, with NaN in padding.""",
    "ctc.two_ended": """Running the lattice from both ends to the middle halves the number of
steps and doubles what each does. It needs the scores in another order, and that costs more on
this machine than the saved steps bring. The package runs from one end. Where the latency of a step
rules, on a GPU or TPU, this may be otherwise; it was not measured there.""",
    "ctc.speed": """On OCR, loss and gradient take little more than reading the logits and writing
the gradient once (the table of the floor), so a larger factor is not to be had from anything that
returns the gradient in memory of its own. In a training step it need not: logits are an array in
between there, and the gradient can take their place, as in the table above where they are donated
to the call (`jax.jit(..., donate_argnums=0)`). On plates one exp of every logit is a good part of
the loss alone, and much of the rest is the launch of some forty small kernels. Elsewhere the
recursion rules: a frame costs some forty passes over its states, of forward, recomputed and
backward step together. Tried to have fewer, and slower on this machine: steps of two frames, all
states in one array, one sum of three terms in the place of two sums, keeping other things than the
state of each chunk, and the lattice from both ends (below). Keeping the scores of short sequences
from being converted and transposed in one kernel, which XLA does not vectorise, makes the loss
alone faster and, at small batches, loss and gradient slower. Peers and package alike pay for
memory that the C library gives back and fetches again, page by page, at each call when arrays are
larger than it keeps: of writing OCR's gradient that is the greater part. Huge pages
(`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`) take most of it away, from all contestants. A jitted call
on a tiny input takes a few times as long as one of optax, for the same reason as on plates: more
and smaller kernels.""",
    "transducer.speed": """At the small shape, passes over the logits, which the plain scan makes as
well, are most of the time, so that the plain scan is close: the last column of the halves is what
would be gained if the lattice cost nothing.""",
}


def document(results: dict[str, dict]) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/run.py`, which runs the modules named below from the "
        "repository's root (`pip install -e '.[bench]'`; for torch without CUDA, first `pip "
        "install torch --index-url https://download.pytorch.org/whl/cpu`). Peers are timed in turn "
        "in one process, and medians are reported with quartiles: absolute times drift with the "
        "machine, ratios less so.",
    ]
    for name, content in results.items():
        about = content["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v)
        parts += [
            f"## {TITLES[name]}",
            f"`python -m benchmarks.{name}`, on {about['cores']} cores of {about['processor']} "
            f"({about['system']}), Python {about['python']}, {versions}, {about['date']}.",
        ]
        for heading, text in content["sections"].items():
            parts += [f"### {heading}", text]
        if name in NOTES:
            parts.append(NOTES[name])
    return "\n\n".join(parts) + "\n"


def readme_tables(results: dict[str, dict]) -> dict[str, str]:
    """What stands between the README's markers."""
    exactness, speed = results["ctc.exactness"], results["ctc.speed"]
    memory = results["ctc.memory"]["data"]
    rows = []
    for frames in (18, 200, 1500, 5000, 20000):
        errors = [
            max(
                exactness["data"][f"{kind}, {frames}, {name}"]["gradient"]
                for kind in ("random", "peaky", "flat")
            )
            for name in ("jaxctc", "optax", "torch")
        ]
        rows.append([f"{frames} frames", *[f"{e:.0e}" for e in errors]])
    machine = f"{speed['machine']['cores']} cores of {speed['machine']['processor']}, no GPU"
    times = []
    for key, value in speed["data"].items():
        name, _, what = key.partition(", ")
        if what == "loss and gradient":
            share = memory[f"{name}, float32"]
            times.append(
                [
                    name,
                    *[
                        f"{value['milliseconds'][n]['median']:.3g} ms"
                        for n in value["milliseconds"]
                    ],
                    f"{value['ratio']:.1f}x",
                    f"{speed['data']['in place'][name]['ratio']:.1f}x",
                    f"{speed['data'][f'{name}, loss alone']['ratio']:.1f}x",
                    f"1/{share['optax'] / share['jaxctc']:.1f}",
                ]
            )
    header = ["", "jaxctc", "optax", "torch", "to the faster", "in place", "loss alone"]
    header.append("memory, of optax's")
    return {
        "exactness": table(["", "jaxctc", "optax", "torch"], rows),
        "speed": f"Loss and gradient, jitted, on {machine}:\n\n{table(header, times)}\n\n"
        "In place: the gradient takes the memory of the logits, as it can in a training step.",
    }


def last_results() -> dict[str, dict]:
    """What each benchmark left when it last ran."""
    files = {name: RESULTS / f"{name}.json" for name in TITLES}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def readme(text: str, results: dict[str, dict]) -> str:
    """The README with its tables written anew."""
    for marker, tables in readme_tables(results).items():
        pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
        text = re.sub(pattern, lambda m, t=tables: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.S)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TITLES)}; default: all")
    parser.add_argument("--write", action="store_true", help="only write the documents")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TITLES):
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    for name in [] if arguments.write else arguments.names or TITLES:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=True)

    results = last_results()
    (ROOT / "docs" / "benchmarks.md").write_text(document(results))
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(), results))


if __name__ == "__main__":
    main()
