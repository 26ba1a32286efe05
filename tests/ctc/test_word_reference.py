"""Search with a word model of real size against a slow and exact search, where the files are."""

import json
import math

import numpy as np
import pytest
from extras import WORD_MODEL, needs_word_model

import jaxctc
from benchmarks.ctc.lm_data import NUMBER, TOKENS, load, text_of, words_of

REFERENCE = WORD_MODEL.parent / "reference.json"
pytestmark = [
    needs_word_model,
    pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is absent"),
]
SENTENCES = 3


def test_the_best_hypothesis_and_its_scores_are_those_of_the_reference():
    reference = json.loads(REFERENCE.read_text())
    cases = sorted(reference["sets"]["dev"], key=lambda case: len(case["text"]))[:SENTENCES]
    places = [case["index"] for case in cases]
    dev = load(WORD_MODEL.parent / "dev")
    lengths = dev.lengths[places]
    words = words_of(WORD_MODEL)
    model = jaxctc.NGram.from_arpa(WORD_MODEL, words)
    lexicon = jaxctc.Lexicon([[NUMBER[c] for c in word] for word in words], len(TOKENS), 1)
    weight, each = reference["alpha_natural"], reference["beta"]
    scorer = lexicon.scorer(language_model=model.scorer(), weight=weight, word_score=each)
    found = jaxctc.ctc_beam_search(
        dev.logits[places, : lengths.max()],
        lengths,
        beam_width=reference["beam"],
        max_labels=max(len(case["text"]) for case in cases) + 20,
        scorer=scorer,
    )
    assert [text_of(row) for row in np.asarray(found.labels[:, 0])] == [c["text"] for c in cases]
    assert not found.full.any()
    for n, case in enumerate(cases):
        best = case["nbest"][0]
        log10 = float(found.scorer_scores[n, 0]) - each * case["words"]
        log10 /= weight * math.log(10)
        total = float(found.scores[n, 0] + found.scorer_scores[n, 0])
        assert float(found.scores[n, 0]) == pytest.approx(best["ctc_in_beam"], abs=2e-3)
        assert log10 == pytest.approx(best["lm_log10"], abs=1e-3)
        assert total == pytest.approx(best["total"], abs=3e-3)
