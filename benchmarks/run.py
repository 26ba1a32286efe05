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
    "ctc.features": "The CTC loss without the logits",
    "ctc.exactness": "Exactness of the CTC loss",
    "ctc.soak": "A soak test of the CTC loss with random batches",
    "ctc.two_ended": "Tried and not faster: the lattice from both ends",
    "transducer.speed": "Speed and memory of the transducer loss",
    "ctc.decode_speed": "Speed and accuracy of decoding",
    "automata.speed": "Speed of general automata",
    "launches": "Launches on a GPU",
    "cycles": "Cycles on a TPU",
}
NOTES = {
    "ctc.memory": """Gradients of half precision are summed in float32 and rounded at the end, which
takes a float32 array of the gradient's shape: rounded earlier, differences of nearly equal numbers
would be lost.""",
    "ctc.features": """The loss from features multiplies by the head's kernel four times instead of
three, and saves in writing and reading: chunks of 256 frames are partly still in the cache when
they are read again, and the gradient of the kernel is added up block by block. Other programs ran
on the machine during this measurement. They slow reading and writing more than products, and so
the loss of all logits more: on an idle machine, expect a ratio nearer to 4/3.""",
    "ctc.soak": """Faults are a NaN, a negative loss, a gradient that is not finite, whose rows do
not sum to 0 or that is not 0 in padding, and an infeasible pair without loss `inf` and gradient 0.
The batches include ragged, empty, zero-frame and infeasible pairs, in float32, bfloat16 and
float16, with NaN in padding.""",
    "ctc.two_ended": """Running the lattice from both ends to the middle halves the number of
steps and doubles the work of each. It needs the scores in another order, and on this machine that
costs more than the saved steps gain. The package runs from one end. On a GPU or TPU, where the
latency of a step matters most, this may be different; it was not measured there.""",
    "ctc.speed": """On OCR, loss and gradient take little more time than reading the logits and
writing the gradient once (see the table of the floor), so nothing that returns the gradient in new
memory can be much faster. A training step needs no new memory: there the logits are an intermediate
array, whose memory the gradient can take. This is the table above where the logits are donated to
the call (`jax.jit(..., donate_argnums=0)`). On plates, one exp of every logit is a large part of
the loss alone, and much of the rest is the launch of about forty small kernels. For the other
shapes the recursion takes most of the time: a frame costs about forty passes over its states, in
forward, recomputed and backward step together. These attempts to have fewer were slower on this
machine: steps of two frames, all states in one array, one sum of three terms instead of two sums,
storing something else than the state of each chunk, and the lattice from both ends (below). XLA
converts and transposes the scores of short sequences in one kernel, which it does not vectorise.
With two kernels the loss alone is faster but, at small batches, loss and gradient are slower.
If arrays are large, the C library returns their memory to the system after each call and fetches it
again page by page. This costs time for the package and its peers, and is most of the time of
writing OCR's gradient. Huge pages (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`) remove most of it, for
all. A jitted call on a tiny input takes a few times as long as optax's, for the same reason as on
plates: more and smaller kernels.""",
    "launches": """Compiled for an H100 by XLA and Mosaic, not run. A launch takes some 2 to 4
microseconds. The kernels are those of `jaxctc.kernels.use("kernel")`: two of the launches, for a
recursion of any length; the others normalise the logits, gather, scatter and pad. Of the kernel for
character speech the compiler reports 55 registers a thread and no spills.""",
    "cycles": """Compiled for a TPU v5e by libtpu, not run: instruction bundles of its final
program, one a cycle, as often as loops run them. A bundle that waits for memory takes longer.
Kernel and scan compute log Z and posteriors from scores. Of optax, which starts from logits, these
are the loops over frames of loss and gradient alone.""",
    "transducer.speed": """At the small shape, most of the time is passes over the logits, which the
plain scan needs too, so the plain scan is nearly as fast. The last column of the table of halves is
the ratio there would be if the lattice took no time.""",
}


def document(results: dict[str, dict]) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/run.py`, which runs the modules named below from the "
        "repository's root (`pip install -e '.[bench]'`; for torch without CUDA, first `pip "
        "install torch --index-url https://download.pytorch.org/whl/cpu`). Peers are timed in turn "
        "in one process, and medians are reported with quartiles: absolute times drift with the "
        "machine, ratios less.",
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
    """The tables between the README's markers."""
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
    header = ["", "jaxctc", "optax", "torch", "speed-up", "in place", "loss alone"]
    header.append("memory")
    return {
        "exactness": table(["", "jaxctc", "optax", "torch"], rows),
        "speed": f"Loss and gradient, jitted, on {machine}:\n\n{table(header, times)}\n\n"
        "Speed-up: against the faster of optax and torch. In place: the same, if the gradient\n"
        "takes the memory of the logits, as it can in a training step. Loss alone: the same,\n"
        "without the gradient. Memory: temporary memory, as a fraction of optax's.",
    }


def last_results() -> dict[str, dict]:
    """The last results of each benchmark."""
    files = {name: RESULTS / f"{name}.json" for name in TITLES}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def readme(text: str, results: dict[str, dict]) -> str:
    """The README with new tables."""
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
