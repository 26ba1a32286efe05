"""Speed and accuracy of beam search, compared with Keras and the compiled decoders on PyPI.

    python -m benchmarks.ctc.decode_speed

All search with the same beam, without a language model and without pruning by thresholds, on the
same batch of log-probabilities. fast-ctc-decode, flashlight-text and ctc-beam-decoder take one
sequence at a time. A decoder that is not installed is left out. Keras takes minutes:
`--without-keras`.
"""

import argparse
import itertools
import os
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np

import jaxctc
from benchmarks.common import finished, report, table, time_in_turn

FRAMES, CLASSES, BATCH, BEAM, BLANK = 100, 68, 32, 16, 0
Read = list[tuple[int, ...]]  # the best labels of each sequence
Decoder = Callable[[], Read]


def noise(frames: int, classes: int, batch: int, seed: int = 0) -> np.ndarray:
    """Log-probabilities [B, T, C] as from an untrained model: all classes are similarly likely."""
    generator = np.random.default_rng(seed)
    return _log_softmax(2 * generator.standard_normal((batch, frames, classes), np.float32))


def speech(frames: int, classes: int, batch: int, seed: int = 0) -> np.ndarray:
    """Log-probabilities [B, T, C] as from a trained model: mostly blank, labels in peaks."""
    generator = np.random.default_rng(seed)
    path = generator.integers(1, classes, (batch, frames))
    path[generator.random((batch, frames)) < 0.7] = BLANK
    height = generator.uniform(2, 9, (batch, frames, 1)).astype(np.float32)
    logits = generator.standard_normal((batch, frames, classes), np.float32)
    return _log_softmax(logits + height * np.eye(classes, dtype=np.float32)[path])


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def decoders(log_probs: np.ndarray, beam: int) -> dict[str, Decoder]:
    """The installed decoders by name; each decodes the whole batch."""
    frames, classes = log_probs.shape[1:]
    on_device = jnp.asarray(log_probs)
    symbols = [chr(0x4E00 + c) for c in range(classes)]
    found: dict[str, Decoder] = {}

    def ours():
        best = jaxctc.ctc_beam_search(on_device, beam_width=beam, blank_id=BLANK)
        labels, lengths = np.asarray(best.labels[:, 0]), np.asarray(best.lengths[:, 0])
        return [tuple(row[:n].tolist()) for row, n in zip(labels, lengths, strict=True)]

    found["jaxctc"] = ours
    try:
        from fast_ctc_decode import beam_search as search  # pyright: ignore

        probabilities = np.exp(log_probs)

        def fast():
            read = (search(p, symbols, beam)[0] for p in probabilities)
            return [tuple(ord(c) - 0x4E00 for c in text) for text in read]

        found["fast-ctc-decode"] = fast
    except ImportError:
        pass
    try:
        from flashlight.lib.text import decoder as text

        settings = text.LexiconFreeDecoderOptions(
            beam_size=beam,
            beam_size_token=classes,
            beam_threshold=1e9,
            lm_weight=0.0,
            sil_score=0.0,
            log_add=True,
            criterion_type=text.CriterionType.CTC,
        )
        searcher = text.LexiconFreeDecoder(settings, text.ZeroLM(), -1, BLANK, [])

        def flashlight():
            paths = []
            for x in log_probs:
                tokens = searcher.decode(x.ctypes.data, frames, classes)[0].tokens
                paths.append([t for t in tokens if t >= 0])
            return [tuple(c for c, _ in itertools.groupby(p) if c != BLANK) for p in paths]

        found["flashlight-text"] = flashlight
    except ImportError:
        pass
    try:
        from ctc_beam_decoder import BeamSearchDecoder

        reader = BeamSearchDecoder(["", *symbols[1:]])

        def beam_decoder():
            read = (reader.decode(x, beam, -1e9, -1e9) for x in log_probs)
            return [tuple(ord(c) - 0x4E00 for c in line) for line in read]

        found["ctc-beam-decoder"] = beam_decoder
    except (ImportError, OSError):
        pass
    return found


def keras_decoder(log_probs: np.ndarray, beam: int) -> dict[str, Decoder]:
    """`keras.ops.ctc_decode` on jax, jitted, if it is installed."""
    try:
        import keras
    except ImportError:
        return {}
    lengths = np.full(log_probs.shape[0], log_probs.shape[1])

    @jax.jit
    def search(x):
        return keras.ops.ctc_decode(
            x, lengths, strategy="beam_search", beam_width=beam, top_paths=1, mask_index=BLANK
        )

    def decode():
        labels = np.asarray(search(log_probs)[0][0])
        return [tuple(row[row > 0].tolist()) for row in labels]

    return {"keras.ops.ctc_decode": decode}


