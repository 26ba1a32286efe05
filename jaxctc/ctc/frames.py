"""The frames of logits as a prefix search reads them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import meshes
from jaxctc.decoding.normalise import normalised, sum_by_halves


class Frame(NamedTuple):
    """The log-probabilities of one frame."""

    blank: jax.Array  # log-probability [B]
    log_probs: jax.Array  # [B, C]
    # Of the labels that may be added, the best first; None if these are all classes.
    top_log_probs: jax.Array | None  # [B, K]
    top_labels: jax.Array | None  # int32 [B, K]
    inside: jax.Array  # bool [B]
    confidence: jax.Array  # [B]: 1 minus the entropy of the classes, as a share of the highest
    # What `prefix_search` asks of labels for which there is no room; None if there is room.
    likely_log_probs: jax.Array | None  # [B, 2]: of the two most probable labels
    likely_labels: jax.Array | None  # int32 [B, 2]
    most: jax.Array | None  # [B]: a bound of the log-probability of the frame in one sequence


def frames_of(
    logits: jax.Array,
    inside: jax.Array,
    labels: int | None,
    blank_id: int,
    only_these: bool,
    threshold: jax.Array | None,
    capped: bool,
) -> Frame:
    """The frames of logits ``[B, T, C]``, arrays with T first, with the best `labels` labels.

    If `only_these` are possible, the other labels have probability 0. None means all
    classes in their own order. Labels further below a frame's best class than a threshold have
    probability 0 too.
    """
    classes = logits.shape[2]
    x = jnp.where(inside[:, :, None], logits, 0)
    log_probs, confidence = normalised(x, sum_by_halves)
    blank = log_probs[:, :, blank_id]
    identity = jnp.arange(classes, dtype=jnp.int32)[None, None, :]
    possible = identity != blank_id
    if threshold is not None:
        possible &= log_probs >= jnp.max(log_probs, axis=2, keepdims=True) - threshold
    log_probs = jnp.where(possible, log_probs, -jnp.inf)  # of labels, from here on
    best, label = None, None
    if labels is not None:
        best, label = lax.top_k(log_probs, min(labels, max(1, classes - 1)))
    if only_these and best is not None and label is not None:
        least = jnp.min(best, axis=2, keepdims=True)
        # If labels tie, top_k takes the first.
        place = jnp.max(jnp.where(best == least, label, -1), axis=2, keepdims=True)
        kept = (log_probs > least) | ((log_probs == least) & (identity <= place))
        log_probs = jnp.where(kept, log_probs, -jnp.inf)
    likely = None, None, None
    if capped:
        likely = _likely(blank, log_probs)
    frames = Frame(blank, log_probs, best, label, inside, confidence, *likely)
    return jax.tree.map(lambda y: y.swapaxes(0, 1), frames)


def _likely(blank: jax.Array, log_probs: jax.Array) -> tuple[jax.Array, ...]:
    """The two most probable labels, and a bound of a frame in one sequence.

    There an alignment has a blank, the label before, or the next.
    """
    first = jnp.argmax(log_probs, axis=2).astype(jnp.int32)[:, :, None]
    identity = jnp.arange(log_probs.shape[2], dtype=jnp.int32)[None, None, :]
    others = jnp.where(identity == first, -jnp.inf, log_probs)
    second = jnp.argmax(others, axis=2).astype(jnp.int32)[:, :, None]
    top = jnp.max(log_probs, axis=2)
    both = jnp.stack([top, jnp.max(others, axis=2)], axis=2)
    most = jnp.minimum(jnp.logaddexp(blank, top + np.log(2).astype(top.dtype)), 0)
    return both, jnp.concatenate([first, second], axis=2), most


def skip_blanks(frames: Frame, threshold: jax.Array) -> tuple[Frame, jax.Array]:
    """The frames of a search, of which those that are sure to be blank are one in a row.

    At a frame whose blank has this probability, no label is possible. Two such frames in a row
    leave what one leaves, with the product of their probabilities.

    Returns:
      The frames, with those that are left out behind the others; and where each was, int32
      ``[T, B]``.
    """
    if len(frames.blank) == 0:
        return frames, jnp.zeros_like(frames.blank, jnp.int32)
    sure = frames.inside & (frames.blank >= jnp.log(threshold).astype(frames.blank.dtype))
    first = sure & ~jnp.concatenate([jnp.zeros_like(sure[:1]), sure[:-1]])

    def back(after, frame):
        sure, blank = frame
        total = jnp.where(sure, blank + after, 0)
        return total, total

    _, total = meshes.scan(
        back, jnp.zeros_like(frames.blank[0]), (sure, frames.blank), reverse=True
    )
    kept = frames.inside & (first | ~sure)
    source = jnp.argsort(~kept, axis=0, stable=True).astype(jnp.int32)

    def only_blank(x):
        return jnp.where(sure[:, :, None], -jnp.inf, x)

    frames = Frame(
        jnp.where(sure, total, frames.blank),
        only_blank(frames.log_probs),
        None if frames.top_log_probs is None else only_blank(frames.top_log_probs),
        frames.top_labels,
        kept,
        frames.confidence,
        None if frames.likely_log_probs is None else only_blank(frames.likely_log_probs),
        frames.likely_labels,
        None if frames.most is None else jnp.where(sure, total, frames.most),
    )

    def moved(x):
        return jnp.take_along_axis(x, source.reshape(*source.shape, *[1] * (x.ndim - 2)), axis=0)

    return jax.tree.map(moved, frames), source
