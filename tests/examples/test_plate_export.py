"""Exported readers against the checkpoint and against the decoder of the library."""

import json
from pathlib import Path

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from PIL import Image  # noqa: E402

import jaxctc  # noqa: E402
import plate_export  # noqa: E402
import plate_speed  # noqa: E402
import training  # noqa: E402
from plates import exporting, models  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402
from plates.reading import load_reader  # noqa: E402
from recognition.charsets import decode  # noqa: E402

# Of every kind that training leaves, small.
MODELS = {
    "light": {"name": "light", "width": 8, "dtype": "bfloat16"},
    "lprnet": {"name": "lprnet", "normalise": "image"},
}


def test_labels_are_those_of_the_library():
    """Repeats, blanks between repeats, ties, a row of blanks, and a row without any."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(64, 9, 4)).round(1).astype(np.float32)
    logits[0, :, 3], logits[1, :, 3] = 9, -9
    ours = jax.jit(exporting.greedy)(logits)
    best = jaxctc.ctc_greedy_decode(logits, blank_id=3)
    np.testing.assert_array_equal(ours.labels, best.labels)
    np.testing.assert_allclose(ours.confidence, jnp.exp(best.scores), rtol=1e-5)
    kept = best.labels >= 0
    scores = jnp.where(kept, jnp.exp(best.label_scores), 0)
    np.testing.assert_allclose(ours.scores, scores, rtol=1e-5)


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory) -> Path:
    """A checkpoint with weights that are not trained, and give a text for most images."""
    out = tmp_path_factory.mktemp(request.param)
    model = models.build(MODELS[request.param], len(PLATE_CHARACTERS) + 1, seed=2)
    config = {"model": MODELS[request.param], "charset": PLATE_CHARACTERS}
    training.save_model(out, model, config)
    return out


def export(run: Path, kind: str, capsys) -> bytes:
    assert plate_export.main(["--checkpoint", str(run), "--format", kind]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["same_labels"]
    assert report["largest_difference"] <= 1e-4
    return Path(report["file"]).read_bytes()


def assert_reads_like_the_checkpoint(run: Path, read) -> None:
    """One image, which is another batch size than the one that the export compares."""
    model, charset = load_reader(run, dtype="float32")
    image = np.random.default_rng(3).integers(0, 256, (1, 24, 94, 3), np.uint8)
    logits = np.asarray(nnx.jit(lambda model: model(image))(model))
    found = read(image)
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    assert [x.dtype for x in found] == [np.float32, np.int32, np.float32, np.float32]
    labels = jaxctc.ctc_greedy_decode(logits, blank_id=len(charset)).labels
    assert np.any(labels >= 0)
    np.testing.assert_array_equal(found.labels, labels)


def test_stablehlo_runs_on_any_batch_and_platform(run, capsys):
    content = export(run, "stablehlo", capsys)
    assert_reads_like_the_checkpoint(run, lambda x: exporting.run_stablehlo(content, x))
    assert jax.export.deserialize(bytearray(content)).platforms == exporting.PLATFORMS
    assert (run / "reader.charset.txt").read_text(encoding="utf-8").strip() == PLATE_CHARACTERS


@pytest.mark.filterwarnings("ignore")  # those of other packages
def test_onnx_runs_on_any_batch_without_jax(run, capsys):
    pytest.importorskip("jax2onnx", reason="needs the `export` extra")
    import onnxruntime

    content = export(run, "onnx", capsys)
    assert_reads_like_the_checkpoint(run, lambda x: exporting.run_onnx(content, x))
    about = onnxruntime.InferenceSession(content).get_modelmeta()
    assert about.custom_metadata_map["charset"] == PLATE_CHARACTERS
    read = plate_speed.onnx_reader(str(run), batch_size=2)
    images = plate_export.sample_images(PLATE_CHARACTERS)
    labels = exporting.run_onnx(content, images).labels
    assert read(images) == [decode(row, PLATE_CHARACTERS) for row in labels]


def test_the_table_of_readers(tmp_path, monkeypatch, capsys):
    for text in ("皖A1", "皖A2"):
        Image.new("RGB", (94, 24)).save(tmp_path / f"{text}-1.png")
    reading = "JAX", lambda images: ["皖A1"] * len(images)
    monkeypatch.setattr(plate_speed, "readers", lambda *_: [reading])
    plate_speed.main(["--checkpoint=x", str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| JAX | ")
    assert row.endswith(" | 1 of 2, 50.0% | 9.5%–90.5% |")
