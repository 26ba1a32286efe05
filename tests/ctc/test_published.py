"""Losses, decodings and alignments that others published."""

import json

import numpy as np
import pytest
from ctc_cases import loss_and_gradient
from ctc_searches import as_list
from oracles import viterbi
from published import DATA

import jaxctc

PUBLISHED = json.loads((DATA / "ctc_loss.json").read_text())["cases"]
DECODED = json.loads((DATA / "decode.json").read_text())


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["name"])
def test_published_numbers(case):
    inputs, expected = case["inputs"], case["expected"]

    def numbers(x):
        """JSON has nan and inf as strings."""
        return [numbers(y) for y in x] if isinstance(x, list) else float(x)

    logits = np.array(numbers(inputs["values"]), np.float32)
    if inputs["kind"] == "probs":
        with np.errstate(divide="ignore"):
            logits = np.log(logits)
    longest = max(map(len, inputs["labels"]))
    labels = np.array([x + [-1] * (longest - len(x)) for x in inputs["labels"]])
    lengths = np.array(inputs["label_lengths"])
    frames = np.array(inputs["input_lengths"])
    losses, gradient = loss_and_gradient(logits, labels, frames, lengths, inputs["blank"])
    scale = np.ones(len(losses))
    if expected["reduction"].startswith("mean"):
        scale = 1 / np.maximum(lengths, 1) / len(losses)
    want = np.array(numbers(expected["loss"]))
    got = losses if expected["reduction"] == "none" else (losses * scale).sum()
    # Published digits, six in most; `burn` prints float32 results of its own.
    np.testing.assert_allclose(got, want, rtol=3e-6, atol=3e-6)
    if expected["grad"] is not None:
        np.testing.assert_allclose(
            gradient * scale[:, None, None], numbers(expected["grad"]), atol=2e-6, rtol=1e-4
        )


def log_values(case):
    values = np.array(case["values"], np.float64)
    if case["kind"].startswith("probs"):
        with np.errstate(divide="ignore"):
            values = np.log(values)
    return values.astype(np.float32)


@pytest.mark.parametrize("name", ["tf_greedy", "keras_greedy"])
def test_published_greedy(name):
    case = DECODED[name]
    found = jaxctc.ctc_greedy_decode(
        log_values(case), np.array(case["lengths"]), blank_id=case["blank"]
    )
    for labels, length, want in zip(
        found.labels, found.lengths, case["expected"]["decoded"], strict=True
    ):
        assert labels[:length].tolist() == want
    if name == "tf_greedy":  # probabilities, in the first sequence
        np.testing.assert_allclose(
            found.scores[0], -case["expected"]["neg_sum_logits"][0], rtol=1e-6
        )


def test_published_best_path():
    case = DECODED["githubharald_mini_best_path"]
    found = jaxctc.ctc_greedy_decode(log_values(case), blank_id=case["blank"])
    assert case["expected"]["decoded_text"] == ""
    assert found.lengths == 0


@pytest.mark.parametrize(
    "name",
    [
        "tf_beam_hibernating",
        "tf_cc_plain",
        "parlance_beam_1",
        "pyctcdecode_nolm",
        "githubharald_mini_beam_search",
    ],
)
def test_published_beam(name):
    case, want = DECODED[name], DECODED[name]["expected"]
    found = jaxctc.ctc_beam_search(
        log_values(case), beam_width=case["beam_width"], blank_id=case["blank"]
    )
    texts = [list(labels) for labels, *_ in as_list(found)]
    if "decoded" in want:
        assert texts[: len(want["decoded"])] == want["decoded"]
    else:
        assert "".join(case["vocabulary"][c] for c in texts[0]) == want["decoded_text"]
    if "log_probs" in want:
        np.testing.assert_allclose(found.scores[:2], want["log_probs"], atol=1e-5)
    if "logit_score" in want:
        np.testing.assert_allclose(found.scores[0], want["logit_score"], atol=1e-5)
    if "word_frames" in want:
        starts = [i for i, c in enumerate(texts[0]) if i == 0 or texts[0][i - 1] == 0]
        assert [found.frames[0, i] for i in starts] == [f[1] for f in want["word_frames"]]


