"""Digit strings: data, training that is stopped and resumed, and the objectives, on tones."""

import json
import os
import signal
import wave
from pathlib import Path

import numpy as np
import pytest
from extras import DIGITS, import_or_skip_examples, needs_digits

import_or_skip_examples("kaldi_native_fbank")

import jax  # noqa: E402
from flax import nnx  # noqa: E402
from training_runs import assert_same_run, at_step, metrics, weights_of  # noqa: E402

import digits_table  # noqa: E402
import digits_train  # noqa: E402
import training  # noqa: E402
from digits import augment, data, mixing, models  # noqa: E402
from digits.objectives import OBJECTIVES, make_loss, model_name  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")

SMALL = ["--batch-size=4", "--steps=4", "--save-every=2", "--log-every=1"]
SMALL += ["--strings=8", "--eval-strings=4"]


def run(out: Path, *more: str) -> None:
    digits_train.main([*SMALL, "--out", str(out), *more])


def weights(out: Path) -> list[np.ndarray]:
    model = models.build(training.load_config(out)["model"])
    return weights_of(out, model)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compile_once) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(out)
    return out


def test_run_leaves_metrics_and_scores(finished, capsys):
    assert [line["step"] for line in metrics(finished)] == [1, 2, 3, 4]
    result = json.loads((finished / "result.json").read_text())
    assert result["objective"] == "ctc"
    assert result.keys() > set(digits_table.COLUMNS)
    assert digits_table.main([str(finished)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert table[-1].startswith("| `--strings 8 --steps 4 --batch-size 4` |")
    assert digits_table.main(["--by-speaker", str(finished)]) == 0
    named = capsys.readouterr().out.splitlines()
    assert named[-1] == table[-1].replace("` |", "` | bass |", 1)
    assert len({line.count("|") for line in named}) == 1


def test_ctrl_c_saves_and_the_same_command_continues(finished, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path)
    assert stopped.value.code == 130
    assert "Stopped after step 3 of 4" in capsys.readouterr().out
    run(tmp_path)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["strings"] == 4
    assert_same_run(finished, tmp_path, weights)


def training_batch():
    strings = mixing.training_strings(data.tone_recordings(count=1), 3, [0])
    batch = next(data.training_batches(strings, 3, seed=0))
    return strings, jax.jit(augment.vary, static_argnums=2)(batch, jax.random.key(0), ())


# The full runs above and below are of the other two objectives.
@pytest.mark.parametrize("objective", sorted({*OBJECTIVES} - {"ctc", "rnnt"}))
def test_losses_have_gradients(objective):
    strings, batch = training_batch()
    model = models.MODELS[model_name(objective)](width=8, rngs=nnx.Rngs(0))
    loss = make_loss(objective, strings)
    step = nnx.jit(nnx.value_and_grad(lambda model, batch: loss(model, batch, None).mean()))
    value, gradients = step(model, batch)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))
    assert np.any(gradients["head"]["kernel"])


@pytest.mark.parametrize("objective", ["ctc", "pruned-rnnt"])
def test_bfloat16_leaves_weights_and_losses_in_float32(objective):
    strings, batch = training_batch()
    model = models.MODELS[model_name(objective)](width=8, dtype="bfloat16", rngs=nnx.Rngs(0))
    loss = make_loss(objective, strings)
    graph, weights = nnx.split(model)
    mean = lambda weights: loss(nnx.merge(graph, weights), batch, jax.random.key(0)).mean()  # noqa: E731
    value, gradients = jax.eval_shape(jax.value_and_grad(mean), weights)
    assert value.dtype == np.float32
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {np.dtype(np.float32)}
    encoder = model.encoder if objective.endswith("rnnt") else model
    logits, _ = jax.eval_shape(encoder, batch["features"], batch["frames"])
    assert logits.dtype == jax.numpy.bfloat16


def test_a_transducer_takes_the_encoder_of_a_ctc_run(finished, tmp_path):
    options = "--objective=rnnt", "--streaming", "--steps=1"
    run(tmp_path / "rnnt", "--init", str(finished), *options)
    result = json.loads((tmp_path / "rnnt" / "result.json").read_text())
    assert all(np.isfinite(result[column]) for column in digits_table.COLUMNS)
    with pytest.raises(SystemExit, match="does not fit --objective mwer"):
        run(tmp_path / "mwer", "--objective=mwer", "--init", str(tmp_path / "rnnt"))
    with pytest.raises(SystemExit, match="no checkpoint there"):
        run(tmp_path / "mwer", "--init", str(tmp_path))


