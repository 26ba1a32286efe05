"""Hashes of label sequences, with which searches find equal ones."""

import jax
import jax.numpy as jnp


def prefix_hash(high: jax.Array, low: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The hash of a prefix, two words, from its parent's hash and its last label."""

    # The finaliser of MurmurHash3 (Appleby 2011), the second time with other factors.
    def mix(x, first, second):
        x = (x ^ (x >> 16)) * jnp.uint32(first)
        x = (x ^ (x >> 13)) * jnp.uint32(second)
        return x ^ (x >> 16)

    label = label.astype(jnp.uint32) + jnp.uint32(1)
    high = mix(high + label * jnp.uint32(0x9E3779B1), 0x85EBCA6B, 0xC2B2AE35)
    return high, mix((low ^ label) + high * jnp.uint32(0x27D4EB2F), 0x7FEB352D, 0x846CA68B)