def test_published_label_scorer():
    case = DECODED["tf_cc_label_selection_default"]
    scorer = jaxctc.Automaton(
        np.zeros((1, 6), np.int32),
        -100 * np.arange(6, dtype=np.float32)[None],
        np.zeros(1, np.float32),
    )
    found = jaxctc.ctc_beam_search(log_values(case), beam_width=5, blank_id=5, scorer=scorer)
    assert [list(labels) for labels, *_ in as_list(found)] == case["expected"]["decoded"]


# torch 2.14.1 / torchaudio 2.11.0 `functional.forced_align` and `merge_tokens` on random input;
# in every third case log-probabilities are rounded to halves, so that paths tie.
TORCHAUDIO = np.load(DATA / "torchaudio_align.npz")


@pytest.mark.parametrize("case", range(15))
def test_torchaudio(case):
    want = {k[3:]: TORCHAUDIO[k] for k in TORCHAUDIO.files if k.startswith(f"{case:02d}.")}
    log_probs, blank = want["log_probs"], int(want["blank"])
    found = jaxctc.forced_align(log_probs, want["targets"], blank_id=blank)
    score, path = viterbi(log_probs, want["targets"], blank)
    np.testing.assert_array_equal(found.path, path)
    if case == 11:
        # Where skipping and advancing tie and both beat staying, torchaudio stays: not the best.
        assert score > want["log_probs"][np.arange(len(path)), want["path"]].sum()
        return
    np.testing.assert_array_equal(found.path, want["path"])
    np.testing.assert_array_equal(found.starts, want["span_start"])
    np.testing.assert_array_equal(found.ends, want["span_end"])
    if case % 3 != 2:  # the rounded ones are not normalised
        np.testing.assert_allclose(found.scores, want["scores"], atol=1e-6)
        np.testing.assert_allclose(found.label_scores, want["span_score"], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "path"),
    [
        ([0, 1, 1, 0], [0, 1, 5, 1, 0]),
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        ([3, 3, 3], [3, 5, 3, 5, 3]),
    ],
)
def test_published_by_torchaudio(labels, path):
    # pytorch/audio functional_impl.py test_forced_align, an example of the CTC tutorials
    probabilities = np.array(
        [
            [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
        np.float32,
    )
    found = jaxctc.forced_align(np.log(probabilities), labels, blank_id=5)
    np.testing.assert_array_equal(found.path, path)
    np.testing.assert_allclose(found.scores, np.log(probabilities)[range(5), path], atol=1e-5)


def test_published_spans():
    # Each frame shows its token with the published score, less 2 to be a log-probability.
    cases = json.loads((DATA / "align.json").read_text())["merge_tokens"]
    frames = [len(case["tokens"]) for case in cases]
    probabilities = np.full((len(cases), max(frames), 64), np.nan, np.float32)
    labels = np.full((len(cases), max(frames)), -1)
    for row, read, case in zip(probabilities, labels, cases, strict=True):
        read[: len(case["spans"])] = [token for token, *_ in case["spans"]]
        for frame, token, score in zip(row, case["tokens"], case["scores"], strict=False):
            frame[:] = (1 - np.exp(score - 2)) / 63
            frame[token] = np.exp(score - 2)
    lengths = [len(case["spans"]) for case in cases]
    found = jaxctc.forced_align(np.log(probabilities), labels, frames, lengths)
    for b, (case, n) in enumerate(zip(cases, lengths, strict=True)):
        assert found.path[b, : frames[b]].tolist() == case["tokens"]
        spans = zip(labels[b, :n], found.starts[b, :n], found.ends[b, :n], strict=True)
        assert [tuple(map(int, span)) for span in spans] == [tuple(s[:3]) for s in case["spans"]]
        want = [score - 2 for *_, score in case["spans"]]
        np.testing.assert_allclose(found.label_scores[b, :n], want, atol=1e-5)
