"""Words with frames, seconds and confidences."""

import jax
import numpy as np
import pytest

import jaxctc

PATH = [1, 1, 0, 2, 3, 0, 2, 2, 1, 0]  # "ab b a", with the separator at the fifth frame
VOCABULARY = ["", "a", "b", " "]


@pytest.fixture(scope="module")
def logits():
    noise = np.random.default_rng(0).normal(size=(2, len(PATH), 4))
    return (noise + 6 * np.eye(4)[PATH]).astype(np.float32)


def test_words_of_the_best_of_a_batch(logits):
    best = jaxctc.ctc_greedy_decode(logits)
    found = jaxctc.words(best, VOCABULARY, separator=3, logits=logits, frame_seconds=0.5)
    aligned = jaxctc.forced_align(logits, best.labels[:, :5], None, best.lengths)
    for b in range(2):
        ab, ba = found[b]
        assert (ab.text, ab.first, ab.last, ab.start, ab.end) == ("ab", 0, 3, 0.0, 2.0)
        assert (ba.text, ba.first, ba.last, ba.start, ba.end) == ("ba", 6, 8, 3.0, 4.5)
        sure = np.exp(aligned.label_scores[b])
        assert ab.confidence == pytest.approx(sure[:2].mean(), rel=1e-5)
        assert ba.confidence == pytest.approx(sure[3:5].mean(), rel=1e-5)


def test_words_of_a_transcript_are_those_of_equal_hypotheses(logits):
    best = jaxctc.ctc_greedy_decode(logits)
    options = {"separator": 3, "logits": logits, "frame_seconds": 0.5}
    assert jaxctc.words(best.labels, VOCABULARY, **options) == jaxctc.words(
        best, VOCABULARY, **options
    )
    one = jaxctc.words([1, 2, 3, 2, 1, -1], VOCABULARY, **options | {"logits": logits[0]})
    assert [word.text for word in one] == ["ab", "ba"]


@pytest.mark.parametrize(("kind", "function"), [("minimum", min), ("product", np.prod)])
def test_other_confidences(logits, kind, function):
    best = jaxctc.ctc_greedy_decode(logits[0])
    (whole,) = jaxctc.words(best, VOCABULARY, logits=logits[0], confidence=kind)
    scores = jaxctc.forced_align(logits[0], best.labels[:5]).label_scores
    assert whole.text == "ab ba"
    assert whole.confidence == pytest.approx(float(function(np.exp(scores))), rel=1e-5)


def test_every_hypothesis_of_a_beam_and_tokens_that_begin_words(logits):
    found = jaxctc.ctc_beam_search(logits, beam_width=3)
    lists = jaxctc.words(found, ["", "▁a", "b", "▁c"], word_begins={1, 3}, logits=logits)
    assert len(lists) == 2
    assert [len(x) for x in lists] == [3, 3]
    assert [word.text for word in lists[0][0]] == ["ab", "cb", "a"]
    # Without logits it is said by the hypotheses; a label of a transducer has one frame.
    bare = jaxctc.words(found, ["", "▁a", "b", "▁c"], word_begins={1, 3}, confidence="minimum")
    assert bare[0][0][0][:3] == lists[0][0][0][:3] == ("ab", 0, 3)
    assert bare[0][0][0].confidence == np.exp(found.label_scores[0, 0, :2].min())
    monotonic = found._replace(durations=np.zeros_like(found.durations))
    assert jaxctc.words(monotonic, ["", "▁a", "b", "▁c"])[0][0][0][1:3] == (0, 8)


