"""Functions of logits sharded over classes, and what their programs send between devices."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxctc

B, T, C, S, D = 4, 48, 1024, 7, 16  # sequences, frames, classes, labels, features

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def with_gradients(loss: Callable, *numbers: int) -> Callable:
    """The losses and the gradients of their sum with respect to some arguments."""

    def run(*arrays):
        def total(chosen):
            given = dict(enumerate(arrays)) | dict(zip(numbers, chosen, strict=True))
            losses = loss(*given.values())
            return losses.sum(), losses

        chosen = tuple(arrays[i] for i in numbers)
        gradients, losses = jax.grad(total, has_aux=True)(chosen)
        return losses, gradients

    return run


class Case(NamedTuple):
    """A function, its arguments, how they are sharded, and how many numbers a message may have."""

    call: Callable
    arrays: tuple
    specs: tuple
    most: int


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _from_features(features, kernel, bias, *pair):
    return jaxctc.ctc_loss_from_features(
        lambda x: x @ kernel + bias[None, None], features, *pair, frames_per_chunk=T // 4
    )


LABELS = np.random.default_rng(1).integers(1, C, (B, S)).astype(np.int32)
PAIR = (LABELS, np.array([T, 40, 30, 33], np.int32), np.array([S, 3, 0, 5], np.int32))
PAIR_SPECS = (P("data"), P("data"), P("data"))
LOGITS, CLASSES = _random(B, T, C), P("data", None, "model")
SCORES = B * T * (S + 1)  # the log-probabilities that a lattice reads

CASES = {
    "ctc_loss": Case(
        with_gradients(jaxctc.ctc_loss, 0), (LOGITS, *PAIR), (CLASSES, *PAIR_SPECS), SCORES
    ),
    "ctc_loss_from_features": Case(
        with_gradients(_from_features, 0, 1, 2),
        (_random(B, T, D), _random(D, C), _random(C), *PAIR),
        (P("data"), P(None, "model"), P("model"), *PAIR_SPECS),
        max(SCORES, D * C // 2),  # the gradient of the kernel, of half the classes
    ),
    "rnnt_loss": Case(
        with_gradients(jaxctc.rnnt_loss, 0),
        (_random(B, T, S + 1, C), *PAIR),
        (P("data", None, None, "model"), *PAIR_SPECS),
        SCORES,
    ),
    "forced_align": Case(jaxctc.forced_align, (LOGITS, *PAIR), (CLASSES, *PAIR_SPECS), SCORES),
    "ctc_greedy_decode": Case(
        jaxctc.ctc_greedy_decode, (LOGITS, PAIR[1]), (CLASSES, P("data")), 4 * B * T
    ),  # a best class of each frame from each of up to four devices
}


def messages(program: str) -> list[tuple[str, int]]:
    """What a compiled program sends between devices: the operation, and how many numbers."""
    found = []
    for shapes, name in re.findall(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", program):
        sizes = re.findall(r"\b[a-z]+[0-9]+\[([0-9,]*)\]", shapes)
        found += [(name, math.prod(int(n) for n in size.split(",") if n)) for size in sizes]
    return found


def check(case: Case, program: jax.stages.Compiled, mesh) -> None:
    """Logits are never sent, nor anything of their size, and gradients stay where they are."""
    sent = messages(program.as_text())
    assert sent, "nothing is sent: the classes are not sharded"
    logits = B * T * C // mesh.size
    assert max(n for _, n in sent) <= case.most < logits, sent
    assert not [name for name, _ in sent if name == "reduce-scatter"], sent
    if isinstance(program.output_shardings, tuple) and len(program.output_shardings) == 2:
        for sharding, spec in zip(program.output_shardings[1], case.specs, strict=False):
            assert sharding.is_equivalent_to(NamedSharding(mesh, spec), len(spec)), sharding


def compiled(case: Case, mesh) -> jax.stages.Compiled:
    """The checked program for the devices of a mesh, which need not exist."""
    with jax.set_mesh(mesh):
        arguments = [
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
            for x, spec in zip(case.arrays, case.specs, strict=True)
        ]
        program = jax.jit(case.call).lower(*arguments).compile()
    check(case, program, mesh)
    return program


def run(case: Case, mesh) -> None:
    """The program on the devices of a mesh computes what one device does."""
    shardings = [NamedSharding(mesh, spec) for spec in case.specs]
    found = compiled(case, mesh)(*jax.device_put(list(case.arrays), shardings))
    wanted = jax.jit(case.call)(*case.arrays)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
