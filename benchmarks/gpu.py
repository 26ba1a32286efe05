"""Everything about the losses on a GPU, in 8 minutes: right, fast, and with how much memory.

python benchmarks/gpu.py                  # all parts, in order of importance
python benchmarks/gpu.py --part kernel    # only this one, in this process
python benchmarks/gpu.py --tiny           # a dry run, on any machine

Each part is a process with a time limit of its own, and appends its results to a file of JSON lines
as it goes, so that what is done is kept. It needs jax for CUDA and optax; peers that are not
installed are noted as such. `benchmarks/launches.py` tells what the compiler says without a GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # a command knows the modules of its own directory only
os.environ.setdefault("JAX_PLATFORMS", "cpu" if "--tiny" in sys.argv else "cuda,cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import jaxctc  # noqa: E402
from benchmarks import common  # noqa: E402
from benchmarks.chips import temporary_bytes  # noqa: E402
from benchmarks.launches import TRANSDUCERS, both  # noqa: E402
from jaxctc.core import recursion  # noqa: E402

TINY_SHAPES = {"plates": common.Shape(6, 9, 8, 3), "BPE speech": common.Shape(50, 2, 9, 5)}
COMMAND_BUFFERS = (
    "--xla_gpu_enable_command_buffer=FUSION,CUSTOM_CALL,WHILE --xla_gpu_graph_min_graph_size=1"
)


class Notes:
    """Results, printed and appended to a file one by one."""

    def __init__(self, path: str, part: str, tiny: bool):
        self.path, self.part, self.tiny = path, part, tiny
        self.shapes = TINY_SHAPES if tiny else common.SHAPES

    def row(self, **found):
        flags = os.environ.get("XLA_FLAGS", "")
        text = json.dumps({"part": self.part, **found, **({"flags": flags} if flags else {})})
        print(text, flush=True)
        with open(self.path, "a") as file:
            file.write(text + "\n")

    def attempt(self, function: Callable[[], dict], **about):
        """A row of what a function finds, or of why it does not."""
        try:
            found = function()
        except Exception as error:  # a peer that fails is a result too
            found = {"error": f"{type(error).__name__}: {error}"[:400]}
        self.row(**about, **found)

    def transducer(self):
        """Logits, labels and lengths."""
        sequences, frames, labels, classes = (2, 6, 3, 5) if self.tiny else (4, 200, 50, 500)
        generator = np.random.default_rng(0)
        return (
            generator.standard_normal((sequences, frames, labels + 1, classes), np.float32),
            generator.integers(1, classes, (sequences, labels), np.int32),
            np.full(sequences, frames, np.int32),
            np.full(sequences, labels, np.int32),
        )


def milliseconds(function: Callable[[], object], wait: Callable[[object], object]) -> float:
    """The median of up to 20 calls, for at most 6 seconds."""
    wait(function())
    times, end = [], time.monotonic() + 6
    while len(times) < 20 and (len(times) < 3 or time.monotonic() < end):
        start = time.perf_counter()
        wait(function())
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def timed(loss: Callable, way: str, arguments) -> dict:
    """Of a loss of JAX: times, temporary memory, and how long it takes to compile."""
    arguments = jax.device_put(tuple(arguments))

    def alone(*arguments):
        with jaxctc.kernels.use(way):
            return loss(*arguments)

    start = time.perf_counter()
    gradient = jax.jit(both(loss, way)).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    forward = jax.jit(alone).lower(*arguments).compile()
    return {
        "loss and gradient": milliseconds(lambda: gradient(*arguments), common.finished),
        "loss": milliseconds(lambda: forward(*arguments), common.finished),
        "temporary MiB": temporary_bytes(gradient) / 2**20,
        "compile seconds": seconds,
    }


def correct(notes: Notes):
    """Kernels against the scan on the CPU: the largest errors of losses and gradients."""
    cpu = jax.devices("cpu")[0]
    cases: dict[str, tuple[Callable, tuple]] = {
        name: (jaxctc.ctc_loss, common.random_batch(s)) for name, s in notes.shapes.items()
    }
    for name, monotonic in TRANSDUCERS.items():

        def loss(*arguments, monotonic=monotonic):
            return jaxctc.rnnt_loss(*arguments, monotonic=monotonic)

        cases[f"transducer, {name}"] = (loss, notes.transducer())
    for name, (loss, arguments) in cases.items():

        def compare(loss=loss, arguments=arguments):
            found = jax.jit(both(loss, "kernel"))(*arguments)
            with jax.default_device(cpu):
                want = jax.jit(both(loss, "scan"))(*jax.device_put(tuple(arguments), cpu))
            (losses, gradient), (want, want_gradient) = (map(np.asarray, x) for x in (found, want))
            return {
                "loss error": float(np.max(np.abs(losses - want) / np.maximum(1, want))),
                "gradient error": float(np.max(np.abs(gradient - want_gradient))),
                "device": jax.devices()[0].device_kind,
            }

        notes.attempt(compare, case=name)


def jax_losses(notes: Notes, contestants: dict[str, str]):
    """Times of JAX's losses on all shapes; values say what computes the recursion."""
    from benchmarks.ctc.contestants import JAX_LOSSES

    for shape, sizes in notes.shapes.items():
        batch = common.random_batch(sizes)
        for name, way in contestants.items():
            loss = JAX_LOSSES["optax" if name == "optax" else "jaxctc"]
            notes.attempt(lambda f=loss, w=way, b=batch: timed(f, w, b), shape=shape, name=name)


