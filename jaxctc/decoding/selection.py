"""The best of many: which W of N candidates a beam keeps."""

import jax
import jax.numpy as jnp
from jax import lax


def best(rank: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """The `width` best values of ``[B, N]`` and their places, in any order; of equals the first.

    `lax.top_k` of a CPU is slow where W is above some hundred. There, the least value that stays is
    found bit by bit instead, each time by counting how many are above it, and the places by
    counting bits.

    Args:
      rank: float ``[B, N]``; NaN counts as ``-inf``.
      width: W, at most N.
    """

    def by_ranking(x) -> tuple[jax.Array, jax.Array]:
        value, place = lax.top_k(jnp.where(jnp.isnan(x), -jnp.inf, x), width)
        return value, place

    if width <= 512:
        return by_ranking(rank)
    value, place = lax.platform_dependent(
        rank, cpu=lambda x: by_counting(x, width), default=by_ranking
    )
    return value, place


def few_of_many(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` of one long axis, by way of groups: a few best are in a few of these.

    Faster on a CPU, where `lax.top_k` sorts; a maximum is vectorised. Groups must be of one size,
    since padding would take longer than sorting.
    """
    fitting = [n for n in range(2, x.size // count + 1) if x.size % n == 0]
    group = min(fitting, key=lambda n: n + x.size / n / count, default=1)
    groups = x.size // group
    if group == 1 or groups <= count:
        return lax.top_k(x, count)
    grouped = x.reshape(groups, group)
    _, place = lax.top_k(jnp.max(grouped, axis=1), count)
    place = jnp.sort(place)  # so that the first of equals stays the first
    value, cell = lax.top_k(grouped[place].reshape(count * group), count)
    return value, place[cell // group] * group + cell % group


def by_counting(rank: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """`best`, by counting."""
    batch, count = rank.shape
    key = _ordered(rank)
    key = jnp.pad(key, [(0, 0), (0, -count % 32)])
    size, bits = key.shape[1], key.dtype.itemsize * 8
    one = jnp.ones((), key.dtype)

    def narrow(i, least):
        higher = least | (one << (bits - 1 - i).astype(key.dtype))
        enough = jnp.sum(key >= higher[:, None], axis=1, dtype=jnp.int32) >= width
        return jnp.where(enough, higher, least)

    least = lax.fori_loop(0, bits, narrow, jnp.zeros_like(key[:, 0]))[:, None]
    # Those above the least that stays, and after them those that equal it.
    flags = jnp.concatenate([key > least, key == least], axis=1)
    words = flags.reshape(batch, 2 * size // 32, 32).astype(jnp.uint32)
    words = words << jnp.arange(32, dtype=jnp.uint32)[None, None, :]
    words = words.sum(axis=2, dtype=jnp.uint32)
    ends = jnp.cumsum(lax.population_count(words).astype(jnp.int32), axis=1)
    nth = jnp.arange(width, dtype=jnp.int32)

    def find(words, ends):
        place = jnp.searchsorted(ends, nth, side="right", method="scan_unrolled")
        word = words[place]
        return place, _nth_bit(
            word, nth - ends[place] + lax.population_count(word).astype(jnp.int32)
        )

    place, bit = jax.vmap(find)(words, ends)
    winner = ((place * 32).astype(jnp.int32) + bit) % size
    winner = jnp.minimum(winner, count - 1)  # padding, where nothing exists
    return jnp.take_along_axis(rank, winner, axis=1), winner


def _ordered(x: jax.Array) -> jax.Array:
    """Unsigned integers that are ordered as floating-point numbers are."""
    x = jnp.where(jnp.isnan(x), -jnp.inf, x)
    unsigned = jnp.dtype(f"uint{x.dtype.itemsize * 8}")
    bits = lax.bitcast_convert_type(x, unsigned)
    sign = jnp.array(1, unsigned) << (x.dtype.itemsize * 8 - 1)
    return jnp.where(bits & sign != 0, ~bits, bits | sign)


def _nth_bit(word: jax.Array, nth: jax.Array) -> jax.Array:
    """The place of the n-th bit of a word that is set, n from 0."""
    place = jnp.zeros_like(nth)
    for width in (16, 8, 4, 2, 1):
        below = lax.population_count(word & jnp.uint32((1 << width) - 1)).astype(jnp.int32)
        beyond = nth >= below
        nth = jnp.where(beyond, nth - below, nth)
        word = jnp.where(beyond, word >> width, word)
        place = jnp.where(beyond, place + width, place)
    return place
