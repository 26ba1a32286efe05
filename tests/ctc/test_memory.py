"""Temporary memory of the compiled loss and gradient, at the benchmarks' shapes. Nothing is run."""

import jax
import jax.numpy as jnp
import optax
import pytest
from extras import memory_of_new_jax

import jaxctc

SHAPES = {
    "plates": (18, 256, 68, 8),
    "OCR": (80, 64, 6625, 25),
    "BPE speech": (400, 16, 500, 60),
    "character speech": (1500, 8, 32, 250),
    "single long": (6000, 1, 64, 600),
}


def ours(logits, labels, frames, lengths):
    return jaxctc.ctc_loss(logits, labels, frames, lengths).sum()


def optaxs(logits, labels, frames, lengths):
    def padding(size, lengths):
        return (jnp.arange(size)[None] >= lengths[:, None]).astype(jnp.float32)

    paddings = padding(logits.shape[1], frames), padding(labels.shape[1], lengths)
    return optax.ctc_loss(logits, paddings[0], labels, paddings[1]).sum()


def structs(shape, dtype=jnp.float32):
    frames, batch, classes, labels = shape
    return (
        jax.ShapeDtypeStruct((batch, frames, classes), dtype),
        jax.ShapeDtypeStruct((batch, labels), jnp.int32),
        *[jax.ShapeDtypeStruct((batch,), jnp.int32)] * 2,
    )


def lowered(loss, shape, dtype=jnp.float32):
    return jax.jit(jax.value_and_grad(loss)).lower(*structs(shape, dtype))


def temporary(*arguments):
    return lowered(*arguments).compile().memory_analysis().temp_size_in_bytes


@memory_of_new_jax
@pytest.mark.parametrize("name", SHAPES)
def test_temporary_memory(name):
    frames, batch, classes, labels = SHAPES[name]
    gradient, lattice = 4 * batch * frames * classes, 4 * batch * frames * (labels + 1)
    for dtype in (jnp.float32, jnp.bfloat16):
        used = temporary(ours, SHAPES[name], dtype)
        assert used < gradient + 3.2 * lattice
        if dtype == jnp.float32:
            # A third where there are many frames or classes, and a little less elsewhere.
            assert used < temporary(optaxs, SHAPES[name]) / 3


@memory_of_new_jax
def test_the_gradient_takes_the_place_of_donated_logits():
    frames, batch, classes, _ = SHAPES["OCR"]
    logits = 4 * batch * frames * classes
    donating = jax.jit(jax.value_and_grad(ours), donate_argnums=0)
    memory = donating.lower(*structs(SHAPES["OCR"])).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= logits
    assert memory.temp_size_in_bytes < logits / 30


def test_the_loss_alone_holds_the_scores_once():
    frames, batch, _, labels = SHAPES["character speech"]
    compiled = jax.jit(ours).lower(*structs(SHAPES["character speech"])).compile()
    scores = 4 * batch * frames * (labels + 1)
    assert compiled.memory_analysis().temp_size_in_bytes < 1.1 * scores


def test_the_program_does_not_grow_with_frames():
    """Nor does the time to compile it."""
    frames, *sizes = SHAPES["character speech"]
    lines = [lowered(ours, (n, *sizes)).as_text().count("\n") for n in (frames, 8 * frames)]
    assert lines[0] == lines[1]
