"""Gradients of parameters that are added up in a loop, whatever a function does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxctc.core import shares
from jaxctc.core.products import accumulated

KERNEL, BIAS, X = (
    np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for shape in ((6, 8), (1, 1, 8), (5, 2, 3, 6))
)

PLACES = jnp.arange(8)[::-1]

HEADS = {
    "kernel and bias": lambda k, b: lambda x: x @ k + b,
    "kernel from the right": lambda k, b: lambda x: jnp.einsum("dc,btd->btc", k, x) + b,
    "transposed kernel": lambda k, b: lambda x: jnp.einsum("btd,cd->btc", x, k.T) + b,
    "reshaped kernel": lambda k, b: lambda x: x @ (k.reshape(8, 6).T) + b,
    "half precision": lambda k, b: (
        lambda x: (x.astype(jnp.bfloat16) @ k.astype(jnp.bfloat16)).astype(jnp.float32) + b
    ),
    "jitted": lambda k, b: jax.jit(lambda x: jnp.tanh(x) @ k + b),
    "jitted, parameters given": lambda k, b: lambda x: jax.jit(lambda k, x: x @ k + b)(k, x),
    "kernel twice": lambda k, b: lambda x: jax.nn.relu(x @ k @ k.T) @ k + b * k.sum(),
    "checkpointed": lambda k, b: jax.checkpoint(lambda x: jnp.sin(x) @ k + b),
    "a loop": lambda k, b: (
        lambda x: lax.fori_loop(0, 3, lambda _, y: y + jnp.sin(x @ k), x @ k) + b
    ),
    "no parameter": lambda k, b: lambda x: jnp.sin(x),
    "an integer parameter": lambda k, b: lambda x: jnp.take(x @ k, PLACES, axis=-1) + b,
    "the kernel itself": lambda k, b: lambda x: x.sum() * k[None] + b,
}


def chunked(head, xs):
    start, call = accumulated(head, xs[0])
    return lax.scan(call, start, xs)[1]


def together(head, xs):
    return jnp.stack([head(x) for x in xs])


@pytest.mark.parametrize("block", [8, 10**6])
@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_those_of_the_function(name, block, monkeypatch):
    monkeypatch.setattr(shares, "BLOCK", block)

    def run(apply):
        def outputs(kernel, bias, xs):
            return apply(HEADS[name](kernel, bias), xs)

        @jax.jit
        def both(*arguments):
            y, pullback = jax.vjp(outputs, *arguments)
            return y, pullback(jnp.cos(y)), jax.jvp(outputs, arguments, arguments)[1]

        return both(KERNEL, BIAS, X)

    tolerance = 2e-2 if name == "half precision" else 2e-5
    for got, want in zip(
        jax.tree.leaves(run(chunked)), jax.tree.leaves(run(together)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=5 * tolerance)


def test_a_frozen_head_and_frozen_features():
    for argnums in ((0, 1), 2, 0):

        def run(apply, argnums=argnums):
            def total(kernel, bias, xs):
                return jnp.sin(apply(HEADS["kernel and bias"](kernel, bias), xs)).sum()

            return jax.jit(jax.grad(total, argnums))(KERNEL, BIAS, X)

        for got, want in zip(
            jax.tree.leaves(run(chunked)), jax.tree.leaves(run(together)), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_shares_of_half_precision_are_added_in_float32():
    """A thousand shares of which each alone is too small to change the sum in bfloat16."""
    kernel, xs = jnp.ones((1, 1), jnp.bfloat16), jnp.ones((1000, 1, 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda k: chunked(lambda x: x @ k, xs).astype(jnp.float32).sum())(kernel)
    assert gradient.dtype == jnp.bfloat16
    assert gradient == 1000