def unrolled(notes: Notes):
    """The scan with four frames per round of its inner loop."""
    recursion.UNROLL = {jax.default_backend(): 4}
    jax_losses(notes, {"scan, unrolled": "scan"})


def torch_times(total: Callable, leaf) -> dict:
    """Of a loss of torch, and of its gradient with respect to `leaf`."""
    import torch

    cuda = leaf.is_cuda

    def gradient():
        leaf.grad = None
        total().backward()

    def alone():
        with torch.no_grad():
            return total()

    def wait(_):
        return torch.cuda.synchronize() if cuda else None

    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    found = {"loss and gradient": milliseconds(gradient, wait), "loss": milliseconds(alone, wait)}
    if cuda:
        found["peak MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


def torch_losses(notes: Notes):
    """torch's own kernels, and cuDNN's, which takes all frames and targets on the CPU only."""

    def run(batch, cudnn):
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        logits = torch.tensor(batch.logits.transpose(1, 0, 2).copy(), device=device)
        logits.requires_grad_()
        labels, frames, lengths = (torch.tensor(x, dtype=torch.int32) for x in batch[1:])
        if cudnn:
            frames = torch.full_like(frames, len(logits))
            labels = torch.cat([y[:n] for y, n in zip(labels, lengths, strict=True)])
        else:
            labels, frames, lengths = (x.long().to(device) for x in (labels, frames, lengths))

        def total():
            with torch.backends.cudnn.flags(enabled=cudnn):
                return torch.nn.functional.ctc_loss(
                    logits.log_softmax(2), labels, frames, lengths, reduction="sum"
                )

        return torch_times(total, logits)

    for shape, sizes in notes.shapes.items():
        batch = common.random_batch(sizes)
        for name, cudnn in {"torch": False, "torch, cuDNN": True}.items():
            notes.attempt(lambda b=batch, c=cudnn: run(b, c), shape=shape, name=name)


def transducers(notes: Notes):
    """The transducer loss by kernel and scan, and torchaudio's."""
    arguments = notes.transducer()
    for way in ("kernel", "scan"):
        notes.attempt(lambda w=way: timed(jaxctc.rnnt_loss, w, arguments), name=way)

    def peer():
        import torch
        from torchaudio.functional import rnnt_loss

        device = "cuda" if torch.cuda.is_available() else "cpu"
        logits = torch.tensor(arguments[0], device=device, requires_grad=True)
        rest = [torch.tensor(x, device=device) for x in arguments[1:]]
        return torch_times(lambda: rnnt_loss(logits, *rest, blank=0, reduction="sum"), logits)

    notes.attempt(peer, name="torchaudio")


def decoding(notes: Notes):
    """Greedy and beam decoding of one shape."""
    batch = common.random_batch(notes.shapes["BPE speech"])
    logits, lengths = jnp.asarray(batch.logits), jnp.asarray(batch.logit_lengths)
    functions = {"greedy": jaxctc.ctc_greedy_decode, "beam": jaxctc.ctc_beam_search}
    for name, function in functions.items():
        decode = jax.jit(function)
        notes.attempt(
            lambda f=decode: {"ms": milliseconds(lambda: f(logits, lengths), common.finished)},
            name=name,
        )


# What runs, and for how many seconds at most.
PARTS: dict[str, tuple[Callable[[Notes], None], int]] = {
    "correct": (correct, 80),
    "kernel": (lambda notes: jax_losses(notes, {"kernel": "kernel"}), 70),
    "torch": (torch_losses, 50),
    "scan": (lambda notes: jax_losses(notes, {"scan": "scan", "optax": "scan"}), 90),
    "transducers": (transducers, 40),
    "command buffers": (lambda notes: jax_losses(notes, {"kernel": "kernel", "scan": "scan"}), 70),
    "unrolled": (unrolled, 60),
    "decoding": (decoding, 20),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="run one part, in this process")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on the CPU")
    parser.add_argument("--out", default=os.environ.get("OUT", "."), help="folder of the results")
    arguments = parser.parse_args()
    path = str(Path(arguments.out) / "gpu.jsonl")
    if arguments.part:
        PARTS[arguments.part][0](Notes(path, arguments.part, arguments.tiny))
        return
    start = time.monotonic()
    for part, (_, limit) in PARTS.items():
        flags = os.environ.get("XLA_FLAGS", "")
        if part == "command buffers" and not arguments.tiny:
            flags = f"{flags} {COMMAND_BUFFERS}"
        command = [sys.executable, __file__, "--part", part, "--out", arguments.out]
        command += ["--tiny"] if arguments.tiny else []
        try:
            subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, timeout=limit)
        except subprocess.TimeoutExpired:
            print(f"{part} was stopped after {limit} s", flush=True)
        print(f"{part} ended at {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
