"""How good and how fast is search with a lexicon and a word model, beside the compiled decoders?

    python -m benchmarks.ctc.lm_decode --data DIRECTORY --peers PYTHON

The directory has a model, `en-us-2gram.arpa.gz`, and forty sentences as a mediocre acoustic model
sees them, `dev.npz` and `dev.txt`; results are compared by their exact total, computed anew from
each text: the log-probability over all alignments + 2 log10 of the model's probability + 2 for
each word. PYTHON is an interpreter with flashlight-text, pyctcdecode and kenlm; without it they
are left out. They decode in two processes, half of the sentences each; jaxctc decodes one batch.
"""

import argparse
import gzip
import json
import math
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import jaxctc
from benchmarks.common import finished, report, table

TOKENS = ["<blank>", "|", "'", *map(chr, range(97, 123))]
NUMBER = {token: i for i, token in enumerate(TOKENS)}


def words_of(arpa: Path) -> list[str]:
    """The words of letters and apostrophes among a file's unigrams."""
    words, inside = [], False
    with gzip.open(arpa, "rt") as lines:
        for line in lines:
            if line.startswith("\\1-grams"):
                inside = True
            elif line.startswith("\\2-grams"):
                return words
            elif inside and line.strip() and re.fullmatch("[a-z']+", line.split()[1]):
                words.append(line.split()[1])
    return words


def text_of(labels: np.ndarray) -> str:
    return "".join(TOKENS[c] for c in labels if c >= 0).replace("|", " ")


def exact_totals(logits: np.ndarray, lengths: np.ndarray, texts: list[str], model: jaxctc.NGram):
    labels = [[NUMBER[c] for c in text.replace(" ", "|")] for text in texts]
    longest = max(map(len, labels))
    padded = np.array([row + [1] * (longest - len(row)) for row in labels])
    with jax.enable_x64(True):
        x = logits.astype(np.float64)
        loss = np.asarray(jaxctc.ctc_loss(x, padded, lengths, np.array([*map(len, labels)])))
    return [
        2 * model.log10_probability(text.split()) + 2 * len(text.split()) - one
        for text, one in zip(texts, loss, strict=True)
    ]


def errors(references: list[str], texts: list[str]) -> tuple[float, float]:
    """Word and character errors, per cent."""
    rates = []
    for split in (str.split, list):
        pairs = [(split(a), split(b)) for a, b in zip(texts, references, strict=True)]
        number = {x: i for i, x in enumerate({x for pair in pairs for part in pair for x in part})}
        longest = max(len(part) for pair in pairs for part in pair)
        rows = np.full((2, len(pairs), longest), -1)
        for i, pair in enumerate(pairs):
            for side, part in enumerate(pair):
                rows[side, i, : len(part)] = [number[x] for x in part]
        rates.append(100 * float(jaxctc.error_rate(rows[0], rows[1])))
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", help="the Python of flashlight-text and pyctcdecode")
    parser.add_argument("--beams", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    arpa = options.data / "en-us-2gram.arpa.gz"
    words = words_of(arpa)
    begun = time.perf_counter()
    model = jaxctc.NGram.from_arpa(arpa, words)
    built = {"model": time.perf_counter() - begun}
    begun = time.perf_counter()
    spelled = [[NUMBER[c] for c in word] for word in words]
    scorer = jaxctc.Lexicon(spelled, len(TOKENS), separator=1).scorer(
        language_model=model.scorer(), weight=2 / math.log(10), word_score=2.0
    )
    built["lexicon"] = time.perf_counter() - begun
    built["peak GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    scorer = jax.device_put(scorer)
    found = np.load(options.data / "dev.npz")
    logits, lengths = found["logits"].astype(np.float32), found["lengths"]
    references = (options.data / "dev.txt").read_text().strip().split("\n")
    count = len(references)

    rows = []
    for beam in options.beams:
        search = jax.jit(
            lambda x, n, s, beam=beam: jaxctc.ctc_beam_search(
                x, n, beam_width=beam, scorer=s, max_labels=160
            )
        )
        begun = time.perf_counter()
        compiled = search.lower(logits, lengths, scorer).compile()
        compiling = time.perf_counter() - begun
        best = compiled(logits, lengths, scorer)
        times = []
        for _ in range(options.rounds):
            begun = time.perf_counter(), time.process_time()
            finished(compiled(logits, lengths, scorer))
            times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        wall, processor = np.median(times, axis=0) / count * 1e3
        texts = [text_of(row) for row in np.asarray(best.labels[:, 0])]
        rows.append(
            {
                "decoder": "jaxctc",
                "beam": beam,
                "wall": float(wall),
                "processor": float(processor),
                "texts": texts,
                "compile": compiling,
            }
        )
    if options.peers:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "lm.arpa"
            plain.write_bytes(gzip.decompress(arpa.read_bytes()))
            beams = ",".join(map(str, options.beams))
            script = Path(__file__).with_name("lm_peers.py")
            command = [options.peers, script, options.data, plain, beams]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows += json.loads(out.strip().split("\n")[-1])
    lines = []
    known = set(words)
    for row in rows:
        word, character = errors(references, row["texts"])
        row |= {"word errors": word, "character errors": character, "total": "–"}
        if all(known.issuperset(text.split()) for text in row["texts"]):
            row["total"] = float(np.mean(exact_totals(logits, lengths, row["texts"], model)))
        total = row["total"]
        lines.append(
            [
                row["decoder"],
                row["beam"],
                row["wall"],
                row["processor"],
                f"{word:.2f} / {character:.2f}",
                total if isinstance(total, str) else f"{total:.3f}",
                row.get("compile", "–"),
            ]
        )
    header = [
        "",
        "beam",
        "ms a sentence",
        "of processors",
        "errors, %",
        "exact total",
        "compile, s",
    ]
    section = table(header, lines)
    section += (
        f"\n\nMade from text: model {built['model']:.1f} s, lexicon {built['lexicon']:.1f} s, "
    )
    section += f"{built['peak GB']:.2f} GB at most."
    report("ctc.lm_decode", {"Words and a model of them": section}, {"rows": rows, "built": built})


if __name__ == "__main__":
    main()
