"""Pruned transducer training (Kuang et al. 2022): a cheap joint chooses where to run the full one.

1. `rnnt_loss_simple` (`jaxctc.transducer.simple`) adds encoder and predictor, instead of joining
   them by a network.
2. From the posteriors of that lattice, `rnnt_prune_ranges` chooses a few label positions at
   each frame, and `rnnt_prune` picks the inputs of the joint network there
   (`jaxctc.transducer.pruning`).
3. `rnnt_loss_pruned` is the transducer loss from the joint's logits at those positions.

Both losses are trained together.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import arc_log_probabilities
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer import penalties as penalty
from jaxctc.transducer.lattice import (
    TransducerArcs,
    cells,
    readable_labels,
    total_of_batches,
    unflatten,
)


def rnnt_pruned_log_probs(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    ranges: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> TransducerArcs:
    """Log-probabilities of the arcs within `ranges`; those outside are ``-inf``.

    Arguments and errors are those of `rnnt_loss_pruned`, of which this is the first half.

    Returns:
      `TransducerArcs`, float ``blank [*batch, T, U + 1]`` and ``label [*batch, T, U]``, for
      `rnnt_loss_from_log_probs`, `rnnt_posteriors` and `rnnt_align`. 0 past a length.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> labels, ranges = jnp.array([1, 2]), jnp.array([[0, 1], [0, 1], [1, 2]])
      >>> arcs = jaxctc.rnnt_pruned_log_probs(jnp.zeros((3, 2, 4)), labels, ranges)
      >>> print(jnp.isfinite(arcs.blank).astype(int))
      [[1 1 0]
       [1 1 0]
       [0 1 1]]
      >>> print(jaxctc.rnnt_align(*arcs).frames)
      [0 2]
    """
    arguments = _checked(logits, labels, ranges, logit_lengths, label_lengths, blank_id)
    return _pruned_log_probs(*arguments)


def _checked(logits, labels, ranges, logit_lengths, label_lengths, blank_id):
    logits = checks.logits_array("logits", logits, ("T", "s_range", "C"))
    *batch, frames, width, classes = logits.shape
    labels = checks.labels_array("labels", labels, tuple(batch))
    spaces = labels.shape[-1] + 1
    ranges = transducer_checks.positions("ranges", ranges, (*batch, frames), spaces)
    if ranges.shape[-1] != width:
        raise ValueError(
            f"ranges has shape {ranges.shape}; it must be {(*batch, frames, width)}, as logits."
        )
    return (
        logits,
        labels,
        ranges,
        checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames),
        checks.lengths_of_labels("label_lengths", label_lengths, labels),
        checks.class_id("blank_id", blank_id, classes),
    )


@meshes.jit(trailing=(3, 1, 2, 0, 0), static_argnums=5)
def _pruned_log_probs(logits, labels, ranges, logit_lengths, label_lengths, blank_id):
    batch, (frames, width, classes) = logits.shape[:-3], logits.shape[-3:]
    lengths = logit_lengths.reshape(-1), label_lengths.reshape(-1)
    size, spaces = lengths[0].size, labels.shape[-1] + 1
    logits = logits.reshape(size, frames, width, classes)
    ranges = ranges.reshape(size, frames, width)
    read, valid = readable_labels(labels.reshape(size, spaces - 1), classes, blank_id)

    inside = cells(frames, spaces, *lengths)
    begins = ranges[:, :, :1]
    positions = begins + lax.broadcasted_iota(jnp.int32, ranges.shape, 2)
    kept = jnp.take_along_axis(inside, positions, axis=2, mode="fill", fill_value=False)
    # Rows that are not consecutive, or not in the lattice, have no arcs.
    kept &= (ranges == positions) & (begins >= 0)
    read = jnp.take_along_axis(read[:, None, :], positions, axis=2, mode="clip")
    pruned = arc_log_probabilities(logits, read, kept, blank_id)

    # Moved back to their places among all label positions; elsewhere there is no arc.
    place = jnp.arange(spaces, dtype=jnp.int32)[None, None, :] - begins
    covered = (place >= 0) & (place < width)
    index = jnp.clip(place, 0, width - 1)
    covered &= jnp.take_along_axis(kept, index, axis=2)
    blank, label = (
        jnp.where(covered, jnp.take_along_axis(x, index, axis=2), jnp.where(inside, -jnp.inf, 0))
        for x in pruned
    )
    label = jnp.where(valid[:, None, :], label[:, :, :-1], -jnp.inf)
    return unflatten(TransducerArcs(blank, label), batch)


def rnnt_loss_pruned(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    ranges: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
    monotonic: bool = False,
    max_symbols: int | None = None,
    fastemit_lambda: float = 0.0,
    delay_penalty: float = 0.0,
) -> jax.Array:
    """The transducer loss over the paths within `ranges`; with all positions it is `rnnt_loss`.

    Args:
      logits: float ``[*batch, T, s_range, C]``, the joint network's output for the inputs that
        `rnnt_prune` returns.
      labels: integer ``[*batch, U]``, without blanks.
      ranges: integer ``[*batch, T, s_range]``, from `rnnt_prune_ranges`: rows are consecutive.
      logit_lengths, label_lengths, blank_id, monotonic: As in `rnnt_loss`.
      max_symbols, fastemit_lambda, delay_penalty: As in `rnnt_loss`.

    Returns:
      float ``[*batch]``, never less than `rnnt_loss`, since paths are left out; ``inf`` if
      none is left.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths, positions or `blank_id` are out
        of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> encoder, predictor = jnp.zeros((4, 3)), jnp.zeros((5, 3))
      >>> labels = jnp.array([1, 2, 1, 2])
      >>> arcs = jaxctc.rnnt_simple_log_probs(encoder, predictor, labels)
      >>> ranges = jaxctc.rnnt_prune_ranges(*jaxctc.rnnt_posteriors(*arcs), s_range=3)
      >>> pruned = jaxctc.rnnt_prune(encoder, predictor, ranges)
      >>> logits = pruned.encoder + pruned.predictor  # use a joint network here
      >>> print(jaxctc.rnnt_loss_pruned(logits, labels, ranges).shape)
      ()

    References:
      Kuang et al. 2022, section 3.3, arXiv 2206.13236.
    """
    arguments = _checked(logits, labels, ranges, logit_lengths, label_lengths, blank_id)
    emission = transducer_checks.emission(monotonic, max_symbols)
    penalties = penalty.checked(fastemit_lambda, delay_penalty)
    arcs = _pruned_log_probs(*arguments)
    log_z = total_of_batches(*arcs, *arguments[3:5], emission, penalties)
    return penalty.loss_of(log_z, penalties)
