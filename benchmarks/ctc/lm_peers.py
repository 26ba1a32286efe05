"""flashlight-text and pyctcdecode with a lexicon and a word model, in an environment of their own.

`benchmarks.ctc.lm_decode` runs this file with another Python, since these packages ask for older
ones of others. It needs numpy, flashlight-text, kenlm and pyctcdecode, and neither jax nor jaxctc.
Prints JSON: for each decoder and beam, milliseconds of wall and of processor a sentence, and texts.
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


def load(data: str, arpa: str) -> None:
    """Builds both decoders' models, once in each process."""
    from flashlight.lib.text.decoder import SmearingMode, Trie
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary
    from pyctcdecode import build_ctcdecoder

    words = words_of(arpa)
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
    STATE["pyctcdecode"] = build_ctcdecoder(
        ["", " ", *TOKENS[2:]], arpa, words, alpha=0.9, beta=4.5
    )
    found = np.load(os.path.join(data, "dev.npz"))
    STATE["logits"] = [
        log_softmax(x[:n]) for x, n in zip(found["logits"], found["lengths"], strict=True)
    ]


def flashlight(which: list[int], beam: int) -> list[str]:
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
    for i in which:
        x = np.ascontiguousarray(np.concatenate([STATE["logits"][i], end]), np.float32)
        best = decoder.decode(x.ctypes.data, *x.shape)[0]
        texts.append(" ".join(dictionary.get_entry(w) for w in best.words if w >= 0))
    return texts


def pyctcdecode(which: list[int], beam: int) -> list[str]:
    decoder = STATE["pyctcdecode"]
    return [decoder.decode(STATE["logits"][i].astype(np.float32), beam_width=beam) for i in which]


DECODERS = {"flashlight-text": flashlight, "pyctcdecode": pyctcdecode}


def part(name: str, which: list[int], beam: int) -> tuple[list[str], float]:
    begun = time.process_time()
    return DECODERS[name](which, beam), time.process_time() - begun


def main(data: str, arpa: str, beams: list[int]) -> None:
    rows = []
    with ProcessPoolExecutor(2, initializer=load, initargs=(data, arpa)) as pool:
        count = len(np.load(os.path.join(data, "dev.npz"))["lengths"])
        halves = [list(range(0, count, 2)), list(range(1, count, 2))]
        for name in DECODERS:
            list(pool.map(part, [name] * 4, [[0]] * 4, [16] * 4))  # both processes have begun
            for beam in beams:
                begun = time.perf_counter()
                done = list(pool.map(part, [name] * 2, halves, [beam] * 2))
                wall = time.perf_counter() - begun
                texts: list[str] = [""] * count
                for half, (read, _) in zip(halves, done, strict=True):
                    for i, text in zip(half, read, strict=True):
                        texts[i] = text
                processor = sum(seconds for _, seconds in done)
                rows.append(
                    {
                        "decoder": name,
                        "beam": beam,
                        "wall": wall / count * 1e3,
                        "processor": processor / count * 1e3,
                        "texts": texts,
                    }
                )
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3].split(",")])
