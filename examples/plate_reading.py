"""Reading plates with a trained model, and counting how well it went."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from plate_charset import DIGITS, LETTERS, PROVINCES, decode
from rapidfuzz.distance import Levenshtein

import jaxctc


def exact_matches(logits, labels, label_lengths, *, blank_id: int) -> jax.Array:
    """Says for each row whether its greedy reading is its label, bool[B]."""
    read = jaxctc.ctc_greedy_decode(logits, blank_id=blank_id)
    width = min(read.labels.shape[1], labels.shape[1])
    counts = jnp.arange(width) < label_lengths[:, None]
    same = jnp.where(counts, read.labels[:, :width] == labels[:, :width], True).all(-1)
    return same & (read.lengths == label_lengths)


DECODERS = ("greedy", "beam", "grammar")


def plate_grammar(charset: str) -> jaxctc.Automaton:
    """Returns what a blue plate may say: a province, a letter, and five letters or digits."""
    places = [PROVINCES, LETTERS, *[DIGITS + LETTERS] * 5]
    classes = [{charset.index(c) for c in place if c in charset} for place in places]
    return jaxctc.Grammar([classes], len(charset) + 1).automaton()


@functools.partial(nnx.jit, static_argnames="decoder")
def _forward(model, images, decoder, automaton):
    logits = model(images)
    blank = logits.shape[-1] - 1
    if decoder == "greedy":
        read = jaxctc.ctc_greedy_decode(logits, blank_id=blank)
    else:
        best = jaxctc.ctc_beam_search(logits, blank_id=blank, automaton=automaton)
        read = jax.tree.map(lambda x: x[:, 0], best)
    # The probability of a text is that of all its alignments together: exactly the CTC loss.
    losses = jaxctc.ctc_loss(logits, read.labels, label_lengths=read.lengths, blank_id=blank)
    return logits, read.labels, jnp.exp(-losses)


def read_images(
    model: nnx.Module,
    images: np.ndarray,
    charset: str,
    batch_size: int = 256,
    decoder: str = "greedy",
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads images uint8[N, 24, 94, 3] with one of `DECODERS`.

    Returns the texts, the model's probability of each (float32[N]), and the logits
    (float32[N, T, classes]). The last batch is not filled up, because a model may look at what
    else is in a batch.
    """
    automaton = plate_grammar(charset) if decoder == "grammar" else None
    model.eval()
    texts, confidences, logits = [], [], []
    for start in range(0, len(images), batch_size):
        out = _forward(model, images[start : start + batch_size], decoder, automaton)
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
