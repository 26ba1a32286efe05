"""Edit distance and error rates, batched on the device.

The distance (Levenshtein 1966) of the first i labels of the reference to the first j of the
hypothesis is (Wagner and Fischer 1974)::

    D[i, j] = min(D[i-1, j] + 1, D[i, j-1] + 1, D[i-1, j-1] + [reference_i ≠ hypothesis_j])

All cells with the same i + j are independent of each other: a step of the scan computes
a whole anti-diagonal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes


class EditOperations(NamedTuple):
    """How many edits turn a reference into a hypothesis.

    Attributes:
      distance: int32 ``[*batch]``: the fewest edits, the sum of the three others.
      substitutions: int32 ``[*batch]``: labels of the reference that are others in the hypothesis.
      insertions: int32 ``[*batch]``: labels only in the hypothesis.
      deletions: int32 ``[*batch]``: labels only in the reference.
    """

    distance: jax.Array
    substitutions: jax.Array
    insertions: jax.Array
    deletions: jax.Array


def edit_distance(
    hypotheses: checks.ArrayLike,
    references: checks.ArrayLike,
    hypothesis_lengths: checks.ArrayLike | None = None,
    reference_lengths: checks.ArrayLike | None = None,
) -> jax.Array:
    """The fewest insertions, deletions and substitutions between two label sequences.

    Batch axes are broadcast as in numpy: an N-best list ``[B, N, H]`` goes with references
    ``[B, 1, R]``.

    Args:
      hypotheses: integer ``[*batch, H]``.
      references: integer ``[*batch, R]``.
      hypothesis_lengths: integer ``[*batch]``; None means up to the first negative label (the
        padding of `Hypotheses`), or H where there is none.
      reference_lengths: integer ``[*batch]``; None means the same, or R.

    Returns:
      int32 ``[*batch]``. Labels past a length are ignored.

    Raises:
      TypeError: If a dtype is not an integer type.
      ValueError: If shapes do not fit, or concrete lengths are out of range.

    Examples:
      >>> import jaxctc
      >>> print(jaxctc.edit_distance([[1, 2, 3], [1, 2, -1]], [[1, 3], [1, 2]]))
      [1 0]

    References:
      Levenshtein 1966, "Binary codes capable of correcting deletions, insertions, and reversals".
      Wagner, Fischer 1974, "The string-to-string correction problem".
    """
    arguments = _checked(hypotheses, references, hypothesis_lengths, reference_lengths)
    return _edit_distance(*arguments)


def edit_operations(
    hypotheses: checks.ArrayLike,
    references: checks.ArrayLike,
    hypothesis_lengths: checks.ArrayLike | None = None,
    reference_lengths: checks.ArrayLike | None = None,
) -> EditOperations:
    """The edits of `edit_distance`, counted by kind. Arguments and errors are the same.

    More than one alignment may have the fewest edits (one with a deletion and an insertion, one
    with two substitutions). The counts are those of one of them, always the same: the common prefix
    and suffix are matched first, and then, from the end, a deletion is preferred to an insertion,
    and an insertion to a substitution. rapidfuzz, and so jiwer, gives the same counts.

    Returns:
      `EditOperations`, int32 ``[*batch]`` each.

    Examples:
      >>> import jaxctc
      >>> edits = jaxctc.edit_operations([1, 9, 3, 4, 5], [1, 2, 3, 4])
      >>> print(edits.distance, edits.substitutions, edits.insertions, edits.deletions)
      2 1 1 0
    """
    arguments = _checked(hypotheses, references, hypothesis_lengths, reference_lengths)
    return _edit_operations(*arguments)


def error_rate(
    hypotheses: checks.ArrayLike,
    references: checks.ArrayLike,
    hypothesis_lengths: checks.ArrayLike | None = None,
    reference_lengths: checks.ArrayLike | None = None,
) -> jax.Array:
    """The sum of all edit distances divided by the sum of all reference lengths.

    With characters as labels this is the character error rate, with words the word error
    rate. It is not the mean of the sequences' rates, and may exceed 1. If all references are
    empty, the divisor is 1, as in jiwer: the rate is then the number of insertions.

    Arguments and errors are those of `edit_distance`.

    Returns:
      float32, one number for the whole batch.

    Examples:
      >>> import jaxctc
      >>> print(jaxctc.error_rate([[1, 2, 3], [1, 2, -1]], [[1, 3, -1], [1, 2, 3]]))
      0.4
    """
    arguments = _checked(hypotheses, references, hypothesis_lengths, reference_lengths)
    return _error_rate(*arguments)


def _checked(hypotheses, references, hypothesis_lengths, reference_lengths):
    hypotheses = checks.labels_array("hypotheses", hypotheses)
    references = checks.labels_array("references", references)
    batch = checks.common_batch(
        hypotheses.shape[:-1],
        ("references", references, 1),
        ("hypothesis_lengths", hypothesis_lengths, 0),
        ("reference_lengths", reference_lengths, 0),
    )
    hypotheses = checks.broadcast(hypotheses, batch, 1)
    references = checks.broadcast(references, batch, 1)
    return (
        hypotheses,
        references,
        checks.lengths_of_labels("hypothesis_lengths", hypothesis_lengths, hypotheses),
        checks.lengths_of_labels("reference_lengths", reference_lengths, references),
    )


@meshes.jit(trailing=(1, 1, 0, 0))
def _edit_operations(hypotheses, references, hypothesis_lengths, reference_lengths):
    batch = hypotheses.shape[:-1]
    hypotheses, hypothesis_lengths = _flat(hypotheses, hypothesis_lengths)
    references, reference_lengths = _flat(references, reference_lengths)
    edits = _count_edits(hypotheses, references, hypothesis_lengths, reference_lengths)
    return jax.tree.map(lambda x: x.reshape(batch), edits)


@meshes.jit(trailing=(1, 1, 0, 0))
def _edit_distance(hypotheses, references, hypothesis_lengths, reference_lengths):
    # The compiler drops what only the other counts need.
    return _edit_operations(hypotheses, references, hypothesis_lengths, reference_lengths).distance


@meshes.jit(trailing=())
def _error_rate(hypotheses, references, hypothesis_lengths, reference_lengths):
    distance = _edit_distance(hypotheses, references, hypothesis_lengths, reference_lengths)
    labels = jnp.maximum(jnp.sum(reference_lengths, dtype=jnp.int32), 1)
    return jnp.sum(distance, dtype=jnp.int32).astype(jnp.float32) / labels.astype(jnp.float32)


def _flat(labels, lengths):
    """The same with all leading batch axes made one."""
    return labels.reshape(lengths.size, labels.shape[-1]), lengths.reshape(-1)


def _count_edits(hypotheses, references, hypothesis_lengths, reference_lengths) -> EditOperations:
    h_size, r_size = hypotheses.shape[1], references.shape[1]
    hypotheses, references, h_lengths, r_lengths = _without_common_ends(
        hypotheses, references, hypothesis_lengths, reference_lengths
    )
    # An anti-diagonal is [R + 1, B], indexed by i. The hypothesis's labels on it are a window of
    # the reversed hypothesis, which moves by one per step.
    i = jnp.arange(r_size + 1, dtype=jnp.int32)[:, None]
    reference = jnp.pad(references.T, ((1, 0), (0, 0)))
    window = jnp.pad(hypotheses.T[::-1], ((r_size + 1, r_size + 1), (0, 0)))
    far = jnp.int32(h_size + r_size + 2)  # more than any distance
    last_i, last_diagonal = r_lengths[None, None], h_lengths + r_lengths

    def down(x, fill):
        return lax.pad(x, jnp.asarray(fill, x.dtype), ((1, -1, 0), (0, 0, 0)))

    def step(carry, d):
        previous, earlier, deleted_previous, deleted_earlier, answer = carry  # of d - 1 and d - 2
        hypothesis = lax.dynamic_slice_in_dim(window, r_size + 1 + h_size - d, r_size + 1, axis=0)
        by_deletion, by_insertion = down(previous, far) + 1, previous + 1
        by_match = down(earlier, far) + (reference != hypothesis).astype(jnp.int32)
        distance = jnp.minimum(jnp.minimum(by_deletion, by_insertion), by_match)
        distance = jnp.minimum(distance, far)
        # A deletion if one is on a shortest path; else an insertion if D[i, j-1] < D[i-1, j-1];
        # else a match or a substitution.
        deletion = distance == by_deletion
        insertion = (i == 0) | (previous < down(earlier, far))
        deleted = jnp.where(insertion, deleted_previous, down(deleted_earlier, 0))
        deleted = jnp.where(deletion, down(deleted_previous, 0) + 1, deleted)
        at_end = jnp.take_along_axis(jnp.stack([distance, deleted]), last_i, axis=1)[:, 0]
        answer = jnp.where((d == last_diagonal)[None], at_end, answer)
        return (distance, previous, deleted, deleted_previous, answer), None

    nothing = jnp.zeros_like(reference)
    start = jnp.where(i == 0, nothing, far)
    answer = jnp.zeros((2, reference.shape[1]), jnp.int32)
    carry = (start, nothing + far, nothing, nothing, answer)
    carry, _ = meshes.scan(step, carry, jnp.arange(1, h_size + r_size + 1, dtype=jnp.int32))
    distance, deletions = carry[-1]
    insertions = deletions + h_lengths - r_lengths
    return EditOperations(distance, distance - insertions - deletions, insertions, deletions)


def _without_common_ends(hypotheses, references, hypothesis_lengths, reference_lengths):
    """The sequences without their common prefix, and then without their common suffix."""
    shorter = jnp.minimum(hypothesis_lengths, reference_lengths)[:, None]
    size = min(hypotheses.shape[1], references.shape[1])
    place = jnp.arange(size, dtype=jnp.int32)[None, :]

    def from_end(labels, lengths):
        index = jnp.maximum(lengths[:, None] - 1 - place, 0)
        return jnp.take_along_axis(labels, index, axis=1)

    def run(same):
        return jnp.sum(jnp.cumprod(same, axis=1, dtype=jnp.int32), axis=1, dtype=jnp.int32)

    start = run((hypotheses[:, :size] == references[:, :size]) & (place < shorter))
    ends = from_end(hypotheses, hypothesis_lengths), from_end(references, reference_lengths)
    end = run((ends[0] == ends[1]) & (place < shorter - start[:, None]))

    def rest(labels):
        index = jnp.arange(labels.shape[1], dtype=jnp.int32)[None, :] + start[:, None]
        return jnp.take_along_axis(labels, jnp.minimum(index, labels.shape[1] - 1), axis=1)

    common = start + end
    return (
        rest(hypotheses),
        rest(references),
        hypothesis_lengths - common,
        reference_lengths - common,
    )
