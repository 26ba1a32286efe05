"""Every function that runs as a kernel, on the GPU, against the scan on the CPU."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from benchmarks.common import Shape, random_batch
from benchmarks.gpu.parts import Notes
from benchmarks.launches import TRANSDUCERS, with_gradient


class Case(NamedTuple):
    """A function, and how near its values must be, relative to numbers above 1."""

    name: str
    function: Callable
    arguments: tuple
    tolerance: float = 1e-5
    kernel: bool = True  # whether it must launch kernels; else it must be the scan
    alike: bool = False  # made like another case: a dry run leaves it out


def compare_all(notes: Notes):
    """A row for each case, as it is done; several are compiled at once."""
    with ThreadPoolExecutor(1 if notes.tiny else 8) as pool:
        # An interpreter of kernels runs while it is traced: one at a time.
        jobs = {
            pool.submit(compare, notes, case): case
            for case in cases(notes)
            if not (notes.tiny and case.alike)
        }
        for job in as_completed(jobs):
            notes.attempt(job.result, case=jobs[job].name)


def compare(notes: Notes, case: Case) -> dict:
    """How far the kernel's values are from the scan's."""
    cpu = jax.devices("cpu")[0]
    arguments = jax.device_put(tuple(map(jnp.asarray, case.arguments)))
    with notes.choose("kernel"):
        program = jax.jit(case.function).lower(*arguments).compile()
    here = jax.device_put(arguments, cpu)
    with jaxctc.kernels.use("scan"), jax.default_device(cpu):
        want = jax.jit(case.function)(*here)
    counts = notes.kernels(program)
    error, others = difference(program(*arguments), want)
    found = {**counts, "largest error": error, "tolerance": case.tolerance}
    found["other integers"] = others
    if case.kernel and found["kernels"] == 0:
        return {**found, "right": False, "error": "The program has no kernel: it is the scan."}
    if not case.kernel and found["kernels"]:
        return {**found, "right": False, "error": "The program should be the scan."}
    return {**found, "right": bool(error <= case.tolerance and others == 0)}


def difference(found, want) -> tuple[float, int]:
    """The largest difference of numbers, relative above 1; and how many integers differ."""
    error, others = 0.0, 0
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if jnp.issubdtype(y.dtype, jnp.integer):
            others += int((x != y).sum())
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        with np.errstate(invalid="ignore"):
            here = np.abs(x - y) / np.maximum(1, np.abs(y))
        here = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, here)
        # A number on one side only is as wrong as can be.
        error = max(error, float(np.nan_to_num(here, nan=np.inf).max(initial=0)))
    return error, others


def cases(notes: Notes) -> Iterator[Case]:
    """What is compared, the most important first."""
    loss = with_gradient(jaxctc.ctc_loss)
    for name, shape in notes.shapes.items():
        batch = random_batch(shape)
        batch.logit_lengths[0] = 1  # infeasible: loss inf, gradient 0
        yield Case(f"{name}, gradient", loss, batch, 5e-5 if shape.frames > 1000 else 1e-5)
    batch = random_batch(notes.shapes["plates" if notes.tiny else "BPE speech"])
    yield Case("loss alone", jaxctc.ctc_loss, batch, alike=True)
    for name, monotonic in TRANSDUCERS.items():
        loss = with_gradient(partial(jaxctc.rnnt_loss, monotonic=monotonic))
        yield Case(f"transducer, {name}, gradient", loss, notes.transducer(), alike=not monotonic)
    yield from _other_functions(notes, batch)
    yield from _other_sizes(notes, batch)
    yield from _derivatives(notes)


def _other_functions(notes: Notes, batch) -> Iterator[Case]:
    yield Case("forced_align", jaxctc.forced_align, batch)
    yield Case("ctc_posteriors", jaxctc.ctc_posteriors, batch)
    few = with_gradient(partial(jaxctc.rnnt_loss, max_symbols=2))
    yield Case("max_symbols, gradient", few, notes.transducer(), alike=True)

    def of_arcs(function):
        def run(logits, labels, *lengths):
            arcs = jaxctc.rnnt_log_probs(logits, labels, *lengths)
            return function(*arcs, *lengths)

        return run

    skipping = with_gradient(of_arcs(jaxctc.w_transducer_loss))
    yield Case("w_transducer_loss, gradient", skipping, notes.transducer())
    yield Case("rnnt_align", of_arcs(jaxctc.rnnt_align), notes.transducer())
    posteriors = of_arcs(jaxctc.rnnt_posteriors)
    yield Case("rnnt_posteriors", posteriors, notes.transducer(), alike=True)


def _other_sizes(notes: Notes, batch) -> Iterator[Case]:
    """Half precision, many frames, and as many labels as the kernel takes, and one more."""
    loss = with_gradient(jaxctc.ctc_loss)
    half = jnp.asarray(batch.logits).astype(jnp.bfloat16), *batch[1:]
    yield Case("bfloat16, gradient", loss, half, 8e-3)  # the gradient's last bit
    if notes.tiny:  # an interpreter would take minutes
        return
    yield Case("20 000 frames, gradient", loss, random_batch(Shape(20_000, 1, 32, 900)), 1e-4)
    for labels, kernel in ((1023, True), (1024, False)):
        batch = random_batch(Shape(1500, 2, 64, labels))
        batch.label_lengths[0], batch.logit_lengths[0] = labels, 1500
        yield Case(f"{labels} labels, gradient", loss, batch, 5e-5, kernel)


def _derivatives(notes: Notes) -> Iterator[Case]:
    logits, *pair = random_batch(notes.shapes["plates"])
    arguments = logits[:8], *(x[:8] for x in pair)

    def remat(*arguments):
        return jax.checkpoint(jaxctc.ctc_loss)(*arguments)

    def total(logits, *pair):
        return jaxctc.ctc_loss(logits, *pair).sum()

    def mapped(logits, *pair):
        return jax.vmap(lambda x: jaxctc.ctc_loss(x, *pair), 1)(jnp.stack([logits, -logits], 1))

    def forward(logits, *pair):
        return jax.jvp(lambda x: total(x, *pair), (logits,), (jnp.sin(logits),))

    def hessian_vector(logits, *pair):
        return jax.jvp(jax.grad(lambda x: total(x, *pair)), (logits,), (jnp.sin(logits),))

    if not notes.tiny or notes.interpreter == "tpu":
        # The interpreter of GPU kernels has effects, which rematerialisation does not take.
        yield Case("remat, gradient", with_gradient(remat), arguments)
    yield Case("mapped axis, gradient", with_gradient(mapped), arguments)
    yield Case("forward mode", forward, arguments, alike=True)
    yield Case("hessian times vector", hessian_vector, arguments, kernel=False)
