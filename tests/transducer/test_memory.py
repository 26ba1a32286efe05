"""Temporary memory of the compiled transducer losses and gradients. Nothing is run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import memory_of_new_jax

import jaxctc


def temporary(loss, structs, argnums=0):
    """Bytes that the compiled loss and its gradients need besides what goes in and out."""
    gradients = jax.jit(jax.value_and_grad(lambda *x: loss(*x).sum(), argnums))
    return gradients.lower(*structs).compile().memory_analysis().temp_size_in_bytes


@memory_of_new_jax
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(4, 200, 50, 500), (8, 100, 20, 128)], ids=str)
def test_the_loss_needs_little_beside_its_logits(shape, dtype):
    batch, frames, spoken, classes = shape
    logits = jax.ShapeDtypeStruct((batch, frames, spoken + 1, classes), dtype)
    labels = jax.ShapeDtypeStruct((batch, spoken), jnp.int32)
    used = temporary(jaxctc.rnnt_loss, (logits, labels))
    assert used < 0.25 * logits.size * logits.dtype.itemsize


def test_memory_of_the_joint_in_chunks_does_not_grow_as_the_logits_do():
    spoken, classes = 50, 500

    def used(frames):
        floats = [(4, frames, classes), (4, spoken + 1, classes)]
        structs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in floats]
        labels = np.ones((4, spoken), np.int32)
        loss = lambda e, p: jaxctc.rnnt_loss_from_joint(jnp.add, e, p, labels)  # noqa: E731
        return temporary(loss, structs, argnums=(0, 1))

    once, four_times = used(100), used(400)
    logits = 4 * 4 * 400 * (spoken + 1) * classes
    assert four_times < logits / 10
    assert four_times < 2.5 * once
