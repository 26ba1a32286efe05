"""Sentences as a mediocre acoustic model sees them, for the benchmark of language models.

    python -m benchmarks.ctc.lm_data PREFIX --seed 1

writes PREFIX.npz, `logits` and `lengths`, and PREFIX.txt, what was said. The sentences are those of
`lm_sentences.txt`; five hold names that no dictionary has. Labels take one to three frames with
blanks between them; at some a sound that is easily confused is as loud as the right one or louder,
some are hardly heard, and sometimes there is a letter where there is none.
"""

import argparse
import gzip
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

TOKENS = ["<blank>", "|", "'", *map(chr, range(97, 123))]
NUMBER = {token: i for i, token in enumerate(TOKENS)}
ALIKE = ["aeiou", "td", "bp", "sxcz'", "mn", "gkq", "fv", "rlw", "hjy"]
CONFUSED, UNHEARD, INVENTED = 0.42, 0.06, 0.03  # shares of labels, of labels, of frames between


class Sentences(NamedTuple):
    """What was said, and what was heard."""

    texts: list[str]
    logits: np.ndarray  # float32 [sentences, T, C]
    lengths: np.ndarray  # integer [sentences]


def load(prefix: Path) -> Sentences:
    found = np.load(prefix.with_suffix(".npz"))
    texts = prefix.with_suffix(".txt").read_text().strip().split("\n")
    return Sentences(texts, found["logits"].astype(np.float32), found["lengths"])


def save(sentences: Sentences, prefix: Path) -> None:
    logits = sentences.logits.astype(np.float16)
    np.savez_compressed(prefix.with_suffix(".npz"), logits=logits, lengths=sentences.lengths)
    prefix.with_suffix(".txt").write_text("\n".join(sentences.texts) + "\n")


def made(seed: int) -> Sentences:
    """The sentences of this package, with the noise of a seed."""
    texts = Path(__file__).with_name("lm_sentences.txt").read_text().strip().split("\n")
    generator = np.random.default_rng(seed)
    heard = [_heard(text, generator) for text in texts]
    lengths = np.array([len(x) for x in heard])
    logits = np.zeros((len(texts), lengths.max(), len(TOKENS)), np.float32)
    for row, x in zip(logits, heard, strict=True):
        row[: len(x)] = x
    return Sentences(texts, logits.astype(np.float16).astype(np.float32), lengths)


def _heard(text: str, generator: np.random.Generator) -> np.ndarray:
    """The log-probabilities of one sentence."""
    labels = [NUMBER[c] for c in text.replace(" ", "|")]
    frames = [_silence(generator) for _ in range(generator.integers(1, 4))]
    for i, label in enumerate(labels):
        for _ in range(generator.choice([1, 2, 3], p=[0.52, 0.34, 0.14])):
            frames.append(_frame(label, generator))
        _disturb(frames, label, generator)
        gap = generator.choice(4, p=[0.46, 0.46, 0.07, 0.01])
        if labels[i + 1 : i + 2] in ([label], []):
            gap = max(1, gap)
        frames += [_silence(generator) for _ in range(gap)]
    x = np.array(frames)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def _frame(label: int, generator: np.random.Generator) -> np.ndarray:
    x = generator.normal(0, 1.2, len(TOKENS))
    x[0] += 2.5
    x[label] += generator.normal(8, 1)
    for other in _alike(label):
        x[other] += 1.5
    return x


def _silence(generator: np.random.Generator) -> np.ndarray:
    x = _frame(0, generator)
    if generator.random() < INVENTED:
        x[generator.integers(1, len(TOKENS))] += generator.normal(8, 2)
    return x


def _disturb(frames: list[np.ndarray], label: int, generator: np.random.Generator) -> None:
    """Makes the last frame, or all frames of a label, less sure."""
    draw, others = generator.random(), _alike(label)
    if draw < UNHEARD:
        frames[-1][0] += generator.normal(6, 2)
    elif draw < UNHEARD + CONFUSED and others:
        frames[-1][generator.choice(others)] += generator.normal(6, 2)


def _alike(label: int) -> list[int]:
    group = next((g for g in ALIKE if TOKENS[label] in g), "")
    return [NUMBER[c] for c in group if NUMBER[c] != label]


def words_of(arpa: Path) -> list[str]:
    """The words of letters and apostrophes among a file's unigrams."""
    words, inside = [], False
    with gzip.open(arpa, "rt") as lines:
        for line in lines:
            if line.startswith("\\1-grams"):
                inside = True
            elif line.startswith("\\2-grams"):
                break
            elif inside and line.strip() and re.fullmatch("[a-z']+", line.split()[1]):
                words.append(line.split()[1])
    return words


def text_of(labels: np.ndarray) -> str:
    return "".join(TOKENS[c] for c in labels if c >= 0).replace("|", " ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    save(made(given.seed), given.prefix)
