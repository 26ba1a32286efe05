"""flashlight-text and pyctcdecode with a lexicon and a word model, in an environment of their own.

`benchmarks.ctc.lm_decode` runs this file with another Python, since these packages ask for older
ones of others. It needs numpy, flashlight-text, kenlm and pyctcdecode, and neither jax nor jaxctc.
Prints JSON: for each set, decoder and beam, milliseconds of wall and of processor a sentence, the
MB of the models of both processes, and texts.

    lm_peers.py MODEL.arpa 16,64 PREFIX …

flashlight-text has the weights that all decoders have; pyctcdecode has those that were tuned on
the first set, and its default pruning. Without it, it takes 40 times as long.
"""

import json
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

TOKENS = ["<blank>", "|", "'", *map(chr, range(97, 123))]
NUMBER = {token: i for i, token in enumerate(TOKENS)}
WEIGHT, BONUS = 2.0, 2.0  # of log10 of the model, and for each word
STATE: dict = {}


def words_of(arpa: str) -> list[str]:
    words, inside = [], False
    with open(arpa) as lines:
        for line in lines:
            if line.startswith("\\1-grams"):
                inside = True
            elif line.startswith("\\2-grams"):
                break
            elif inside and line.strip() and re.fullmatch("[a-z']+", line.split()[1]):
                words.append(line.split()[1])
    return words


def log_softmax(x) -> np.ndarray:
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def resident() -> float:
    """MB that the process has in memory."""
    with open("/proc/self/status") as lines:
        return next(int(x.split()[1]) / 1e3 for x in lines if x.startswith("VmRSS"))


def load(arpa: str, prefixes: list) -> None:
    """Builds both decoders' models, once in each process."""
    from flashlight.lib.text.decoder import SmearingMode, Trie
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary
    from pyctcdecode import build_ctcdecoder

    words = words_of(arpa)
    begun = resident()
    dictionary = Dictionary()
    for word in words:
        dictionary.add_entry(word)
    dictionary.add_entry("<unk>")
    dictionary.set_default_index(dictionary.get_index("<unk>"))
    model = KenLM(arpa, dictionary)
    trie, start = Trie(len(TOKENS), 1), model.start(False)
    for word in words:
        index = dictionary.get_index(word)
        _, score = model.score(start, index)
        trie.insert([NUMBER[c] for c in word + "|"], index, score)
    trie.smear(SmearingMode.MAX)
    STATE.update(dictionary=dictionary, model=model, trie=trie)
    between = resident()
    STATE["pyctcdecode"] = build_ctcdecoder(
        ["", " ", *TOKENS[2:]], arpa, words, alpha=0.9, beta=4.5
    )
    STATE["MB"] = {"flashlight-text": between - begun, "pyctcdecode": resident() - between}
    STATE["logits"] = {}
    for prefix in prefixes:
        found = np.load(prefix + ".npz")
        STATE["logits"][prefix] = [
            log_softmax(x[:n]) for x, n in zip(found["logits"], found["lengths"], strict=True)
        ]


def flashlight(logits: list, beam: int) -> list:
    from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions

    options = LexiconDecoderOptions(
        beam, len(TOKENS), 1e6, WEIGHT, BONUS, -float("inf"), 0.0, True, CriterionType.CTC
    )
    dictionary = STATE["dictionary"]
    unknown = dictionary.get_index("<unk>")
    decoder = LexiconDecoder(options, STATE["trie"], STATE["model"], 1, 0, unknown, [], False)
    end = np.full((2, len(TOKENS)), -1e4)
    end[0, 0] = end[1, 1] = 0  # every word ends in a separator: two frames that are sure
    texts = []
    for x in logits:
        x = np.ascontiguousarray(np.concatenate([x, end]), np.float32)
        best = decoder.decode(x.ctypes.data, *x.shape)[0]
        texts.append(" ".join(dictionary.get_entry(w) for w in best.words if w >= 0))
    return texts


def pyctcdecode(logits: list, beam: int) -> list:
    return [STATE["pyctcdecode"].decode(x.astype(np.float32), beam_width=beam) for x in logits]


# What decodes, and whether its weights are those of all or tuned.
DECODERS = {"flashlight-text": (flashlight, "same"), "pyctcdecode": (pyctcdecode, "tuned")}


def part(name: str, prefix: str, which: list, beam: int) -> tuple:
    logits = [STATE["logits"][prefix][i] for i in which]
    begun = time.process_time()
    texts = DECODERS[name][0](logits, beam)
    return texts, time.process_time() - begun, STATE["MB"][name]


def main(arpa: str, beams: list, prefixes: list) -> None:
    rows = []
    with ProcessPoolExecutor(2, initializer=load, initargs=(arpa, prefixes)) as pool:
        for name, (_, weights) in DECODERS.items():
            for prefix in prefixes:
                count = len(np.load(prefix + ".npz")["lengths"])
                halves = [list(range(0, count, 2)), list(range(1, count, 2))]
                both = [name] * 2, [prefix] * 2, halves
                list(pool.map(part, *both, [16] * 2))  # both processes have begun
                for beam in beams:
                    begun = time.perf_counter()
                    done = list(pool.map(part, *both, [beam] * 2))
                    wall = time.perf_counter() - begun
                    texts = [""] * count
                    for half, (read, _, _) in zip(halves, done, strict=True):
                        for i, text in zip(half, read, strict=True):
                            texts[i] = text
                    rows.append(
                        {
                            "set": os.path.basename(prefix),
                            "weights": weights,
                            "decoder": name,
                            "beam": beam,
                            "wall": wall / count * 1e3,
                            "processor": sum(seconds for _, seconds, _ in done) / count * 1e3,
                            "MB": sum(memory for _, _, memory in done),
                            "texts": texts,
                        }
                    )
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], [int(x) for x in sys.argv[2].split(",")], sys.argv[3:])
