"""The published network and its weights; the import; the safety of the pickle."""

import os
import pickle

import numpy as np
import pytest
from extras import PLATES, import_or_skip_examples, needs_plates

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")

import jax  # noqa: E402
from flax import nnx  # noqa: E402

import plate_import  # noqa: E402
import plate_read  # noqa: E402
import training  # noqa: E402
from plates import models, torch_file  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402
from plates.reading import read_images  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    out = tmp_path_factory.mktemp("imported")
    plate_import.main([str(PLATES / "Final_LPRNet_model.pth"), str(out)])
    return out


@needs_plates
def test_imported_weights_give_the_published_logits(imported):
    reference = np.load(PLATES / "lprnet_reference.npz")
    model = models.build(training.load_config(imported)["model"], 68)
    training.load_model(imported, model)
    _, _, logits = read_images(model, reference["images_bgr"], PLATE_CHARACTERS)
    np.testing.assert_allclose(logits, reference["logits"], rtol=0, atol=1e-3)


@needs_plates
def test_imported_weights_read_as_many_plates_as_in_torch(imported, capsys):
    arguments = ["--checkpoint", str(imported), "--batch-size", "150", str(PLATES / "dev")]
    assert plate_read.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 151
    assert lines[-1].startswith('{"images": 150, "exact_match": 0.9, ')


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_a_reading_does_not_depend_on_the_batch(name):
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 94, 3), np.uint8)
    model = models.build({"name": name}, 11)
    together, alone = (read_images(model, part, "0123456789")[2] for part in (images, images[1:2]))
    assert together.shape == (3, models.FRAMES, 11)
    np.testing.assert_allclose(together[1:2], alone, atol=2e-4)


def test_published_normalisation_does_depend_on_the_batch():
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 94, 3), np.uint8)
    images[0] //= 8
    model = models.build({"name": "lprnet", "normalise": "batch"}, 11)
    together, alone = (read_images(model, part, "0123456789")[2] for part in (images, images[1:2]))
    assert np.abs(together[1:2] - alone).max() > 1e-2


class Hostile:
    def __reduce__(self):
        return os.system, ("echo this must not run",)


def test_a_pickle_that_calls_something_is_refused(tmp_path, capfd):
    file = tmp_path / "weights.pth"
    with file.open("wb") as stream:
        for part in (torch_file._MAGIC, 1001, {}, {"weight": Hostile()}, []):
            pickle.dump(part, stream)
    with pytest.raises(ValueError, match=r"it asks for (posix|nt)\.system"):
        torch_file.load_state_dict(file)
    assert "must not run" not in capfd.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({"a": 1})])
def test_another_file_is_refused(tmp_path, content):
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="no torch state dict"):
        torch_file.load_state_dict(file)


@needs_plates
def test_imported_norms_stay_as_they_are_while_training(imported):
    model = models.build(training.load_config(imported)["model"], 68)
    training.load_model(imported, model)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    images = np.load(PLATES / "lprnet_reference.npz")["images_bgr"][:2]
    nnx.jit(lambda model, key: model(images, key))(model, jax.random.key(0))
    after = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)
