"""Training on labelled lines, and reading them."""

import json
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import import_or_skip_text

import_or_skip_text()

import cv2  # noqa: E402
from flax import nnx  # noqa: E402
from training_runs import metrics  # noqa: E402

import text_publish  # noqa: E402
import text_read  # noqa: E402
import text_train  # noqa: E402
from text import corpus, data, models  # noqa: E402
from text.reading import PUBLISHED, load_reader  # noqa: E402


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
    weights = tmp_path / "lines.safetensors"
    text_publish.main([str(out), "--out", str(weights)])
    reader = ["--checkpoint", str(weights), "--batch-size=2"]  # as in training: compiled already
    assert text_read.main([*reader, "--table", str(table), *images]) == 1
    captured = capsys.readouterr()
    assert "gt.txt:3: 2.png: unreadable image" in captured.err
    assert "broken.png: unreadable image" in captured.err
    published, *lines, scored = captured.out.splitlines()
    assert json.loads(published)["bytes"] == weights.stat().st_size
    files, texts, confidences = zip(*(line.split("\t") for line in lines), strict=True)
    assert files == ("0.png", "1.png", images[0])
    assert texts[0] == texts[2]
    assert all(0 <= float(confidence) <= 1 for confidence in confidences)
    assert json.loads(scored)["images"] == 2


def test_the_published_weights_read_lines_with_any_padding():
    model, config = load_reader(PUBLISHED)
    lines = [x for x in data.rendered_lines("latin", 90, seed=8) if x.image.shape[1] <= 96]
    widths = np.array([line.image.shape[1] for line in lines], np.int32)
    narrow, wide = (np.zeros((len(lines), 24, width), np.uint8) for width in (96, 128))
    wide[:] = np.random.default_rng(0).integers(0, 255, wide.shape)
    for row, line in enumerate(lines):
        narrow[row, :, : widths[row]] = wide[row, :, : widths[row]] = line.image
    read = nnx.jit(lambda model, images: model(images, widths))
    logits, lengths = read(model, narrow)
    padded, _ = read(model, wide)
    np.testing.assert_array_equal(lengths, (widths + 1) // 2)
    used = (np.arange(48) < lengths[:, None])[..., None]
    np.testing.assert_allclose(padded[:, :48] * used, logits * used, atol=1e-3)
    # Light ink on a dark ground is the same line.
    np.testing.assert_allclose(read(model, 255 - wide)[0], padded, atol=1e-3)
    blank = len(config["charset"])
    best = np.where(used[..., 0], logits.argmax(-1), blank)
    read = [[k for k, _ in groupby(row) if k != blank] for row in best]
    texts = ["".join(config["charset"][k] for k in row) for row in read]
    assert np.mean([a == line.text for a, line in zip(texts, lines, strict=True)]) > 0.8


def test_a_context_layer_is_a_dilated_convolution():
    context = models.Context(2, 4, rngs=nnx.Rngs(0))
    # Without the norm and its ReLU, and with weights of 2 sigmoid(0) = 1 on the channels.
    convolution = models.Conv(2, 2, (1, 5), padding=(0, 2), bias=False, rngs=nnx.Rngs(1))
    context.layer = lambda x, inside: convolution(x) * inside
    context.wide.kernel[...] *= 0
    x = np.random.default_rng(0).normal(size=(2, 1, 24, 2)).astype(np.float32)
    kernel = np.asarray(convolution.kernel[...])[0]
    padded = np.pad(x, ((0, 0), (0, 0), (8, 8), (0, 0)))
    expected = x + sum(padded[:, :, 4 * i : 4 * i + 24] @ kernel[i] for i in range(5))
    found = jax.jit(lambda x: context(x, jnp.ones((2, 1, 24, 1))))(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sums_around_pixels():
    x = np.random.default_rng(0).normal(size=(1, 20, 30)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (12, 12), (12, 12)))
    expected = [[padded[0, i : i + 25, j : j + 25].sum() for j in range(30)] for i in range(20)]
    np.testing.assert_allclose(jax.jit(models._sums_around)(x)[0], expected, atol=1e-3)


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