def log_probabilities(log_probs: np.ndarray, read: Read) -> np.ndarray:
    """The exact log-probability of each result, summed over all alignments."""
    frames = log_probs.shape[1]
    labels = np.full((len(read), frames), -1)
    for row, sequence in zip(labels, read, strict=True):
        row[: len(sequence)] = sequence
    lengths = np.array([len(sequence) for sequence in read])
    return -np.asarray(jaxctc.ctc_loss(log_probs, labels, label_lengths=lengths, blank_id=BLANK))


def exhaustive(log_probs: np.ndarray) -> Read:
    """The most probable labels of each sequence, from all alignments."""
    frames, classes = log_probs.shape[1:]
    sequences: dict[tuple[int, ...], int] = {}
    paths, owners = [], []
    for path in itertools.product(range(classes), repeat=frames):
        labels = tuple(c for c, _ in itertools.groupby(path) if c != BLANK)
        paths.append(path)
        owners.append(sequences.setdefault(labels, len(sequences)))
    steps = np.arange(frames)
    best = []
    for x in log_probs:
        total = np.bincount(owners, np.exp(x[steps, paths].astype(np.float64).sum(axis=1)))
        best.append(list(sequences)[int(total.argmax())])
    return best


def speed(rounds: int, with_keras: bool):
    """Milliseconds for the batch, and the mean log-probability of the results."""
    tables, data = {}, {}
    for name, make in (("noise", noise), ("speech", speech)):
        log_probs = make(FRAMES, CLASSES, BATCH)
        functions = decoders(log_probs, BEAM)
        timings = time_in_turn({**functions}, rounds)
        ratios = {k: t.median / timings["jaxctc"].median for k, t in timings.items()}
        if with_keras and name == "noise":
            slow = keras_decoder(log_probs, BEAM)
            pair = time_in_turn({"jaxctc": functions["jaxctc"], **slow}, 1, calls=1)
            functions |= slow
            timings |= {k: pair[k] for k in slow}
            ratios |= {k: pair[k].median / pair["jaxctc"].median for k in slow}
        rows = []
        for decoder, timing in timings.items():
            score = float(log_probabilities(log_probs, functions[decoder]()).mean())
            ratio = ratios[decoder]
            spread = f"{timing.lower:.3g}–{timing.upper:.3g}"
            rows.append([decoder, timing.median, spread, f"{ratio:.2f}x", f"{score:.3f}"])
            data[f"{name}, {decoder}"] = {**timing._asdict(), "ratio": ratio, "log_p": score}
        header = ["", "ms", "quartiles", "times jaxctc's", "mean log p of the best"]
        tables[f"{name}: T={FRAMES}, C={CLASSES}, B={BATCH}, W={BEAM}"] = table(header, rows)
    return tables, data


def accuracy(count: int = 300):
    """How often each decoder finds the same labels as exhaustive search."""
    rows, data = [], {}
    log_probs = noise(6, 5, count, seed=1)
    best = exhaustive(log_probs)
    bound = log_probabilities(log_probs, best)
    for beam in (4, BEAM):
        functions = decoders(log_probs, beam)
        for decoder, function in functions.items():
            read = function()
            same = float(np.mean([a == b for a, b in zip(read, best, strict=True)]))
            lost = float((bound - log_probabilities(log_probs, read)).mean())
            rows.append([decoder, beam, f"{same:.1%}", f"{lost:.4f}"])
            data[f"{decoder}, beam {beam}"] = {"same": same, "lost": lost}
    header = ["", "beam", "as exhaustive search", "log p lost"]
    return table(header, rows), data


def many_classes(rounds: int):
    """The effect of pruning with thousands of classes."""
    log_probs = jnp.asarray(speech(80, 6625, 16))
    search = jaxctc.ctc_beam_search
    timings = time_in_turn(
        {
            "greedy": lambda: finished(jaxctc.ctc_greedy_decode(log_probs)),
            "beam": lambda: finished(search(log_probs, beam_width=BEAM)),
            "beam, prune_classes=20": lambda: finished(
                search(log_probs, beam_width=BEAM, prune_classes=20)
            ),
        },
        rounds,
    )
    rows = [[k, t.median, f"{t.lower:.3g}–{t.upper:.3g}"] for k, t in timings.items()]
    return table(["", "ms", "quartiles"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each decoder")
    parser.add_argument(
        "--without-keras", action="store_true", help="leave out Keras, which is slow"
    )
    arguments = parser.parse_args()
    sections, data = speed(arguments.rounds, not arguments.without_keras)
    sections["Small inputs beside exhaustive search: T=6, C=5"], data["accuracy"] = accuracy()
    sections["Many classes: T=80, C=6625, B=16, W=16"] = many_classes(max(3, arguments.rounds // 2))
    report("ctc.decode_speed", sections, data)


if __name__ == "__main__":
    main()
