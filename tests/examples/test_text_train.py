"""Training on labelled lines, and reading them."""

import json

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "faker", "fontpkg_arimo", "fontpkg_ibm_plex_serif")

import cv2  # noqa: E402
from flax import nnx  # noqa: E402
from training_runs import metrics  # noqa: E402

import text_read  # noqa: E402
import text_train  # noqa: E402
from text import corpus, models  # noqa: E402


@pytest.fixture
def table(tmp_path):
    """A table of lines, in a folder with their images and a file of characters."""
    folder = tmp_path / "lines"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, width in enumerate((70, 96)):
        image = rng.integers(0, 255, (24, width)).astype(np.uint8)
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    rows = ["0.png\ta b", "1.png\tcab", "2.png\tabc"]
    (folder / "gt.txt").write_text("\n".join(rows))
    (folder / "characters.txt").write_text("a b c")
    return folder / "gt.txt"


def run(table, out, *more: str) -> None:
    arguments = ["--characters", str(table.with_name("characters.txt")), "--real-share=1"]
    arguments += ["--data", str(table), "--eval-data", str(table), "--batch-size=2", "--width=1"]
    arguments += ["--steps=3", "--save-every=3", "--log-every=1", "--optimizer=adamw"]
    text_train.main([*arguments, "--out", str(out), *more])


def test_a_run_leaves_scores_and_reads(table, tmp_path, capsys):
    out = tmp_path / "run"
    run(table, out)
    assert all(np.isfinite(line["loss"]) for line in metrics(out))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["lines"] == 2
    assert result.keys() >= {"exact_match", "character_error_rate"}
    assert cv2.imread(str(out / "readings.png")).std() > 10

    (table.parent / "broken.png").write_bytes(b"no image")
    images = [str(table.with_name("0.png")), str(table.with_name("broken.png"))]
    reader = ["--checkpoint", str(out), "--batch-size=2"]  # as in training: compiled already
    assert text_read.main([*reader, "--table", str(table), *images]) == 1
    captured = capsys.readouterr()
    assert "gt.txt:3: 2.png: unreadable image" in captured.err
    assert "broken.png: unreadable image" in captured.err
    *lines, scored = captured.out.splitlines()
    files, texts, confidences = zip(*(line.split("\t") for line in lines), strict=True)
    assert files == ("0.png", "1.png", images[0])
    assert texts[0] == texts[2]
    assert all(0 <= float(confidence) <= 1 for confidence in confidences)
    assert json.loads(scored)["images"] == 2


def test_logits_do_not_depend_on_the_padding():
    model = models.build({"width": 1}, 4)
    rng = np.random.default_rng(0)
    image, noise = (rng.integers(0, 255, (1, 24, 48)).astype(np.uint8) for _ in range(2))
    noise[..., :31] = image[..., :31]
    model.eval()
    read = nnx.jit(lambda model, images: model(images, np.array([31], np.int32)))
    alone, lengths = read(model, image[..., :32])
    padded, _ = read(model, noise)
    assert lengths == 16
    np.testing.assert_allclose(padded[:, :16], alone, atol=1e-5)
    # Light ink on a dark ground is the same line.
    inverted, _ = read(model, 255 - noise)
    np.testing.assert_allclose(inverted, padded, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--characters=cyrillic"], "--characters is cyrillic; it must be latin, greek or a file"),
        (["--width=0"], "--width must be at least 1"),
        (["--real-share=2"], "--real-share must be between 0 and 1"),
    ],
)
def test_bad_options_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        text_train.main(arguments)
    assert message in capsys.readouterr().err


def test_characters_of_a_file_have_a_space_and_no_built_in_words(tmp_path):
    file = tmp_path / "characters.txt"
    file.write_text("ä b\nc", encoding="utf-8")
    assert corpus.charset_of(str(file)) == " äbc"
    with pytest.raises(SystemExit, match="no built-in words"):
        corpus.words_for("built-in", str(file), " äbc")
    text = tmp_path / "text.txt"
    text.write_text("bä  cc\nxyz", encoding="utf-8")
    assert corpus.words_for(str(text), str(file), " äbc") == ["bä", "cc"]