def test_words_of_a_lexicon_have_its_names(logits):
    best = jaxctc.ctc_greedy_decode(logits[0])
    lexicon = jaxctc.Lexicon(
        [[[1, 2], [2, 2]], [1, 2]], classes=4, separator=3, names=["first", "second"]
    )
    found = jaxctc.words(best, lexicon, logits=logits[0])
    plain = jaxctc.words(best, VOCABULARY, separator=3, logits=logits[0])
    assert [word.text for word in found] == ["first", "<unk>"]
    assert [word[1:] for word in found] == [word[1:] for word in plain]
    # With the text of each class words are spelled that are not in the list, or have no names.
    for names, text in ((["first"], "first"), (None, "ab")):
        spelled = jaxctc.Lexicon(
            [[1, 2]], classes=4, separator=3, names=names, vocabulary=VOCABULARY
        )
        assert [word.text for word in jaxctc.words(best, spelled)] == [text, "ba"]
    begins = jaxctc.Lexicon([[1]], 4, word_begins={1, 3}, vocabulary=["", "▁a", "b", "▁c"])
    assert [word.text for word in jaxctc.words(best, begins)] == ["ab", "cb", "a"]
    with pytest.raises(ValueError, match="names is None and vocabulary too; a lexicon with text"):
        jaxctc.words(best, jaxctc.Lexicon([[1, 2], [1]], classes=4, separator=3))


def test_errors_name_the_argument(logits):
    best = jaxctc.ctc_greedy_decode(logits)
    with pytest.raises(ValueError, match="confidence is 'sum'; it must be one of"):
        jaxctc.words(best, VOCABULARY, confidence="sum")
    with pytest.raises(ValueError, match="vocabulary has length 2; it must be above label 3"):
        jaxctc.words(best, ["", "a"])
    with pytest.raises(TypeError, match="has type ArrayImpl; it must be Hypotheses, or labels wi"):
        jaxctc.words(best.labels, VOCABULARY)
    with pytest.raises(TypeError, match="has type Alignment; it must be Hypotheses, or labels wi"):
        jaxctc.words(jaxctc.forced_align(logits, best.labels), VOCABULARY, logits=logits)
    with pytest.raises(ValueError, match=r"labels that can't be aligned with logits; `jaxctc\.ex"):
        jaxctc.words(np.full((2, 10), 1), VOCABULARY, logits=logits)
    with pytest.raises(TypeError, match="hypotheses is traced; it must be known, outside `jit`"):
        jax.jit(lambda x: jaxctc.words(x, VOCABULARY, logits=logits))(best.labels)
    with pytest.raises(ValueError, match=r"logits has batch shape \(1,\); it must be that"):
        jaxctc.words(best, VOCABULARY, logits=logits[:1])
    with pytest.raises(TypeError, match="hypotheses is traced; it must be known, outside `jit`"):
        jax.jit(lambda x: jaxctc.words(jaxctc.ctc_greedy_decode(x), VOCABULARY))(logits)
    lexicon = jaxctc.Lexicon([[1, 2]], classes=4, separator=3, names=["ab"])
    for arguments, error, sentence in [
        ((3,), TypeError, "vocabulary has type int; it must be a sequence of texts"),
        (([0, 1, 2, 3],), TypeError, "vocabulary has 0; it must have texts"),
        ((VOCABULARY, 4), ValueError, "separator is 4; it must be a class, in 0…3"),
        ((VOCABULARY, " "), TypeError, "separator has type str; it must be an int"),
        ((lexicon, 2), ValueError, "separator is 2; with a Lexicon it must be its, 3"),
        ((VOCABULARY, None, 1), TypeError, "word_begins has type int; it must be a set of labels"),
        ((VOCABULARY, None, {7}), ValueError, "word_begins is 7; it must be a class, in 0…3"),
    ]:
        separator, word_begins = (*arguments, None, None)[1:3]
        with pytest.raises(error, match=sentence):
            jaxctc.words(best, arguments[0], separator=separator, word_begins=word_begins)
    for options, error, sentence in [
        ({"frame_seconds": 0}, ValueError, "frame_seconds is 0; it must be finite and above 0"),
        ({"frame_seconds": "20ms"}, TypeError, "frame_seconds has type str; it must be a number"),
        ({"logits": logits[0, 0]}, ValueError, r"logits has shape \(4,\); it must be \[\*batch, T"),
        ({"logits": logits[:, :5]}, ValueError, "logits has 5 frames; it must have all of hypoth"),
        (
            {"logits": logits[..., :3]},
            ValueError,
            "vocabulary has length 4; it must be that of a frame of logits, 3",
        ),
        (
            {"logits": logits, "logit_lengths": [99, 1]},
            ValueError,
            "logit_lengths has the value 99; it must be in 0…10",
        ),
    ]:
        with pytest.raises(error, match=sentence):
            jaxctc.words(best, VOCABULARY, **options)
