"""The plates' decoders: the grammar, and what each reads of real plates."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
for module in ("cv2", "grain", "flax", "rapidfuzz"):
    pytest.importorskip(module, reason="needs the `examples` extra")

import plate_import  # noqa: E402
import plate_read  # noqa: E402
import plate_reading  # noqa: E402
from plate_charset import PLATE_CHARACTERS  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared" / "plates"
PLATES = Path(os.environ.get("JAXCTC_PLATES", SHARED))


def test_the_grammar_of_plates():
    automaton = plate_reading.plate_grammar(PLATE_CHARACTERS)
    for text, allowed in [
        ("皖A12345", True),
        ("京N8P8F8", True),
        ("粤BD12345", False),  # a green one
        ("皖A1234", False),
        ("皖A1234I", False),
        ("皖112345", False),
        ("AA12345", False),
    ]:
        labels = [PLATE_CHARACTERS.index(c) for c in text]
        assert automaton.score_sequence(labels) == (0 if allowed else -np.inf), text


@pytest.mark.skipif(
    not PLATES.is_dir(), reason=f"{PLATES} is absent; JAXCTC_PLATES may name another place"
)
def test_the_grammar_reads_more_plates(tmp_path, capsys):
    plate_import.main([str(PLATES / "Final_LPRNet_model.pth"), str(tmp_path / "lprnet")])
    right = {}
    for decoder in plate_reading.DECODERS:
        capsys.readouterr()
        arguments = ["--checkpoint", str(tmp_path / "lprnet"), "--batch-size", "150"]
        assert plate_read.main([*arguments, "--decoder", decoder, str(PLATES / "dev")]) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        right[decoder] = round(last["images"] * last["exact_match"])
    assert right["greedy"] == right["beam"] == 135
    assert right["grammar"] > 135
