"""How good and how fast is search with a lexicon and a word model, beside the compiled decoders?

    python -m benchmarks.ctc.lm_decode --data DIRECTORY --peers PYTHON

The directory has a model, `en-us-2gram.arpa.gz`, and forty sentences as a mediocre acoustic model
sees them, `dev.npz` and `dev.txt`. Weights are tuned on these; the sentences that judge them are
those of `lm_data`, or of --test. Without --data the directory is that of JAXCTC_LM. PYTHON is an
interpreter with flashlight-text, pyctcdecode and kenlm, by default that of JAXCTC_LM_PEERS;
without it they are left out. They decode in two processes, half of the sentences each. jaxctc
decodes one batch, once on one device and once split over as many as the machine has cores.
Results are compared by their exact total, computed anew from each text: the log-probability over
all alignments + 2 log10 of the model's probability + 2 for each word.
"""

import argparse
import gzip
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# XLA takes each core for a device of its own.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={os.cpu_count()}"
)

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxctc
from benchmarks.chips import temporary_bytes
from benchmarks.common import finished, report, table
from benchmarks.ctc import lm_data
from benchmarks.ctc.lm_data import NUMBER, TOKENS, Sentences, text_of, words_of

ROOT = Path(__file__).parents[2]
ARPA = "en-us-2gram.arpa.gz"
SAME = {"weight": 2 / math.log(10), "word_score": 2.0}  # as flashlight's 2 of log10, and 2
TUNED = {"weight": 1.0, "word_score": 3.5, "unknown": (-17.0, -1.0)}  # on dev, by a grid
MOST = 160  # labels


