"""Reading lines with a trained model, greedily or with a word model."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxctc
from recognition.charsets import decode
from recognition.checkpoints import load_config, load_into
from recognition.weights import SUFFIX
from text import models
from text.shapes import HEIGHT, READING_WIDTHS, bucket

PUBLISHED = Path(__file__).parents[1] / "weights" / f"lines{SUFFIX}"
DISCOUNT = 0.75
# Chosen on lines in fonts that are neither trained nor tested with, and of other text than the
# model of words: its weight, what each word scores, and what a word that is not in the list
# scores, with each of its characters.
WEIGHT, WORD_SCORE, UNKNOWN = 0.3, 2.0, (-3.0, -0.5)
BEAM_WIDTH, CLASSES = 16, 10  # prefixes kept, and characters that are possible, at each frame


def load_description(run: str | Path) -> dict[str, Any]:
    """Returns the config of a run of text_train.py or of a file of weights: model and characters.

    Raises:
      SystemExit: If there is no such checkpoint or file.
    """
    config = load_config(run)
    if not {"characters", "charset"} <= config.keys():
        raise SystemExit(f"{run}: is not a run of text_train.py")
    return config


def load_reader(run: str | Path, **options: Any) -> tuple[nnx.Module, dict[str, Any]]:
    """Returns the model of a run's latest checkpoint, for reading, and the run's config.

    Args:
      run: the directory of a run of text_train.py, or a file of weights.
      options: replace those of the model's description, such as `dtype="float32"`.

    Raises:
      SystemExit: If there is no such checkpoint.
    """
    config = load_description(run)
    model = models.build({**config["model"], **options}, len(config["charset"]) + 1)
    load_into(run, model)
    model.eval()
    return model, config


def bigrams(words: Sequence[str]) -> dict[tuple[str, ...], tuple[float, float]]:
    """Returns the n-grams of `jaxctc.NGram` up to pairs of words, with absolute discounting.

    A count c of a pair after a word that occurs n times gives the probability (c - 0.75) / n; what
    is taken off is for words that were not seen after it, in proportion to their
    own probability (Ney, Essen and Kneser 1994). Words not in the list have the part taken off
    words.
    """
    counts, pairs, after = Counter(words), Counter(pairwise(words)), Counter(words[:-1])
    single = {word: (count - DISCOUNT) / len(words) for word, count in counts.items()}
    single["<unk>"] = DISCOUNT * len(counts) / len(words)
    followers = defaultdict(list)
    for first, second in pairs:
        followers[first].append(second)
    back = dict.fromkeys(single, 1.0)
    for word, found in followers.items():
        unseen = 1 - sum(single[other] for other in found)
        back[word] = DISCOUNT * len(found) / after[word] / max(unseen, 1e-9)
    ngrams = {(word,): (p, back[word]) for word, p in single.items()}
    ngrams |= {pair: ((count - DISCOUNT) / after[pair[0]], 1.0) for pair, count in pairs.items()}
    return {ngram: (math.log10(p), math.log10(b)) for ngram, (p, b) in ngrams.items()}


def word_model(words: Sequence[str], charset: str) -> jaxctc.Scorer:
    """Returns a model of a text's words and their pairs, which also lets other words through.

    Args:
      words: the text, word by word, with their punctuation.
      charset: the characters, in class order; it has a space.
    """
    # Each character is a word too, so that all of them may be in words that are not listed.
    listed = sorted({*words, *charset} - {" "})
    model = jaxctc.NGram(bigrams(words), vocabulary=listed)
    lexicon = jaxctc.Lexicon(
        [[charset.index(c) for c in word] for word in listed],
        len(charset) + 1,
        separator=charset.index(" "),
        blank_id=len(charset),
    )
    return lexicon.scorer(
        language_model=model.scorer(start=False, end=False),
        weight=WEIGHT,
        word_score=WORD_SCORE,
        unknown=UNKNOWN,
    )


@nnx.jit
def _read(model, images, widths, scorer):
    """Returns the labels read, and the model's probability of them."""
    logits, lengths = model(images, widths)
    blank = logits.shape[-1] - 1
    if scorer is None:
        read = jaxctc.ctc_greedy_decode(logits, lengths, blank_id=blank)
    else:
        best = jaxctc.ctc_beam_search(
            logits,
            lengths,
            blank_id=blank,
            beam_width=BEAM_WIDTH,
            prune_classes=min(CLASSES, blank),
            scorer=scorer,
        )
        read = jax.tree.map(lambda x: x[:, 0], best)
    losses = jaxctc.ctc_loss(
        logits, read.labels, logit_lengths=lengths, label_lengths=read.lengths, blank_id=blank
    )
    return read.labels, jnp.exp(-losses)


def read_lines(
    model: nnx.Module,
    images: Sequence[np.ndarray],
    charset: str,
    *,
    batch_size: int = 32,
    scorer: jaxctc.Scorer | None = None,
) -> tuple[list[str], np.ndarray]:
    """Reads lines uint8[24, W]: greedily, or by a beam search with a scorer.

    Lines of similar width are read together; a program is compiled for each padded width.

    Returns:
      the texts, and the model's probability of each, float32[N].
    """
    texts, confidences = [""] * len(images), np.zeros(len(images), np.float32)
    batch_size = min(batch_size, 1 << (len(images) - 1).bit_length()) if images else 1
    model.eval()
    for width in READING_WIDTHS:
        group = [i for i, image in enumerate(images) if bucket(image.shape[1]) == width]
        for start in range(0, len(group), batch_size):
            chosen = group[start : start + batch_size]
            batch = np.zeros((batch_size, HEIGHT, width), np.uint8)
            widths = np.zeros(batch_size, np.int32)
            for row, i in enumerate(chosen):
                widths[row] = images[i].shape[1]
                batch[row, :, : widths[row]] = images[i]
            labels, confidence = map(np.asarray, _read(model, batch, widths, scorer))
            for row, i in enumerate(chosen):
                texts[i], confidences[i] = decode(labels[row], charset), confidence[row]
    model.train()
    return texts, confidences
