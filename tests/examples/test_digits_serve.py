"""Digits heard in streams: pieces against the whole, rows used again, and sound that is bad."""

import io
import json
import os
import signal
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from extras import import_or_skip_examples
from rapidfuzz.distance import Levenshtein

import_or_skip_examples("kaldi_native_fbank")

import jax  # noqa: E402
from flax import nnx  # noqa: E402

import digits_serve  # noqa: E402
import digits_streams  # noqa: E402
import jaxctc  # noqa: E402
import training  # noqa: E402
from digits import data, listening, models, serving, streaming  # noqa: E402
from digits.streams import Pieces, Pipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")


def sound_of(seed: int, digits: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    recordings = data.tone_recordings(count=1)
    sound, _, _ = data.glue(rng, [recordings[i] for i in rng.integers(50, size=digits)])
    return (sound * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")


def write(path, sound: np.ndarray, rate: int = data.RATE) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", None))
        file.writeframes(sound.tobytes())
    return str(path)


def draw(model: nnx.Module) -> nnx.Module:
    """The model with biases, which are 0 at first, and sure of what it hears."""
    state = nnx.state(model, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    leaves = [x + 0.2 * rng.standard_normal(x.shape).astype(np.float32) for x in leaves]
    nnx.update(model, jax.tree.unflatten(tree, leaves))
    return model


def test_pieces_are_encoded_as_the_whole():
    build = nnx.jit(lambda: models.Encoder(width=8, running=True, rngs=nnx.Rngs(0)))
    encoder = draw(build())
    frames = np.array([61, 104], np.int32)
    features = np.random.default_rng(1).normal(-4, 2, (2, 104, data.MELS)).astype(np.float32)
    whole, lengths = nnx.jit(lambda model, *x: model.encode(*x))(encoder, features, frames)
    encode, found = nnx.jit(streaming.encode), []
    memory = streaming.begin(encoder, 2)
    more = np.pad(features, ((0, 0), (streaming.EARLY, 54), (0, 0)), constant_values=1e3)
    for start in range(0, 160, 8):
        x, first, memory = encode(encoder, memory, more[:, start : start + 8], frames)
        assert first[0] == start // 4 - streaming.BEHIND
        found.append(x)
    found = np.concatenate(found, 1)[:, streaming.BEHIND :]
    for row, length in enumerate(np.asarray(lengths)):
        np.testing.assert_allclose(found[row, :length], whole[row, :length], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [8000, 8051, 8099])
def test_pieces_are_the_same_however_sound_comes_in(count):
    sound = np.random.default_rng(0).normal(size=count).astype(np.float32)

    def rows(cuts):
        pieces, taken = Pieces(), []
        for part in np.split(sound, cuts):
            pieces.put(part)
            while pieces.ready:
                taken.append(pieces.take())
        pieces.end()
        while pieces.ready:
            taken.append(pieces.take())
        assert pieces.over
        return taken

    whole, cut = rows([]), rows([1, 700, 701, 4000, count - 1])
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[2:] == other[2:]
    features = np.concatenate([data.energies(row[0]) for row in cut])[streaming.EARLY :]
    expected = data.log_mel(sound)
    np.testing.assert_allclose(features[: len(expected)], expected, rtol=1e-4, atol=1e-4)
    assert cut[-1][1] == len(expected)


@pytest.fixture(scope="module", params=sorted(models.MODELS))
def run(request, tmp_path_factory, compile_once):
    """A run with a model that is not trained, and hears something in most sounds."""
    out = tmp_path_factory.mktemp(request.param)
    model = draw(models.build(request.param, running=True))
    settings = {"objective": "ctc", "streaming": True}
    training.save_model(out, model, {"model": request.param, "settings": settings})
    return out, model


def digits_of_whole(model, sound: np.ndarray, beam_width=1, knowledge=None) -> list[int]:
    features = data.log_mel(data.samples(sound.tobytes()))
    padded = np.pad(features, ((0, 400 - len(features)), (0, 0)))[None]
    frames = np.array([len(features)], np.int32)
    labels = decode(model, padded, frames, knowledge or listening.Knowledge(), beam_width)
    return [int(x) - 1 for x in labels.reshape(-1, labels.shape[-1])[0] if x >= 0]


@nnx.jit(static_argnums=4)
def decode(model, features, frames, knowledge, beam_width):
    options = {"scorer": knowledge.scorer, "scorer_weight": knowledge.weight}
    if isinstance(model, models.Encoder):
        logits, lengths = model(features, frames)
        options |= {"beam_threshold": listening.THRESHOLD}
        return jaxctc.ctc_beam_search(logits, lengths, beam_width=beam_width, **options).labels
    x, lengths = model.encoder.encode(features, frames)
    networks = model.join, lambda state, label: (model.predictor(label), state)
    given = *networks, (), model.project(x), lengths
    if beam_width == 1:
        return jaxctc.rnnt_greedy_decode(*given, monotonic=True, **options).labels
    return jaxctc.rnnt_beam_search(*given, beam_width=beam_width, monotonic=True, **options).labels


def serve(capsys, out, *more: str) -> tuple[int, dict[str, list[dict]], list[str]]:
    code = digits_serve.main([*more, "--checkpoint", str(out)])
    found = capsys.readouterr()
    told: dict[str, list[dict]] = {}
    for line in map(json.loads, found.out.splitlines()):
        told.setdefault(line["stream"], []).append(line)
    return code, told, found.err.splitlines()


def test_streams_share_rows_and_bad_ones_are_named(run, tmp_path, capsys, monkeypatch):
    out, model = run
    assert digits_streams.main(["--count=4", "--digits=3", str(tmp_path)]) == 0
    good = sorted(map(str, tmp_path.glob("*-[0-9][0-9][0-9].wav")))
    sounds = [(data.read_wave(name) * 2**15).astype("<i2") for name in good]
    good, content = good[:3], Path(good[0]).read_bytes()
    bad = {
        write(tmp_path / "rate.wav", sounds[0], 16000): "is not mono with 16 bits at 8000 Hz",
        str(tmp_path / "cut.wav"): f"is cut off: it has 8000 samples of {len(sounds[0])}",
        str(tmp_path / "no.wav"): "is empty",
        write(tmp_path / "none.wav", sounds[0][:0]): "is empty",
        str(tmp_path / "text.wav"): "is not a wav file: file does not start with RIFF id",
        str(tmp_path / "head.wav"): "is not a wav file: it ends in its header",
        str(tmp_path / "absent.wav"): "can't be read: No such file or directory",
        str(tmp_path / "fifo.wav"): "is not a file",
    }
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "cut.wav").write_bytes(content[: 44 + 16000])
    (tmp_path / "no.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_bytes(b"seven three one")
    (tmp_path / "head.wav").write_bytes(content[:3])
    pipe = io.TextIOWrapper(io.BytesIO(sounds[3].tobytes() + b"\1"))
    monkeypatch.setattr("sys.stdin", pipe)
    bad["-"] = "is cut off: its last sample has only one byte"
    encode, traced = streaming.encode, []
    monkeypatch.setattr(streaming, "encode", lambda *x: traced.append(0) or encode(*x))
    # As a program leaves it that writes to a pipe: its length is the greatest number.
    unknown, content = str(tmp_path / "unknown.wav"), bytearray(Path(good[1]).read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    Path(unknown).write_bytes(content)
    paths = [good[0], *bad, "--streams=2", unknown, *good[1:]]
    code, told, errors = serve(capsys, out, *paths)
    assert code == 1
    assert len(traced) == 1  # one program for all pieces
    assert sorted(errors[:-1]) == sorted(f"{name}: {error}" for name, error in bad.items())
    report = json.loads(errors[-1])
    assert report["failed"] == len(bad)
    assert report["digits"] == sum(map(len, told.values())) > 20
    others = ("-", sounds[3]), (unknown, sounds[1])
    for name, sound in [*zip(good, sounds, strict=False), *others]:
        heard = told[name]
        assert [line["digit"] for line in heard] == digits_of_whole(model, sound)
        times = [line["seconds"] for line in heard]
        assert times == sorted(times)
        assert 0 <= times[-1] < len(sound) / data.RATE
        assert all(0 <= line["confidence"] <= 1 for line in heard)
    said = ["".join(str(line["digit"]) for line in told[name]) for name in good]
    edits = [Levenshtein.distance(a, b[-7:-4]) for a, b in zip(said, good, strict=True)]
    assert report["digit_error_rate"] == pytest.approx(sum(edits) / 9, abs=1e-5)
    cut = [line["digit"] for line in told[str(tmp_path / "cut.wav")]]
    assert cut == digits_of_whole(model, sounds[0][:8000])


def test_a_stream_given_twice_counts_twice():
    heard = [("a-12.wav", [1, 2]), ("a-12.wav", [1]), ("pipe", [7])]
    assert serving.error_rate(heard) == 0.25


def test_a_language_model_without_digits_is_refused(tmp_path):
    arpa = tmp_path / "words.arpa"
    arpa.write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-1\tone\n-1\t<s>\n-1\t</s>\n\n\\end\\\n")
    given = [f"--language-model={arpa}", "--checkpoint=run", "-"]
    with pytest.raises(
        SystemExit, match=r"has no word 0, 1, .*it must have all digits, written 0 to"
    ):
        digits_serve.knowledge(digits_serve.parse_arguments(given))


def test_ctrl_c_tells_what_was_found(run, tmp_path, capsys, monkeypatch):
    out, _ = run
    name = write(tmp_path / "a-7.wav", sound_of(0))
    step, count = serving.Service.step, iter(range(100))

    def stopped_at(service):
        if next(count) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return step(service)

    monkeypatch.setattr(serving.Service, "step", stopped_at)
    code, told, errors = serve(capsys, out, "--streams=2", name, name)
    assert code == 130
    assert "digit_error_rate" not in json.loads(errors[-1])
    assert json.loads(errors[-1])["sound_seconds"] < 2 * len(sound_of(0)) / data.RATE
    assert len(told[name]) > 2


def test_live_files_are_heard_with_what_is_known(run, tmp_path, capsys):
    out, model = run
    sound = sound_of(0, digits=1)
    name = write(tmp_path / "a.wav", sound)
    entries = [f"-1.0\t{word}" for word in [*"0123456789", "</s>"]] + ["-99\t<s>"]
    arpa = tmp_path / "digits.arpa"
    arpa.write_text(
        f"\\data\\\nngram 1={len(entries)}\n\n\\1-grams:\n" + "\n".join(entries) + "\n\n\\end\\\n"
    )
    options = ["--beam-width=2", "--hotword=7=40", "--hotword=74=9", f"--language-model={arpa}"]
    args = digits_serve.parse_arguments([*options, "--checkpoint", str(out), name])
    expected = digits_of_whole(model, sound, 2, digits_serve.knowledge(args))
    assert expected != digits_of_whole(model, sound)
    code, told, errors = serve(capsys, out, "--live", *options, name)
    assert code == 0
    assert [line["digit"] for line in told[name]] == expected
    report = json.loads(errors[-1])
    assert report["seconds"] >= report["sound_seconds"] > 0.3
    assert report["delay_ms_p99"] >= report["delay_ms_p50"] > 0


def test_bad_arguments_have_an_error_message(tmp_path, capsys):
    for option, message in [
        ("--streams=0", "--streams must be at least 1"),
        ("--timeout=0", "--timeout must be above 0"),
        ("--hotword=7", "--hotword must be digits and a number"),
        ("--hotword=a=1", "--hotword must be digits and a number"),
    ]:
        with pytest.raises(SystemExit):
            serve(capsys, tmp_path, option, "a.wav")
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no checkpoint there"):
        serve(capsys, tmp_path, "a.wav")
    training.save_model(tmp_path / "plates", models.build("encoder"), {"model": {"name": "light"}})
    with pytest.raises(SystemExit, match=r"is not a run of digits_train\.py"):
        serve(capsys, tmp_path / "plates", "a.wav")


def test_a_pipe_gives_what_has_come():
    read, write = os.pipe()
    with open(read, "rb") as source, open(write, "wb", buffering=0) as sink:
        pipe = Pipe(SimpleNamespace(closed=False, buffer=source))
        assert len(pipe.read(5)) == 0
        sink.write(np.arange(4, dtype="<i2").tobytes())
        found = []
        while len(found) < 4:
            found += list(pipe.read(3) * 2**15)
        assert found == [0, 1, 2, 3]


def test_a_pipe_that_can_not_be_read_is_named():
    read, write = os.pipe()
    with open(read) as source, open(write, "wb"):
        names, said = ["-", "-"], []
        files = iter([source, None])
        service = serving.Service(
            SimpleNamespace(streams=1),
            names,
            live=False,
            timeout=0.02,
            tell=pytest.fail,
            complain=lambda *x: said.append(x),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serving, "Pipe", lambda _: Pipe(next(files)))
            while service.step():
                pass
    assert said == [("-", "has sent nothing for 0.02 seconds"), ("-", "is closed")]

    def broken(count):
        raise OSError(5, "Input/output error")

    pipe = Pipe(SimpleNamespace(closed=False, buffer=SimpleNamespace(read1=broken)))
    with pytest.raises(ValueError, match="can't be read: Input/output error"):
        read_all(pipe)


def read_all(pipe: Pipe) -> None:
    while pipe.read(1) is not None:
        pass


def test_a_reader_that_goes_away_ends_it_quietly(monkeypatch, capsys):
    monkeypatch.setattr(digits_serve, "load", lambda args: None)
    monkeypatch.setattr(digits_serve, "Listener", lambda *args: None)

    def told(listener, names, *, tell, **_):
        for digit in range(10):
            tell({"digit": digit})

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(digits_serve, "serve", told)
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        assert digits_serve.main(["--checkpoint=x", "a.wav"]) == 141
        gone.write("this goes nowhere")
        gone.flush()
    monkeypatch.setattr(digits_serve, "load", stopped)
    assert digits_serve.main(["--checkpoint=x", "a.wav"]) == 130
    assert capsys.readouterr().err == ""
