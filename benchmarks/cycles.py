"""Cycles of the recursion on a TPU: compiled for a v5e with `pip install -e '.[tpu-compile]'`, not
run.

Log Z and posteriors from scores, by kernel and scan; of optax's loss and gradient only the loops
over frames.
"""

import tempfile
from pathlib import Path

import jax

import jaxctc
from benchmarks import bundles
from benchmarks.chips import Count, compiled, v5e
from benchmarks.common import SHAPES, report, table
from benchmarks.launches import both, ctc_structs
from jaxctc.core import recursion
from jaxctc.ctc.lattice import CTCTopology, lattice


def by(way: str):
    """Log Z and posteriors of a CTC lattice; `way` says what computes the recursion."""

    def run(topology, scores):
        with jaxctc.kernels.use(way):
            return recursion.posteriors(topology, scores)

    return run


def lattice_structs(name: str) -> tuple[CTCTopology, jax.ShapeDtypeStruct]:
    """Topology and scores of one of the shapes."""
    logits, labels, *lengths = ctc_structs(name)
    made = jax.eval_shape(lambda x, y, t, s: lattice(x, y, t, s, 0), logits, labels, *lengths)
    return made.topology, made.scores


def main():
    from benchmarks.ctc.contestants import optax_loss

    rows, nests, data = [], [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundles.dump_to(folder)
        device = v5e()[0]

        def counted(function, structs) -> Count:
            for path in folder.iterdir():
                path.unlink()
            return bundles.cycles(folder, compiled(function, device, structs).as_text() or "")

        for name in SHAPES:
            found = {way: counted(by(way), lattice_structs(name)) for way in ("kernel", "scan")}
            frames = SHAPES[name].frames
            optax = counted(both(optax_loss), ctc_structs(name))
            found["optax"] = Count(0, tuple(loop for loop in optax.loops if loop[0] == frames))
            data[name] = {
                who: {"cycles": count.total, "by loop": str(count)} for who, count in found.items()
            }
            kernel, scan, peer = (found[who].total for who in ("kernel", "scan", "optax"))
            ratios = [f"**{scan / kernel:.1f}x**", f"{peer / kernel:.1f}x"]
            rows.append([name, kernel, scan, peer, *ratios])
            nests.append([name, str(found["kernel"])])
    header = ["", "kernel", "scan", "optax", "scan to kernel", "optax to kernel"]
    sections = {
        "Cycles of log Z and posteriors": table(header, rows),
        "Cycles of the kernel by loop, rounds × (cycles of a round)": table(["", "cycles"], nests),
    }
    report("cycles", sections, data, timed=False)


if __name__ == "__main__":
    main()