def exact_totals(sentences: Sentences, texts: list[str], model: jaxctc.NGram) -> list[float]:
    labels = [[NUMBER[c] for c in text.replace(" ", "|")] for text in texts]
    longest = max(map(len, labels))
    padded = np.array([row + [1] * (longest - len(row)) for row in labels])
    with jax.enable_x64(True):
        x, count = sentences.logits.astype(np.float64), np.array([*map(len, labels)])
        loss = np.asarray(jaxctc.ctc_loss(x, padded, sentences.lengths, count))
    return [
        2 * model.log10_probability(text.split()) + 2 * len(text.split()) - float(one)
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


def search(beam: int, devices: int):
    """The search as a function of logits, lengths and scorer, and where these are put."""

    def decode(logits, lengths, scorer):
        return jaxctc.ctc_beam_search(
            logits, lengths, beam_width=beam, scorer=scorer, max_labels=MOST
        )

    if devices == 1:
        return jax.jit(decode), jax.device_put
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    batch, everywhere = PartitionSpec("batch"), PartitionSpec()
    split = jax.shard_map(decode, mesh=mesh, in_specs=(batch, batch, everywhere), out_specs=batch)

    def put(tree):
        return jax.device_put(tree, NamedSharding(mesh, everywhere))

    return jax.jit(split), put


def timed(sentences: Sentences, scorer, beam: int, devices: int, rounds: int) -> dict[str, Any]:
    """One row: texts, milliseconds a sentence of wall and of processors, seconds to compile."""
    decode, put = search(beam, devices)
    arguments = sentences.logits, sentences.lengths, put(scorer)
    begun = time.perf_counter()
    compiled = decode.lower(*arguments).compile()
    compiling = time.perf_counter() - begun
    best = compiled(*arguments)
    times = []
    for _ in range(rounds):
        begun = time.perf_counter(), time.process_time()
        finished(compiled(*arguments))
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    medians = np.median(times, axis=0) / len(sentences.texts) * 1e3 if times else (0, 0)
    memory = temporary_bytes(compiled) * devices
    return {
        "decoder": "jaxctc" if devices == 1 else f"jaxctc, {devices} devices",
        "beam": beam,
        "wall": float(medians[0]),
        "processor": float(medians[1]),
        "compile": compiling,
        "MB": (memory + size(scorer)) / 1e6,
        "texts": [text_of(row) for row in np.asarray(best.labels[:, 0])],
    }


def size(scorer) -> int:
    """Bytes of a scorer's arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(scorer))


def peers(python: str, plain: Path, prefixes: list[Path], beams: list[int]) -> Any:
    """The rows of the other decoders, for each set."""
    script = Path(__file__).with_name("lm_peers.py")
    command = [python, script, plain, ",".join(map(str, beams)), *prefixes]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().split("\n")[-1])


def lexicon(words: list[str], model: jaxctc.NGram | None, **weights):
    """The words as a scorer; without a model their weight is nothing."""
    spelled = jaxctc.Lexicon([[NUMBER[c] for c in word] for word in words], len(TOKENS), 1)
    return spelled.scorer(language_model=model and model.scorer(), **weights)


def growth(sentences: Sentences, arpa: Path, model: jaxctc.NGram, rounds: int) -> str:
    """How time and memory grow with words and n-grams, at a beam of 64."""
    words = model.vocabulary
    alone = {(w,): (model.log10_probability([w], start=False, end=False), 0.0) for w in words}
    cases: dict[str, tuple[list[str], jaxctc.NGram | None]] = {
        "all words, no model": (words, None),
        "all words, a model of single words": (words, jaxctc.NGram(alone, words)),
        "all words, all bigrams": (words, model),
    }
    for count in (10_000, 1_000):
        some = words[:: len(words) // count][:count]
        cases[f"{count} words, their bigrams"] = some, jaxctc.NGram.from_arpa(arpa, some)
    rows = []
    for name, (some, given) in cases.items():
        scorer = lexicon(some, given, **SAME)
        row = timed(sentences, scorer, 64, 1, rounds)
        rows.append([name, row["wall"], row["processor"], size(scorer) / 1e6])
    return table(["", "ms a sentence", "CPU ms", "MB of the scorer"], rows)


def judged(rows: list[dict], sets: dict[str, Sentences], model: jaxctc.NGram) -> None:
    """Adds errors to rows, and the exact total where all words are known."""
    known = set(model.vocabulary)
    for row in rows:
        sentences = sets[row["set"]]
        row["errors"] = errors(sentences.texts, row["texts"])
        row["total"] = None
        if all(known.issuperset(text.split()) for text in row["texts"]):
            row["total"] = float(np.mean(exact_totals(sentences, row["texts"], model)))


def speed_table(rows: list[dict]) -> str:
    keys = "decoder", "weights", "beam", "wall", "processor", "MB"
    lines = [
        [*(row[key] for key in keys), row.get("compile", "–")]
        for row in rows
        if row["set"] == "dev"
    ]
    lines.sort(key=lambda line: (line[1], "jaxctc" not in line[0], line[0]))
    header = ["", "weights", "beam", "ms a sentence", "CPU ms", "MB", "compile, s"]
    return table(header, lines)


def quality_table(rows: list[dict], weights: str) -> str:
    """Errors and totals of both sets; results do not depend on the number of devices."""
    lines: dict[tuple, dict] = {}
    for row in rows:
        if row["weights"] == weights and "devices" not in row["decoder"]:
            lines.setdefault((row["decoder"], row["beam"]), {})[row["set"]] = row
    texts = []
    for (decoder, beam), found in lines.items():
        line: list[object] = [decoder, beam]
        for name in ("dev", "test"):
            total = found[name]["total"]
            line.append("{:.2f} / {:.2f}".format(*found[name]["errors"]))
            line.append("–" if total is None else f"{total:.3f}")
        texts.append(line)
    header = ["", "beam", "dev: word / character errors, %", "exact total", "test: errors"]
    return table([*header, "exact total"], texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("JAXCTC_LM", ROOT.parent / "shared" / "lm")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--test", type=Path, help="the prefix of .npz and .txt; see lm_data")
    parser.add_argument("--peers", default=os.environ.get("JAXCTC_LM_PEERS"))
    parser.add_argument("--beams", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    arpa = options.data / ARPA
    if not arpa.exists():
        sys.exit(f"--data has no {ARPA}; the last results stay")

    sets = {"dev": lm_data.load(options.data / "dev")}
    sets["test"] = lm_data.load(options.test) if options.test else lm_data.made(1)
    words = words_of(arpa)
    begun = time.perf_counter()
    model = jaxctc.NGram.from_arpa(arpa, words)
    built = {"model": time.perf_counter() - begun}
    begun = time.perf_counter()
    scorers = {name: lexicon(words, model, **w) for name, w in (("same", SAME), ("tuned", TUNED))}
    built["lexicon"] = (time.perf_counter() - begun) / 2
    built["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    rows, cores = [], len(jax.devices())
    for beam in options.beams:
        for name, sentences in sets.items():
            for weights, scorer in scorers.items():
                timing = name == "dev"
                for devices in sorted({1, cores}) if timing else [1]:
                    row = timed(sentences, scorer, beam, devices, options.rounds if timing else 0)
                    rows.append({"set": name, "weights": weights} | row)
    if options.peers:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "lm.arpa"
            plain.write_bytes(gzip.decompress(arpa.read_bytes()))
            prefixes = [Path(folder) / name for name in sets]
            for prefix in prefixes:
                lm_data.save(sets[prefix.name], prefix)
            rows += peers(options.peers, plain, prefixes, options.beams)
    judged(rows, sets, model)
    sections = {
        "Speed": speed_table(rows)
        + f"\n\nMade from text: model {built['model']:.1f} s, lexicon {built['lexicon']:.1f} s, "
        f"{built['peak MB']:.0f} MB at most.",
        "Errors, at equal weights": quality_table(rows, "same"),
        "Errors, with tuned weights": quality_table(rows, "tuned"),
        "Growth": growth(sets["dev"], arpa, model, options.rounds),
    }
    report("ctc.lm_decode", sections, {"rows": rows, "built": built})


if __name__ == "__main__":
    main()
