"""Reading plates: the decoders, the views, the scores, and what is read of real plates."""

import json

import numpy as np
import pytest
from extras import PLATES, import_or_skip_examples, needs_plates

import_or_skip_examples("cv2")

import jaxctc  # noqa: E402
import plate_import  # noqa: E402
import plate_read  # noqa: E402
from plates import models, reading  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402
from recognition.charsets import encode  # noqa: E402
from recognition.results import scores  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")


def test_the_grammar_of_plates():
    scorer = reading.plate_grammar(PLATE_CHARACTERS)
    for text, allowed in [
        ("皖A12345", True),
        ("京N8P8F8", True),
        ("粤BD12345", True),  # green ones
        ("粤BDF2345", True),
        ("粤B12345D", True),
        ("粤BDFG345", False),
        ("粤B1D2345", False),
        ("皖A1234", False),
        ("皖A1234I", False),
        ("皖112345", False),
        ("AA12345", False),
    ]:
        labels = [PLATE_CHARACTERS.index(c) for c in text]
        assert jaxctc.score_sequence(scorer, labels) == (0 if allowed else -np.inf), text


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_views_vote_with_the_probability_of_each_reading(decoder):
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 94, 3), np.uint8)
    charset = "0123456789"
    model = models.build({"name": "light"}, 11, seed=1)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (0, 0)), mode="edge")
    moved = [padded[:, :, 2 - pixels : 96 - pixels] for pixels in reading.SHIFTS]
    alone = [reading.read_images(model, view, charset, decoder=decoder) for view in moved]
    views = len(moved)
    together = reading.read_images(model, images, charset, decoder=decoder, views=views)
    np.testing.assert_allclose(together[2], alone[0][2], atol=2e-4)
    for row, (text, confidence) in enumerate(zip(*together[:2], strict=True)):
        votes = {}
        for candidate in {texts[row] for texts, _, _ in alone}:
            labels = encode(candidate, charset, len(candidate))
            losses = [jaxctc.ctc_loss(logits[row], labels, blank_id=10) for _, _, logits in alone]
            votes[candidate] = np.exp(-np.mean(losses))
        assert text == max(votes, key=votes.get)
        np.testing.assert_allclose(confidence, votes[text], rtol=1e-3)


@pytest.mark.parametrize(
    ("read", "truth", "exact", "rate"),
    [
        (["皖A12345", "皖A1234"], ["皖A12345", "皖B1234"], 0.5, 1 / 13),
        (["", "皖A"], ["皖", "皖"], 0.0, 1.0),
        ([""], [""], 1.0, 0.0),
    ],
)
def test_scores(read, truth, exact, rate):
    assert scores(read, truth) == {
        "images": len(truth),
        "exact_match": exact,
        "character_error_rate": pytest.approx(rate, abs=1e-6),
    }


@needs_plates
def test_the_grammar_reads_more_plates(tmp_path, capsys):
    plate_import.main([str(PLATES / "Final_LPRNet_model.pth"), str(tmp_path / "lprnet")])
    right = {}
    for decoder in reading.DECODERS:
        capsys.readouterr()
        arguments = ["--checkpoint", str(tmp_path / "lprnet"), "--batch-size", "150"]
        assert plate_read.main([*arguments, "--decoder", decoder, str(PLATES / "dev")]) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        right[decoder] = round(last["images"] * last["exact_match"])
    assert right["greedy"] == right["beam"] == 135
    assert right["grammar"] > 135
