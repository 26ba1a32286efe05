"""Rendered lines, tables of labelled images, batches of several widths, and the word model."""

import numpy as np
import pytest
from extras import import_or_skip_text

import_or_skip_text()

import cv2  # noqa: E402

import jaxctc  # noqa: E402
from text import corpus, data, fonts, reading, render  # noqa: E402


def write_image(path, height=24, width=120) -> None:
    path.write_bytes(cv2.imencode(".png", np.full((height, width), 200, np.uint8))[1].tobytes())


def test_fonts_have_a_glyph_for_each_character():
    for characters in corpus.CHARACTERS:
        for unseen in (False, True):
            for family in fonts.families(characters, unseen=unseen):
                file, weights = family.files[0]
                font = fonts.face(file, weights[0])
                # A font draws the same box for all characters that it does not have.
                absent = render._glyph(font, "\ufffe")[0].tobytes()
                drawn = [render._glyph(font, c)[0].tobytes() for c in corpus.CHARACTERS[characters]]
                assert absent not in drawn[1:], family.name


def test_no_family_to_test_with_is_trained_with():
    trained = {family.name for c in ("latin", "greek") for family in fonts.families(c)}
    tested = {f.name for c in ("latin", "greek") for f in fonts.families(c, unseen=True)}
    assert not trained & tested


@pytest.mark.parametrize("characters", ["latin", "greek"])
def test_rendered_lines_repeat_and_can_be_aligned(characters):
    first, again = (data.rendered_lines(characters, 12, seed=5) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert one.text == two.text
        np.testing.assert_array_equal(one.image, two.image, strict=True)
        assert set(one.text) <= set(corpus.CHARACTERS[characters])
        assert one.text == one.text.strip()
        assert one.image.dtype == np.uint8
        assert one.image.shape[1] <= data.EVALUATION_WIDTHS[1]
        assert data._size_problem(one.text, one.image.shape[1]) is None
        assert one.image.std() > 5  # there is something to see
    held, kept = (corpus.words_of(characters, held_out=h) for h in (True, False))
    assert len(kept) > 5 * len(held) > 1000


def test_shortened_text_ends_with_a_character_or_a_word():
    assert corpus.shorten("one two", 6, whole_words=False) == "one tw"
    assert corpus.shorten("one two", 6, whole_words=True) == "one"
    assert corpus.shorten("one two", 3, whole_words=True) == "one"
    assert corpus.shorten("one two", 2, whole_words=True) == "on"
    assert corpus.shorten("one two", 4, whole_words=False) == "one"
    assert corpus.shorten("one", 9, whole_words=True) == "one"


def test_batches_have_few_widths_and_continue_from_their_state(monkeypatch):
    monkeypatch.setattr(data, "SHORT_BATCHES", 2)

    def batches():
        return data.training_batches("latin", corpus.LATIN, 2, seed=3)

    straight, resumed = batches(), batches()
    seen = [next(straight) for _ in range(8)]
    resumed.set_state(straight.get_state())
    expected, got = next(straight), next(resumed)
    for name in expected:
        np.testing.assert_array_equal(expected[name], got[name], strict=True)
    padded = [batch["images"].shape[-1] for batch in seen]
    assert padded[:2] == [96, 96]
    assert {96} < set(padded) <= set(data.WIDTHS)
    for batch in seen:
        assert (batch["widths"] <= batch["images"].shape[-1]).all()
        for image, width in zip(batch["images"], batch["widths"], strict=True):
            assert not image[:, width:].any()


def test_empty_margins_are_cut_off_but_for_a_little():
    paper = np.full((100, 400), 230, np.uint8)
    line = paper.copy()
    line[40:60, 150:250:10] = 20
    found = data.trim(line)
    assert found.shape == (24, 25 + 91 + 25)  # text of 20 rows and 91 columns
    np.testing.assert_array_equal(found[2:-2, 25:-25], line[40:60, 150:241])
    np.testing.assert_array_equal(data.trim(255 - line), 255 - found)
    np.testing.assert_array_equal(data.trim(paper), paper)
    noise = np.random.default_rng(0).integers(0, 255, (30, 90)).astype(np.uint8)
    np.testing.assert_array_equal(data.trim(noise), noise)


def test_check_names_every_bad_row(tmp_path, capsys):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "tall.png", height=96, width=480)
    write_image(tmp_path / "narrow.png", width=8)
    write_image(tmp_path / "wide.png", height=4, width=4000)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    rows = [
        "a.png\tplain  text",
        "tall.png\t(a+b)",
        "",
        "a.png",
        "a.png\ttwo\tcolumns",
        "a.png\t ",
        "a.png\tÄpfel",
        "absent.png\ttext",
        "broken.png\ttext",
        "narrow.png\tbook",
        "wide.png\ttext",
        "a.png\t" + "text " * 10,
    ]
    (tmp_path / "gt.txt").write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    lines = data.load_lines([tmp_path], corpus.LATIN)
    assert [line.text for line in lines] == ["plain text", "(a+b)"]
    assert [line.image.shape for line in lines] == [(24, 120), (24, 120)]
    complaints = capsys.readouterr().err
    for complaint in (
        "gt.txt:4: the row has 0 tabs; it must have one",
        "gt.txt:5: the row has 2 tabs; it must have one",
        "gt.txt:6: a.png: no text",
        "gt.txt:7: a.png: Äpfel: not in the character set: Ä",
        "gt.txt:8: absent.png: unreadable image (No such file or directory)",
        "gt.txt:9: broken.png: unreadable image",
        "gt.txt:10: narrow.png: book: needs 5 frames, with a blank per repeat; the image has 4",
        "gt.txt:11: wide.png: the image is more than 128 times as wide as it is high",
        "gt.txt:12: a.png: text text text",
        "2 lines, 9 left out",
    ):
        assert complaint in complaints
    with pytest.raises(SystemExit, match="no such file"):
        data.load_lines([tmp_path / "absent.tsv"], corpus.LATIN)
    with pytest.raises(SystemExit, match=r"a\.png: must be a table in UTF-8"):
        data.load_lines([tmp_path / "a.png"], corpus.LATIN)
    (tmp_path / "gt.txt").rename(tmp_path / "other.txt")
    with pytest.raises(SystemExit, match="must have a table"):
        data.load_lines([tmp_path], corpus.LATIN)


def test_word_model_is_a_distribution_and_prefers_known_words():
    words = ["the", "cat", "saw", "the", "dog", "and", "the", "dog", "saw", "the", "cat"]
    listed = reading.bigrams(words)
    vocabulary = [ngram[0] for ngram in listed if len(ngram) == 1]
    model = jaxctc.NGram(listed, vocabulary=vocabulary)
    for context in ("the", "cat", "and"):
        alone = model.log10_probability([context], start=False, end=False)
        pairs = [model.log10_probability([context, w], start=False, end=False) for w in vocabulary]
        assert sum(10 ** (pair - alone) for pair in pairs) == pytest.approx(1, abs=1e-5)
    scorer = reading.word_model(words, corpus.LATIN)
    texts = ["the dog saw", "the dog was"]
    labels = [[corpus.LATIN.index(c) for c in text] for text in texts]
    known, unknown = jaxctc.score_sequence(scorer, labels)
    assert -np.inf < unknown < known
