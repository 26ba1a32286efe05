"""The parts that run on the GPU, and what they share: rows, timing, and counting kernels."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from benchmarks import chips, common
from benchmarks.launches import with_gradient
from jaxctc.core import recursion
from jaxctc.core.kernels import choice, dispatch

TINY_SHAPES = {"plates": common.Shape(6, 3, 8, 3)}
# At these the scan is timed with and without command buffers; the kernel at all.
FEW = ("plates", "BPE speech")


class Notes:
    """Takes the rows of a part."""

    def __init__(self, part: str, row: Callable[..., None], tiny: bool, device: str):
        self.part, self.tiny, self.device, self._row = part, tiny, device, row
        self.shapes = TINY_SHAPES if tiny else common.SHAPES
        self.interpreter = "gpu" if dispatch.GPU else "tpu"  # of a dry run

    def row(self, **found):
        flags = os.environ.get("XLA_FLAGS")
        self._row(self.part, device=self.device, **found, **({"flags": flags} if flags else {}))

    def attempt(self, function: Callable[[], dict], **about):
        """A row of what a function finds, or of why it does not."""
        try:
            found = function()
        except Exception as error:  # a peer that fails is a result too
            found = {"error": f"{type(error).__name__}: {error}"[:400]}
        self.row(**about, **found)

    def choose(self, way: str) -> AbstractContextManager[None]:
        """As `jaxctc.kernels.use`; in a dry run kernels are interpreted."""
        if self.tiny and way == "kernel":
            return choice.interpreted(self.interpreter)
        return jaxctc.kernels.use(way)

    def kernels(self, program: jax.stages.Compiled) -> dict:
        """How many kernels a program launches, and how many launches it has in all."""
        if self.tiny:  # an interpreted kernel is many operations
            return {"kernels": None, "interpreter": self.interpreter}
        try:
            total = chips.launches(program).total
        except AssertionError:  # a loop whose rounds are not known
            total = None
        return {"kernels": chips.kernels(program), "launches": total}

    def transducer(self) -> tuple:
        """Logits, labels and lengths."""
        sequences, frames, labels, classes = (2, 6, 3, 5) if self.tiny else (4, 200, 50, 500)
        generator = np.random.default_rng(0)
        return (
            generator.standard_normal((sequences, frames, labels + 1, classes), np.float32),
            generator.integers(1, classes, (sequences, labels), np.int32),
            np.full(sequences, frames, np.int32),
            np.full(sequences, labels, np.int32),
        )


def run(part: str, row: Callable[..., None], tiny: bool):
    """Runs one part; without a GPU it refuses, unless it is `tiny`."""
    try:
        device = jax.devices()[0]
    except RuntimeError:  # jax for CUDA is not installed, or finds no driver
        device = None
    if not tiny and (device is None or device.platform != "gpu"):
        sys.exit("JAX finds no GPU; a run needs one, and `--tiny` is a dry run on a CPU.")
    assert device is not None
    PARTS[part](Notes(part, row, tiny, device.device_kind))


def machine(notes: Notes):
    """What everything was measured with."""

    def said(*command: str) -> str | None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    folder = os.path.dirname(__file__)
    notes.row(
        **common.machine(),
        card=said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        commit=os.environ.get("COMMIT")
        or said("git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=12"),
        memory=jax.devices()[0].memory_stats(),
    )


def milliseconds(function: Callable[[], object], wait: Callable[[object], object]) -> float:
    """The median of up to 20 calls, for at most 2 seconds but for the first three."""
    wait(function())
    times, end = [], time.monotonic() + 2
    while len(times) < 20 and (len(times) < 3 or time.monotonic() < end):
        start = time.perf_counter()
        wait(function())
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


class Contestant(NamedTuple):
    """A loss of JAX; `way` says what computes the recursion."""

    about: dict[str, str]  # what its row begins with
    loss: Callable
    way: str
    arguments: tuple
    alone: bool = True  # whether the loss is timed without its gradient too


def time_losses(notes: Notes, contestants: Iterable[Contestant]):
    """Times, memory, and seconds of compiling.

    All are compiled before the first is timed, several at once: the machine is ours for minutes.
    """

    def compiled(function, way, arguments):
        with notes.choose(way):
            lowered = jax.jit(function).lower(*arguments)
        start = time.perf_counter()
        return lowered.compile(), time.perf_counter() - start

    jobs: list[tuple[Contestant, Any, list]] = []
    with ThreadPoolExecutor(1 if notes.tiny else 8) as pool:
        for each in contestants:
            arguments = jax.device_put(tuple(map(jnp.asarray, each.arguments)))
            functions = [with_gradient(each.loss), *([each.loss] if each.alone else [])]
            programs = [pool.submit(compiled, f, each.way, arguments) for f in functions]
            jobs.append((each, arguments, programs))

    def times(each, arguments, programs) -> dict:
        (gradient, seconds), *alone = [program.result() for program in programs]
        found = notes.kernels(gradient) if each.way == "kernel" else {}
        if found.get("kernels") == 0:
            return {**found, "error": "The program has no kernel: it is the scan."}
        found["loss and gradient"] = milliseconds(lambda: gradient(*arguments), common.finished)
        for program, _ in alone:
            found["loss"] = milliseconds(lambda f=program: f(*arguments), common.finished)
        found["temporary MiB"] = chips.temporary_bytes(gradient) / 2**20
        found["added MiB"] = chips.added_bytes(gradient) / 2**20
        return {**found, "compile seconds": seconds}

    for each, arguments, programs in jobs:
        notes.attempt(lambda x=(each, arguments, programs): times(*x), **each.about)


def ctc_losses(notes: Notes, ways: dict[str, str], shapes: Iterable[str] = (), alone: bool = True):
    """The CTC losses of these names, at all shapes or some; values are their ways."""
    from benchmarks.ctc.contestants import JAX_LOSSES

    time_losses(
        notes,
        [
            Contestant(
                {"shape": shape, "name": name},
                JAX_LOSSES["optax" if name == "optax" else "jaxctc"],
                way,
                common.random_batch(sizes),
                alone,
            )
            for shape, sizes in notes.shapes.items()
            if not shapes or shape in shapes
            for name, way in ways.items()
        ],
    )


def command_buffers(notes: Notes):
    """Kernel and scan with the flags of the part, which turn command buffers on or off."""
    ctc_losses(notes, {"kernel": "kernel"}, alone=False)
    ctc_losses(notes, {"scan": "scan"}, FEW, alone=False)


def unrolled(notes: Notes):
    """The scan with four frames per round of its inner loop."""
    recursion.UNROLL = {jax.default_backend(): 4}
    ctc_losses(notes, {"scan, unrolled": "scan"})


def transducers(notes: Notes):
    """The transducer loss by kernel and scan, and torchaudio's."""
    arguments = notes.transducer()
    time_losses(
        notes,
        [Contestant({"name": x}, jaxctc.rnnt_loss, x, arguments) for x in ("kernel", "scan")],
    )

    def peer():
        from benchmarks.gpu import peers  # needs torch, which may be absent

        return peers.torchaudio_times(arguments)

    notes.attempt(peer, name="torchaudio")


