"""Memory of loss and gradient, besides their input and output.

    python -m benchmarks.ctc.memory

XLA's own figure for the compiled program (`memory_analysis`): temporary memory, that is, without
logits and gradient. In float32, and with bfloat16 logits.
"""

import jax
import jax.numpy as jnp

from benchmarks.common import SHAPES, random_batch, report, table
from benchmarks.ctc.contestants import JAX_LOSSES, jax_functions

MIB = 2**20


def temporary(loss, shape, dtype):
    """Bytes of temporary memory of loss and gradient."""
    logits, *rest = random_batch(shape)
    structs = [
        jax.ShapeDtypeStruct(logits.shape, dtype),
        *[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in rest],
    ]
    compiled = jax_functions(loss)[1].lower(*structs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main():
    sections, data = {}, {}
    for dtype in (jnp.float32, jnp.bfloat16):
        rows = []
        for name, shape in SHAPES.items():
            ours, theirs = (temporary(JAX_LOSSES[n], shape, dtype) for n in ("jaxctc", "optax"))
            frames, batch, classes, labels = shape
            gradient = batch * frames * classes * 4
            lattice = batch * frames * (labels + 1) * 4
            rows.append(
                [
                    name,
                    ours / MIB,
                    theirs / MIB,
                    f"1/{theirs / ours:.1f}",
                    gradient / MIB,
                    lattice / MIB,
                ]
            )
            data[f"{name}, {dtype.__name__}"] = {"jaxctc": ours, "optax": theirs}
        sections[f"{dtype.__name__} logits, temporary memory in MiB"] = table(
            ["", "jaxctc", "optax", "share", "B·T·C floats", "B·T·(S+1) floats"], rows
        )
    report("ctc.memory", sections, data)


if __name__ == "__main__":
    main()
