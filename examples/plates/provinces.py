"""How frequent each province is, estimated from plates whose texts are not known.

Rendered plates have all provinces alike; photos of one place do not. The reader's probabilities of
a province are for the former, so they are multiplied by how frequent it is here. EM finds that from
the same probabilities (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002, equations
2.4 and 2.9): from the present estimate follow the provinces of all plates, and from their mean the
next estimate. No label is used.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from plates.charset import PROVINCES

ADAPT_HELP = "estimate from all images how frequent each province is, for photos of one place"
ROUNDS = 200  # of EM


class Provinces(NamedTuple):
    """The classes of provinces, int32[K], and log(K * how frequent each is), float32[K]."""

    classes: jax.Array
    log_weights: jax.Array


def first_labels(logits: jax.Array | np.ndarray, classes: jax.Array) -> jax.Array:
    """Returns the log-probability that a text begins with each class, [*batch, K].

    Args:
      logits: [*batch, T, C]; the last class is the blank.
      classes: int32[K].
    """
    blank = logits.shape[-1] - 1
    labels = jnp.broadcast_to(classes, (*logits.shape[:-2], 1, len(classes)))
    start = jaxctc.ctc_prefix_start(logits, blank_id=blank)
    scores, _ = jaxctc.ctc_prefix_score(start, logits, labels, blank_id=blank)
    return scores[..., 0, :]


def frequencies(probabilities: np.ndarray) -> np.ndarray:
    """Returns how frequent each of K classes is, by EM, [K].

    One more plate counts, whose class may be any: with few plates, none is taken for impossible.

    Args:
      probabilities: of the classes of each of N plates, if all are equally frequent, [N, K].
    """
    count, classes = probabilities.shape
    frequent = np.full(classes, 1 / classes)
    for _ in range(ROUNDS):
        joint = probabilities * frequent
        joint /= joint.sum(1, keepdims=True)
        frequent = (joint.sum(0) + 1 / classes) / (count + 1)
    return frequent


_first_labels = jax.jit(first_labels)


def estimate(logits: np.ndarray, charset: str) -> Provinces:
    """Returns how frequent provinces are on plates, from logits of each view, [views, N, T, C].

    Raises:
      SystemExit: If the characters have no provinces.
    """
    classes = jnp.array([i for i, c in enumerate(charset) if c in PROVINCES], jnp.int32)
    if not len(classes):
        raise SystemExit("--adapt: the character set has no provinces")
    likely = np.asarray(_first_labels(logits, classes), np.float64).mean(0)
    found = frequencies(np.exp(likely - likely.max(-1, keepdims=True)))
    return Provinces(classes, jnp.asarray(np.log(found * len(classes)), jnp.float32))


def reweighted(
    provinces: Provinces, logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns hypotheses, also with the most probable province, and the change of their losses.

    A text's probability is multiplied by the weight of its province, and divided by the sum of
    all texts' probabilities after that.

    Args:
      provinces: the weights.
      logits: of each view, [views, N, T, C].
      labels: hypotheses of each view, [views, N, T], padded with -1.

    Returns:
      Labels, [2 * views, N, T]: those given, and those with another province. And what is added to
      the losses, the means over all views, [2 * views, N].
    """
    classes, weights = provinces
    firsts = first_labels(logits, classes)
    best = classes[(firsts.mean(0) + weights).argmax(-1)]
    is_province = (labels[..., :1] == classes).any(-1)
    others = labels.at[..., 0].set(jnp.where(is_province, best, labels[..., 0]))
    labels = jnp.concatenate([labels, others])
    # The texts that begin otherwise keep their weight, 1.
    total = jnp.maximum(0, 1 - jnp.exp(firsts).sum(-1)) + jnp.exp(firsts + weights).sum(-1)
    weight = jnp.where(labels[..., :1] == classes, weights, 0).sum(-1)
    return labels, jnp.log(total).mean(0) - weight
