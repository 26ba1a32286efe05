"""Parts of a training step: microbatches, averaged weights, bfloat16, and metrics."""

import struct
from pathlib import Path

import numpy as np
import pytest
from extras import import_or_skip_examples

import_or_skip_examples()

import grain  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import tiny_training  # noqa: E402
from flax import nnx  # noqa: E402
from tensorboardX.proto.event_pb2 import Event  # noqa: E402
from training_runs import assert_same_run, metrics, weights_of  # noqa: E402

import training  # noqa: E402
from training import loop, steps  # noqa: E402
from training.devices import Devices  # noqa: E402
from training.metrics import Metrics, flops  # noqa: E402

pytestmark = pytest.mark.usefixtures("compile_once")


def weights(out: Path) -> list[np.ndarray]:
    return weights_of(out, tiny_training.build())


def squares(model, batch, key):
    """A loss without batch norms and dropout."""
    found = model(batch["x"])
    return jnp.square(found - batch["y"]).mean(), {"found": found.mean()}


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_have_the_gradient_of_the_batch(microbatches):
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(8, 3)), "y": rng.normal(size=(8, 2))}
    batch = jax.tree.map(jnp.float32, batch)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    step = nnx.jit(training.value_and_gradients, static_argnums=(0, 4))
    whole = step(squares, model, batch, jax.random.key(0), 1)
    parts = step(squares, model, batch, jax.random.key(0), microbatches)
    assert jax.tree.structure(whole) == jax.tree.structure(parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6), whole, parts)


def test_each_microbatch_has_its_own_dropout_and_updates_the_norms():
    class Counting(nnx.Module):
        def __init__(self):
            self.weight, self.seen = nnx.Param(jnp.ones(())), nnx.BatchStat(jnp.zeros(()))

    def loss(model, batch, key):
        model.seen[...] += batch.sum()
        drawn = jax.random.uniform(key)
        return model.weight[...] * drawn, jnp.square(drawn)

    model = Counting()
    value, square, _ = training.value_and_gradients(
        loss, model, jnp.arange(8.0), jax.random.key(0), 4
    )
    assert model.seen[...] == 28
    assert square > value**2 + 1e-4  # drawn numbers differ


def test_the_average_is_that_of_the_weights_after_each_step(tmp_path):
    decay, steps = 0.8, 2
    after = []
    for n in range(1, steps + 1):  # continued for one step each
        tiny_training.main(["--out", str(tmp_path / "raw"), f"--steps={n}", "--save-every=1"])
        after.append(weights(tmp_path / "raw"))
    tiny_training.main(["--out", str(tmp_path / "ema"), f"--steps={steps}", f"--ema={decay}"])
    shares = decay ** np.arange(steps)[::-1]
    for found, *each in zip(weights(tmp_path / "ema"), *after, strict=True):
        expected = np.tensordot(shares / shares.sum(), np.array(each, np.float64), 1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_run_with_all_options_continues_exactly(tmp_path):
    settings = ["--ema=0.9", "--accumulate=2", "--dtype=bfloat16"]
    tiny_training.main([*settings, "--out", str(tmp_path / "one")])
    with pytest.raises(SystemExit) as stopped:
        tiny_training.main(
            [*settings, "--out", str(tmp_path / "two"), "--signal", "0", "4", "SIGTERM"]
        )
    assert stopped.value.code == 130
    tiny_training.main([*settings, "--out", str(tmp_path / "two")])
    assert_same_run(tmp_path / "one", tmp_path / "two", weights)
    assert metrics(tmp_path / "one")[-1]["loss"] < 0.6 * metrics(tmp_path / "one")[0]["loss"]
    with pytest.raises(SystemExit, match=r"ema: 0\.9 there, 0\.0 here"):
        tiny_training.main([*settings[1:], "--out", str(tmp_path / "two")])


def test_a_step_is_compiled_for_each_shape_of_a_batch(tmp_path, monkeypatch):
    compiled = []

    def noted(*arguments):
        compiled.append(arguments[-1].shape)
        return steps.compile_step(*arguments)

    monkeypatch.setattr(loop, "compile_step", noted)

    def train_step(model, optimizer, batch):
        value, gradients = nnx.value_and_grad(lambda model: jnp.square(model(batch) - 1).mean())(
            model
        )
        optimizer.update(model, gradients)
        return {"loss": value, "width": jnp.float32(batch.shape[1])}

    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    optimizer = training.make_optimizer(model, learning_rate=0.1, weight_decay=0.0, steps=10)
    rows = grain.MapDataset.range(20).map(lambda i: np.ones((1 + i // 2 % 2, 1), np.float32))
    batches = iter(rows.batch(2).to_iter_dataset())
    training.train(
        train_step,
        model,
        optimizer,
        batches,
        Devices("data", 2),
        out=tmp_path,
        steps=4,
        config={},
        log_every=2,
    )
    assert compiled == [(2, 1, 1), (2, 2, 1)]
    assert [line["width"] for line in metrics(tmp_path)] == [1.5, 1.5]


def test_flops_are_those_of_the_products():
    product = jax.jit(jnp.matmul).lower(jnp.ones((64, 32)), jnp.ones((32, 16))).compile()
    assert flops(product, Devices("data", 4)) == 2 * 64 * 32 * 16
    assert flops(product, Devices("data", 4, microbatches=2)) == 4 * 64 * 32 * 16


def events(folder: Path) -> list[Event]:
    """Reads the records of TensorBoard's files: length, checksum, event, checksum."""
    found = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_tensorboard_has_the_metrics(tmp_path):
    with Metrics(tmp_path, 0) as written:
        written.write(5, {"loss": 2.0, "images/s": 10.0})
        written.write(10, {"loss": 1.0})
    written = events(tmp_path / "tensorboard")
    scalars = [(e.step, v.tag, v.simple_value) for e in written for v in e.summary.value]
    assert scalars == [(5, "loss", 2.0), (5, "images/s", 10.0), (10, "loss", 1.0)]
    with Metrics(tmp_path, 5):  # continues after step 5, so that the metrics of step 10 are removed
        pass
    assert [line["step"] for line in metrics(tmp_path)] == [5]
    restarts = [e.step for e in events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert restarts == [1, 6]


def test_muon_makes_updates_of_kernels_orthogonal():
    model = nnx.Conv(3, 8, 5, rngs=nnx.Rngs(0))
    optimizer = training.make_optimizer(
        model, learning_rate=1.0, weight_decay=0.0, steps=10, name="muon"
    )
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), nnx.state(model, nnx.Param)
    )
    before = jax.tree.map(np.asarray, nnx.state(model))
    for _ in range(2):  # the rate of the first step is 0
        optimizer.update(model, gradients)
    moved = jax.tree.map(lambda a, b: np.asarray(a - b), before, nnx.state(model))
    matrix = moved["kernel"][...].reshape(15, 8)
    sizes = np.linalg.svd(matrix, compute_uv=False)
    assert sizes.min() / sizes.max() > 0.5
    assert np.sqrt(np.mean(matrix**2)) == pytest.approx(0.2, rel=0.3)
    assert np.all(np.sign(moved["bias"][...]) == np.sign(gradients["bias"][...]))