def test_other_settings_are_refused(finished):
    with pytest.raises(SystemExit, match=r"settings\.seed: 0 there, 1 here"):
        run(finished, "--seed=1")


def test_bad_arguments_have_an_error_message(tmp_path, capsys):
    for arguments, message in [
        (["--steps=0"], "--steps must be at least 1"),
        (["--strings=3"], "--strings must be at least --batch-size, 4"),
        (["--seed=-1"], "--seed must be at least 0"),
        (["--objective=wfst"], "invalid choice"),
    ]:
        with pytest.raises(SystemExit):
            run(tmp_path, *arguments)
        assert message in capsys.readouterr().err
    for arguments, message in [
        (["--data", str(tmp_path / "nothing")], "no such directory"),
        (["--data", str(tmp_path)], "no recording named digit_speaker_index.wav"),
        (
            ["--unseen=nobody"],
            "--unseen is nobody; it must be one of at least two speakers: alto baritone",
        ),
    ]:
        with pytest.raises(SystemExit, match=message):
            run(tmp_path, *arguments)
    with pytest.raises(SystemExit, match="no finished run"):
        digits_table.main([str(tmp_path)])


def write_wave(path: Path, rate: int = 8000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"\1\2" * 400)


def test_bad_recordings_are_named(tmp_path):
    write_wave(tmp_path / "3_anna_12.wav")
    (recording,) = data.load_recordings(tmp_path)
    assert (recording.digit, recording.speaker, recording.index) == (3, "anna", 12)
    assert recording.sound.shape == (400,)
    write_wave(tmp_path / "4_anna_0.wav", rate=16000)
    with pytest.raises(SystemExit, match=r"4_anna_0\.wav: is not mono with 16 bits at 8000 Hz"):
        data.load_recordings(tmp_path)
    (tmp_path / "4_anna_0.wav").write_bytes(b"RIFF")
    with pytest.raises(SystemExit, match=r"4_anna_0\.wav: "):
        data.load_recordings(tmp_path)
    write_wave(tmp_path / "4_anna_0.wav")
    write_wave(tmp_path / "noise.wav")
    with pytest.raises(SystemExit, match=r"noise\.wav: the name is not"):
        data.load_recordings(tmp_path)


def test_strings_say_where_their_digits_are():
    recordings = data.tone_recordings(count=2)
    for string in data.make_strings(recordings, 5, [7]):
        assert 3 <= len(string.digits) <= 7
        bounds = string.bounds.reshape(-1)
        assert np.all(np.diff(bounds) > 0)
        # Tones are louder than what is between them.
        loud = string.features.max(1)
        frames = (np.arange(len(loud)) + 0.5) * data.HOP / data.RATE
        said = [(frames > a + 0.02) & (frames < b - 0.02) for a, b in string.bounds]
        between = np.all([(frames < a - 0.02) | (frames > b + 0.02) for a, b in string.bounds], 0)
        assert all(loud[s].mean() > loud[between].mean() + 3 for s in said)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_models_read_no_padding(name):
    strings = data.make_strings(data.tone_recordings(count=1), 3, [0])
    batch = data.stack(strings, 700)
    model = models.build(name)
    more = (batch["labels"],) if name == "transducer" else ()
    logits, lengths = model(batch["features"], batch["frames"], *more)
    inside = np.arange(logits.shape[1]) < np.asarray(lengths)[:, None]
    poisoned = batch["features"].copy()
    poisoned[np.arange(700) >= batch["frames"][:, None]] = 1e6
    again, _ = model(poisoned, batch["frames"], *more)
    np.testing.assert_array_equal(np.asarray(logits)[inside], np.asarray(again)[inside])


@needs_digits
def test_real_recordings():
    recordings = data.load_recordings(DIGITS)
    assert {r.digit for r in recordings} == set(range(10))
    for string in data.make_strings(recordings, 3, [0]):
        assert np.all(np.isfinite(string.features))
        assert len(string.digits) == len(string.bounds)