def torch_losses(notes: Notes):
    """torch's own CTC kernels, and cuDNN's."""

    def peer(sizes, cudnn):
        from benchmarks.gpu import peers  # needs torch, which may be absent

        return peers.torch_times(common.random_batch(sizes), cudnn)

    for shape, sizes in notes.shapes.items():
        for name, cudnn in {"torch": False, "torch, cuDNN": True}.items():
            notes.attempt(lambda s=sizes, c=cudnn: peer(s, c), shape=shape, name=name)


def decoding(notes: Notes):
    """Greedy and beam decoding of one shape."""
    batch = common.random_batch(notes.shapes["plates" if notes.tiny else "BPE speech"])
    logits, lengths = jnp.asarray(batch.logits), jnp.asarray(batch.logit_lengths)
    functions = {"greedy": jaxctc.ctc_greedy_decode, "beam": jaxctc.ctc_beam_search}
    for name, function in functions.items():
        decode = jax.jit(function)
        notes.attempt(
            lambda f=decode: {"ms": milliseconds(lambda: f(logits, lengths), common.finished)},
            name=name,
        )


def correct(notes: Notes):
    """Every function that runs as a kernel, against the scan on the CPU."""
    from benchmarks.gpu import correctness

    correctness.compare_all(notes)


PARTS: dict[str, Callable[[Notes], None]] = {
    "machine": machine,
    "correct": correct,
    "kernel": lambda notes: ctc_losses(notes, {"kernel": "kernel"}),
    "torch": torch_losses,
    "transducers": transducers,
    "scan": lambda notes: ctc_losses(notes, {"scan": "scan", "optax": "scan"}),
    "command buffers on": command_buffers,
    "command buffers off": command_buffers,
    "unrolled": unrolled,
    "decoding": decoding,
}
