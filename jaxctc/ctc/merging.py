"""Which prefixes of a beam are longer by one label than others of it."""

import jax
import jax.numpy as jnp

from jaxctc.decoding.hashing import prefix_hash

ROUNDS = 4


def parents(
    length: jax.Array,
    own: tuple[jax.Array, jax.Array],
    parent: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """For each prefix of a beam, the place of its parent, the prefix without its last label.

    Up to a width of 128 all pairs are compared. Beyond, prefixes are written into a table at
    places that their hashes tell, and the parents are looked up there: time grows with W. Where
    two prefixes meet in one place the first stays, and the other goes to the next of four tables,
    each with another hash. With four times as many places as prefixes, a prefix without a place in
    any is rare: at W = 1024 in fewer than one of 10**10 frames. Its children are then not merged.

    Args:
      length: int32 ``[B, W]``; none in empty places, by a large negative number.
      own: Two words of hash, uint32 ``[B, W]``, of each prefix.
      parent: The hashes of their parents.

    Returns:
      int32 ``[B, W]``, -1 where the parent is not in the beam.
    """
    batch, width = length.shape
    if width <= 128:
        return _by_pairs(length, own, parent)
    bits = (4 * width - 1).bit_length()
    row = jnp.arange(batch, dtype=jnp.int32)[:, None]
    place = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None, :], length.shape)
    waiting = length >= 0
    found = jnp.full_like(length, -1)
    for turn in range(ROUNDS):
        slot, wanted = (_slot(words, turn, bits) for words in (own, parent))
        table = jnp.full_like(length, width, shape=(batch, 1 << bits))
        table = table.at[row, jnp.where(waiting, slot, 1 << bits)].min(place, mode="drop")
        waiting &= jnp.take_along_axis(table, slot, axis=1) != place
        candidate = jnp.take_along_axis(table, wanted, axis=1)
        at = jnp.minimum(candidate, width - 1)
        equal = jnp.take_along_axis(length, at, axis=1) + 1 == length
        for mine, theirs in zip(own, parent, strict=True):
            equal &= jnp.take_along_axis(mine, at, axis=1) == theirs
        found = jnp.where(equal & (candidate < width), candidate, found)
    return found


def _by_pairs(length, own, parent) -> jax.Array:
    is_parent = length[:, :, None] + 1 == length[:, None, :]
    for mine, theirs in zip(own, parent, strict=True):
        is_parent &= mine[:, :, None] == theirs[:, None, :]
    place = jnp.arange(length.shape[1], dtype=jnp.int32)[None, :, None]
    return jnp.max(jnp.where(is_parent, place, -1), axis=1)


def _slot(words: tuple[jax.Array, jax.Array], turn: int, bits: int) -> jax.Array:
    high, _ = prefix_hash(*words, jnp.full_like(words[0], turn))
    return (high >> (32 - bits)).astype(jnp.int32)
