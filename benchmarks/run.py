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
    "ctc.lm_decode": "Decoding with words and a model of them",
    "transducer.decode_speed": "Speed of transducer decoding",
    "automata.speed": "Speed of general automata",
    "gpu": "On a GPU",
    "launches": "Launches on a GPU",
    "cycles": "Cycles on a TPU",
}
# Run by hand where there is a GPU; the documents show it once some machine has results.
BY_HAND = {"gpu"}
NOTES = {
    "gpu": """Each part is a process of its own, and times are medians of up to 20 calls. The first
table compares values with those of the scan on the machine's CPU: the largest difference, relative
for numbers above 1. "kernels" are launches of Pallas kernels in the compiled program, and
"launches" all of its launches. Memory is what comes on top of the arguments. Of JAX it is what the
compiler reserves, temporary arrays and results (the losses and the gradient). Of torch it is the
peak of its allocator, in which results are always included.""",
    "ctc.memory": """Gradients of half precision are summed in float32 and rounded at the end, which
takes a float32 array of the gradient's shape: rounded earlier, differences of nearly equal numbers
would be lost.""",
    "ctc.features": """The loss from features multiplies by the head's kernel four times instead of
three, and saves in writing and reading: chunks of 256 frames are partly still in the cache when
they are read again, and the gradient of the kernel is added up block by block.""",
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
    "ctc.lm_decode": """Forty sentences of 161 frames, one batch; 72 266 words, two million bigrams,
29 classes. flashlight-text and pyctcdecode decode in two processes, half of the sentences each;
"2 devices" is one program of jaxctc in which XLA takes each core for a device, split by
`jax.shard_map`. MB are those of the models, of both processes, and for jaxctc those of the
program's temporary arrays too. The exact total is the log-probability over all alignments + 2 log10
of the model + 2 for each word, computed anew from each text. Weights were tuned on "dev", for
jaxctc with a path for unknown words; "test" has other sentences and another seed
(`benchmarks/ctc/lm_data.py`), and judges them.""",
    "launches": """Compiled for an H100 by XLA and Mosaic, not run. A launch takes some 2 to 4
microseconds. The kernels are those of `jaxctc.kernels.use("kernel")`: two of the launches, for a
recursion of any length; the others normalise the logits, gather, scatter and pad. A block has 128
threads. Registers and bytes spilled are from ptxas' report, the shared memory from Mosaic's.""",
    "cycles": """Compiled for a TPU v5e by libtpu, not run: instruction bundles of its final
program, one a cycle, as often as loops run them. A bundle that waits for memory takes longer.
Kernel and scan compute log Z and posteriors from scores. Of optax, which starts from logits, these
are the loops over frames of loss and gradient alone.""",
    "transducer.decode_speed": """Products with the joint network's output layer take most of the
time of greedy search, in all three programs. On a CPU one row at a time takes less than twice as
long as 32 together, on one core, so that a batch gains little there; it gains on everything else,
and on the second core. An LSTM is called for a quarter of the batch at a time, and only after
labels. The beam search asks its networks several times a frame, as often as any sequence of the
batch needs it: more than each needs alone.""",
    "transducer.speed": """At the small shape, most of the time is passes over the logits, which the
plain scan needs too, so the plain scan is nearly as fast. The last column of the table of halves is
the ratio there would be if the lattice took no time.""",
}


Results = dict[str, list[dict]]  # of each benchmark, one of each machine


def document(results: Results) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Written by `python benchmarks/run.py`, which runs the modules named below from the "
        "repository's root (`pip install -e '.[bench]'`; for torch without CUDA, first `pip "
        "install torch --index-url https://download.pytorch.org/whl/cpu`). Peers are timed in turn "
        "in one process, and medians are reported with quartiles: absolute times drift with the "
        "machine, ratios less. Each machine that ran a benchmark has its results here.",
        "T is frames, B sequences, C classes, S labels of CTC, U labels of a transducer, "
        "D the size of a frame's features, W the width of a beam. Times are of the wall; CPU times "
        "are of all processors together. MB are millions of bytes, MiB are 2²⁰.",
    ]
    for name, machines in results.items():
        parts += [f"## {TITLES[name]}"]
        command = f"`python -m benchmarks.{name}`"
        if len(machines) == 1:
            parts.append(f"{command}, on {_versions(machines[0])}.")
        else:
            parts.append(f"{command}, on\n\n" + "\n".join(f"* {_versions(x)}" for x in machines))
        for heading in dict.fromkeys(h for content in machines for h in content["sections"]):
            parts.append(f"### {heading}")
            for content in machines:
                if heading in content["sections"]:
                    if len(machines) > 1:
                        parts.append(f"On {_machine(content)}:")
                    parts.append(content["sections"][heading])
        if name in NOTES:
            parts.append(NOTES[name])
    return "\n\n".join(parts) + "\n"


