"""Reading plates with a trained model, and counting how well it went."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from plate_charset import decode
from rapidfuzz.distance import Levenshtein

import jaxctc


def greedy_decode(logits: jax.Array, *, blank_id: int) -> tuple[jax.Array, jax.Array]:
    """Returns the best path without repeats and blanks, int[B, T] padded with −1, and lengths."""
    path = logits.argmax(-1)
    before = jnp.pad(path, ((0, 0), (1, 0)), constant_values=blank_id)[:, :-1]
    keep = (path != blank_id) & (path != before)
    # Kept classes move to the front; the others to a place outside, where they are dropped.
    place = jnp.where(keep, keep.cumsum(-1) - 1, path.shape[1])
    rows = jnp.arange(path.shape[0])[:, None]
    labels = jnp.full(path.shape, -1).at[rows, place].set(path, mode="drop")
    return labels, keep.sum(-1)


def exact_matches(logits, labels, label_lengths, *, blank_id: int) -> jax.Array:
    """Says for each row whether its greedy reading is its label, bool[B]."""
    read, lengths = greedy_decode(logits, blank_id=blank_id)
    width = min(read.shape[1], labels.shape[1])
    counts = jnp.arange(width) < label_lengths[:, None]
    same = jnp.where(counts, read[:, :width] == labels[:, :width], True).all(-1)
    return same & (lengths == label_lengths)


@nnx.jit
def _forward(model, images):
    logits = model(images)
    blank = logits.shape[-1] - 1
    labels, lengths = greedy_decode(logits, blank_id=blank)
    # The probability of a text is that of all its alignments together: exactly the CTC loss.
    losses = jaxctc.ctc_loss(logits, labels, label_lengths=lengths, blank_id=blank)
    return logits, labels, jnp.exp(-losses)


def read_images(
    model: nnx.Module, images: np.ndarray, charset: str, batch_size: int = 256
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads images uint8[N, 24, 94, 3].

    Returns the texts, the model's probability of each (float32[N]), and the logits
    (float32[N, T, classes]). The last batch is not filled up, because a model may look at what
    else is in a batch.
    """
    model.eval()
    texts, confidences, logits = [], [], []
    for start in range(0, len(images), batch_size):
        out = _forward(model, images[start : start + batch_size])
        batch_logits, labels, confidence = map(np.asarray, out)
        texts += [decode(row, charset) for row in labels]
        confidences.append(confidence)
        logits.append(batch_logits)
    model.train()
    return texts, np.concatenate(confidences), np.concatenate(logits)


def scores(read: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Returns how many there are, the part read exactly, and edits per character of the truth."""
    edits = sum(Levenshtein.distance(a, b) for a, b in zip(read, truth, strict=True))
    right = sum(a == b for a, b in zip(read, truth, strict=True))
    return {
        "images": len(truth),
        "exact_match": round(right / len(truth), 6),
        "character_error_rate": round(edits / max(1, sum(map(len, truth))), 6),
    }
