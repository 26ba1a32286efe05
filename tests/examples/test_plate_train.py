"""Training that is stopped and continued, and reading with its checkpoints."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples("cv2", "fontpkg_barlow_condensed", "pylopdf_fonts_zh_cn")

import cv2  # noqa: E402
import jax  # noqa: E402
from flax import nnx  # noqa: E402
from training_runs import assert_same_run, at_step, metrics, weights_of  # noqa: E402

import plate_read  # noqa: E402
import plate_train  # noqa: E402
import training  # noqa: E402
from plates import data, models  # noqa: E402
from plates.charset import PLATE_CHARACTERS  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")

SMALL = ["--batch-size=4", "--steps=6", "--save-every=2", "--log-every=1", "--eval-images=6"]
SMALL += ["--optimizer=adamw"]  # compiles sooner than the default one


def run(out: Path, *more: str) -> None:
    plate_train.main([*SMALL, "--out", str(out), *more])


def weights(out: Path) -> list[np.ndarray]:
    config = training.load_config(out)
    model = models.build(config["model"], len(config["charset"]) + 1)
    return weights_of(out, model)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compile_once) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(out)
    return out


def test_run_leaves_metrics_pictures_and_scores(finished):
    assert [line["step"] for line in metrics(finished)] == [1, 2, 3, 4, 5, 6]
    assert metrics(finished)[0].keys() == {"step", "loss", "exact_match", "character_error_rate"}
    first = json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])
    assert first["images/s"] == pytest.approx(4 / first["seconds/step"])
    # 58 million operations an image, and about as many again for either gradient.
    assert first["flop/s"] * first["seconds/step"] == pytest.approx(4 * 3 * 58e6, rel=0.1)
    result = json.loads((finished / "result.json").read_text())
    assert result["images"] == 6
    assert result.keys() >= {"exact_match", "character_error_rate"}
    for name in ("readings.png", "posteriors.png"):
        assert cv2.imread(str(finished / name)).std() > 10


def test_ctrl_c_saves_and_the_same_command_continues(finished, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path)
    assert stopped.value.code == 130
    assert "Stopped after step 3 of 6" in capsys.readouterr().out
    run(tmp_path)
    assert_same_run(finished, tmp_path, weights)


def test_a_crash_loses_only_what_came_after_the_checkpoint(finished, tmp_path, monkeypatch):
    def crash():
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        at_step(patch, 6, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # the crash came while this was written
    run(tmp_path)
    assert_same_run(finished, tmp_path, weights)


def test_a_finished_run_is_tested_again_but_not_trained(finished, monkeypatch, capsys):
    at_step(monkeypatch, 1, lambda: pytest.fail("trained again"))
    with monkeypatch.context() as patch:  # a process that is not the first one writes nothing
        patch.setattr(training, "is_first", lambda: False)
        (finished / "result.json").unlink()
        run(finished)
        assert not (finished / "result.json").exists()
        assert not capsys.readouterr().out
    run(finished, "--adapt")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 6


def test_other_settings_are_refused(finished):
    with pytest.raises(SystemExit, match=r"settings\.seed: 0 there, 1 here"):
        run(finished, "--seed=1")


def test_averaged_weights_in_bfloat16_are_what_is_read_with(tmp_path, monkeypatch):
    judged = []
    keep = lambda model, *_: judged.extend(jax.tree.leaves(nnx.state(model)))  # noqa: E731
    monkeypatch.setattr(plate_train, "judge", keep)
    run(tmp_path, "--dtype=bfloat16", "--accumulate=2", "--ema=0.9", "--steps=2")
    light = {"name": "light", "residuals": 2, "dtype": "bfloat16"}
    assert training.load_config(tmp_path)["model"] == light
    for a, b in zip(judged, weights(tmp_path), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.dtype == np.float32
    assert all(np.isfinite(line["loss"]) for line in metrics(tmp_path))


def test_real_plates_mix_with_rendered_ones_and_weights_are_taken_over(finished, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for plate in data.rendered_plates(PLATE_CHARACTERS, 5, seed=9):
        file = folder / f"{plate.text}-1.png"
        file.write_bytes(cv2.imencode(".png", plate.image)[1].tobytes())
    (folder / "皖A00000.png").write_bytes(b"broken")
    real = ["--train-data", str(folder), "--eval-data", str(folder)]
    run(tmp_path / "run", "--init", str(finished), *real)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 5

    assert plate_read.main(["--checkpoint", str(tmp_path / "run"), str(folder)]) == 1
    captured = capsys.readouterr()
    assert "皖A00000.png: unreadable image" in captured.err
    lines = captured.out.splitlines()
    assert len(lines) == 6
    file, text, confidence = lines[0].split("\t")
    assert file.endswith("-1.png")
    assert set(text) <= set(PLATE_CHARACTERS)
    assert 0 <= float(confidence) <= 1
    assert json.loads(lines[-1])["images"] == 5


def test_names_that_would_break_a_line_are_escaped(finished, tmp_path, capsys):
    name = "皖A12345-\t\n\r\\.png"
    picture = data.rendered_plates(PLATE_CHARACTERS, 1, seed=9)[0].image
    (tmp_path / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    assert (
        plate_read.main(["--checkpoint", str(finished), "--views=1", "--adapt", str(tmp_path)]) == 0
    )
    line, _ = capsys.readouterr().out.splitlines()
    file, _, _ = line.split("\t")
    assert file.endswith(r"皖A12345-\t\n\r\\.png")


def test_weights_for_other_characters_are_refused(finished, tmp_path):
    charset = tmp_path / "charset.txt"
    charset.write_text("皖A0", encoding="utf-8")
    with pytest.raises(SystemExit, match="has another character set"):
        run(tmp_path / "run", "--init", str(finished), "--charset", str(charset))


def test_reading_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no checkpoint there"):
        plate_read.main(["--checkpoint", str(tmp_path), str(tmp_path)])
