"""Weights in a file: written, read, refused, and those that are published."""

import json

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")

import cv2  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

import plate_publish  # noqa: E402
import plate_read  # noqa: E402
import training  # noqa: E402
from plates import calibration, data, models  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402
from plates.reading import PUBLISHED, load_reader, read_images  # noqa: E402
from recognition import weights  # noqa: E402
from recognition.results import scores  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")

SMALL = {"name": "light", "width": 8, "residuals": 2}


@pytest.fixture(scope="module")
def small():
    return models.build(SMALL, len(PLATE_CHARACTERS) + 1, seed=1)


def test_published_from_a_run_it_reads_the_same_texts(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plate_publish, "SHIFTS", (0,))  # compiles sooner
    plates = data.rendered_plates(PLATE_CHARACTERS, 6, seed=9)
    folder = tmp_path / "plates"
    folder.mkdir()
    for plate in plates:
        file = folder / f"{plate.text}.png"
        file.write_bytes(cv2.imencode(".png", plate.image)[1].tobytes())
    run, file = tmp_path / "run", tmp_path / "w.safetensors"
    training.save_model(run, small, {"model": SMALL, "charset": PLATE_CHARACTERS})
    plate_publish.main([str(run), "--calibrate", str(folder), "--out", str(file)])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["images"] == 6
    assert report["before"].keys() == report["after"].keys()
    assert report["temperature"] > 2  # it is wrong most of the time, and must not be sure
    assert cv2.imread(str(tmp_path / "w.png")).std() > 10

    found = {}
    for checkpoint in (run, file):
        assert plate_read.main(["--checkpoint", str(checkpoint), "--views=1", str(folder)]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[:-1]]
        found[checkpoint] = rows
    same = [a[1] == b[1] for a, b in zip(found[run], found[file], strict=True)]
    assert np.mean(same) > 0.8  # float16 may turn a tie
    config = weights.load_config(file)
    assert config["temperature"] == report["temperature"]
    assert config["model"] == {**SMALL, "dtype": "float32"}


def test_other_files_are_refused(small, tmp_path):
    file = tmp_path / "w.safetensors"
    weights.save_weights(file, small, {"model": SMALL, "charset": "0"})
    with pytest.raises(SystemExit, match="the weights are of another model: bias"):
        weights.load_weights(file, nnx.Linear(1, 2, rngs=nnx.Rngs(0)))
    weights.save_weights(file, nnx.Linear(1, 2, rngs=nnx.Rngs(0)), {})
    with pytest.raises(SystemExit, match=r"the shape of bias is \(2,\); it must be \(3,\)"):
        weights.load_weights(file, nnx.Linear(1, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(SystemExit, match=r"is not a run of plate_train\.py"):
        load_reader(file)
    file.write_bytes(b"weights")
    for path in (file, tmp_path / "absent.safetensors"):
        with pytest.raises(SystemExit, match="is no file of weights"):
            load_reader(path)


def test_weights_that_float16_can_not_hold_are_not_written(tmp_path):
    layer = nnx.Linear(1, 2, rngs=nnx.Rngs(0))
    for value in (1e6, np.nan):
        layer.bias[...] = jnp.array([0, value])
        with pytest.raises(ValueError, match="bias has values"):
            weights.save_weights(tmp_path / "w.safetensors", layer, {})


def test_softened_logits_are_divided(small):
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 94, 3), np.uint8)
    model = nnx.clone(small)
    before = read_images(model, images, PLATE_CHARACTERS)[2]
    calibration.soften(model, "light", 2.5)
    after = read_images(model, images, PLATE_CHARACTERS)[2]
    np.testing.assert_allclose(after, before / 2.5, atol=1e-5)
    published = nnx.eval_shape(lambda: models.LPRNet(11, rngs=nnx.Rngs(0)))
    head = getattr(published, models.HEADS["lprnet"])
    assert head.kernel.shape[-1] == head.bias.shape[-1] == 11


def test_the_published_weights_read_plates():
    assert PUBLISHED.stat().st_size <= 4e6
    model, charset = load_reader(PUBLISHED)
    assert charset == PLATE_CHARACTERS
    plates = data.rendered_plates(charset, 60, seed=8)
    texts, confidences, _ = read_images(model, data.stack_images(plates), charset)
    assert scores(texts, [plate.text for plate in plates])["exact_match"] > 0.8
    assert 0.8 < confidences.mean() < 1
