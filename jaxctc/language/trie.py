"""Spelled words as a trie in arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Trie(NamedTuple):
    """The prefixes of words, numbered level by level; node 0 is the empty one.

    The children of a node are numbered one after another in the order of their labels. They are
    found by bits: bit `label % 32` of block `label // 32` says whether there is one.
    """

    bits: np.ndarray  # uint32 [nodes, blocks]
    child: np.ndarray  # int32 [nodes, blocks]: the first child in each block
    depth: np.ndarray  # int32 [nodes]: labels from the root
    word: np.ndarray  # int32 [nodes]: a word spelled so, -1 if there is none
    next_word: np.ndarray  # int32 [words' entries]: another word of the same spelling, or -1
    entry: np.ndarray  # int32 [entries]: which word an entry is a spelling of
    node: np.ndarray  # int32 [entries]: where each spelling ends
    parent: np.ndarray  # int32 [nodes]


def build(spellings: Sequence[Sequence[int]], words: Sequence[int], classes: int) -> Trie:
    """The trie of spellings, each that of a word."""
    count = len(spellings)
    lengths = np.fromiter(map(len, spellings), np.int64, count)
    longest = int(lengths.max(initial=1))
    table = np.full((count, longest), -1, np.int32)
    flat = np.fromiter((label for labels in spellings for label in labels), np.int32)
    table[np.arange(longest)[None, :] < lengths[:, None]] = flat
    order = np.lexsort(table.T[::-1])
    table, lengths = table[order], lengths[order]

    changed = np.ones(count, bool)  # does the prefix differ from that of the word before?
    changed[1:] = False
    node = np.zeros(count, np.int64)  # of each word's prefix so far
    end = np.zeros(count, np.int64)
    parents, labels, depths, total = [np.zeros(1, np.int64)], [np.zeros(1, np.int32)], [1], 1
    for level in range(longest):
        column = table[:, level]
        changed[1:] |= column[1:] != column[:-1]
        inside = column >= 0
        first = np.flatnonzero(changed & inside)
        parents.append(node[first])
        labels.append(column[first])
        depths.append(len(first))
        number = total - 1 + np.cumsum(changed & inside)
        node = np.where(inside, number, node)
        end = np.where(level == lengths - 1, node, end)
        total += len(first)
    parent, label = np.concatenate(parents), np.concatenate(labels)
    blocks = (classes + 31) // 32
    bits = np.zeros((total, blocks), np.uint32)
    np.bitwise_or.at(
        bits, (parent[1:], label[1:] // 32), np.uint32(1) << (label[1:] % 32).astype(np.uint32)
    )
    child = np.full((total, blocks), total, np.int64)
    np.minimum.at(child, (parent[1:], label[1:] // 32), np.arange(1, total))

    word = np.full(total, -1, np.int32)
    next_word = np.full(count, -1, np.int32)
    own = np.empty(count, np.int64)
    own[order] = end
    for entry in range(count - 1, -1, -1):  # so that lists begin with the first of equal words
        next_word[entry], word[own[entry]] = word[own[entry]], entry
    return Trie(
        bits,
        child.astype(np.int32),
        np.repeat(np.arange(len(depths)), depths).astype(np.int32),
        word,
        next_word,
        np.asarray(words, np.int32),
        own.astype(np.int32),
        parent.astype(np.int32),
    )


def best_below(trie: Trie, score: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """For each node, the best of the scores ``[entries]`` of spellings at or below it.

    On the host, unless the scores are an array of jax, which may be traced.
    """
    best = (jnp if isinstance(score, jax.Array) else np).full(len(trie.depth), -np.inf, np.float32)
    best = _raised(best, trie.node, score)
    ends = np.cumsum(np.bincount(trie.depth))
    for first, last in zip(ends[-2::-1], ends[:0:-1], strict=True):  # deepest level first
        best = _raised(best, trie.parent[first:last], best[first:last])
    return best


def _raised(best, place: np.ndarray, score):
    if isinstance(best, jax.Array):
        return best.at[place].max(score)
    np.maximum.at(best, place, score)
    return best