def _machine(content: dict) -> str:
    if card := content["machine"].get("card"):
        return card
    return f"{content['machine']['cores']} cores of {content['machine']['processor']}"


def _versions(content: dict) -> str:
    about = content["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v)
    about = f"({about['system']}), Python {about['python']}, {versions}, {about['date']}"
    return f"{_machine(content)} {about}"


def readme_tables(results: Results) -> dict[str, str]:
    """The tables between the README's markers."""
    exactness = max(results["ctc.exactness"], key=lambda content: content["machine"]["date"])
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
    memory = {_machine(content): content["data"] for content in results["ctc.memory"]}
    chips = {name: results[name][0]["data"] for name in ("launches", "cycles")}
    parts = [
        f"Loss and gradient, jitted, on {_machine(speed)}:\n\n"
        + _speed_table(speed["data"], memory.get(_machine(speed)), chips)
        for speed in results["ctc.speed"]
    ]
    return {
        "exactness": table(["", "jaxctc", "optax", "torch"], rows),
        "speed": "\n\n".join(parts)
        + """

Speed-up: against the faster of optax and torch. In place: the same, if the gradient
takes the memory of the logits, as it can in a training step. Loss alone: the same,
without the gradient. Memory: temporary memory, as a fraction of optax's. On GPU and TPU
nothing has been run yet: these are the launches of loss and gradient in a program compiled for an
H100, and the cycles of log Z and posteriors in one compiled for a v5e, both with
`jaxctc.kernels.use("kernel")`; in brackets the scan's, which is the default.""",
    }


def _speed_table(speed: dict, memory: dict | None, chips: dict[str, dict]) -> str:
    header = ["", "jaxctc", "optax", "torch", "speed-up", "in place", "loss alone", "memory"]
    header += ["GPU, compiled: launches", "TPU, compiled: cycles"]
    rows = []
    for key, value in speed.items():
        name, _, what = key.partition(", ")
        if what != "loss and gradient":
            continue
        times = value["milliseconds"].values()
        share = memory and memory[f"{name}, float32"]
        launches, cycles = chips["launches"][name], chips["cycles"][name]
        rows.append(
            [
                name,
                *[f"{time['median']:.3g} ms" for time in times],
                f"{value['ratio']:.1f}x",
                f"{speed['in place'][name]['ratio']:.1f}x",
                f"{speed[f'{name}, loss alone']['ratio']:.1f}x",
                f"1/{share['optax'] / share['jaxctc']:.1f}" if share else "–",
                f"{launches['kernel']['launches']} ({_grouped(launches['scan']['launches'])})",
                f"{_grouped(cycles['kernel']['cycles'])} ({_grouped(cycles['scan']['cycles'])})",
            ]
        )
    return table(header, rows)


def _grouped(number: int) -> str:
    """With spaces between thousands, which do not break a line."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def last_results() -> Results:
    """The last results of each benchmark on each machine."""
    found = {name: sorted(RESULTS.glob(f"*/{name}.json")) for name in TITLES}
    return {
        name: [json.loads(x.read_text()) for x in files]
        for name, files in found.items()
        if files or name not in BY_HAND
    }


def readme(text: str, results: Results) -> str:
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
    for name in (
        [] if arguments.write else arguments.names or [x for x in TITLES if x not in BY_HAND]
    ):
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=True)

    results = last_results()
    (ROOT / "docs" / "benchmarks.md").write_text(document(results))
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(), results))


if __name__ == "__main__":
    main()
