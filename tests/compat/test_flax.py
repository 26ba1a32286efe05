"""Flax: a transducer of its modules is decoded, and `ErrorRate` works as one of its metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc

nnx = pytest.importorskip("flax.nnx", reason="needs flax")

CLASSES = 4


class Model(nnx.Module):
    """A recurrent predictor and a joint network, as one would train them."""

    def __init__(self, classes, size, rngs):
        self.embed = nnx.Embed(classes, size, rngs=rngs)
        self.cell = nnx.LSTMCell(size, size, rngs=rngs)
        self.out = nnx.Linear(size, classes, rngs=rngs)

    def predictor(self, state, label):
        state, output = self.cell(state, self.embed(label))
        return output, state

    def joint(self, frame, output):
        return self.out(jax.nn.tanh(frame + output))


def test_a_transducer_of_modules_decodes():
    size = 8
    with jax.numpy_rank_promotion("allow"):
        model = Model(CLASSES, size, nnx.Rngs(0))
        model.out.kernel[...] = 4 * model.out.kernel[...]
        frames = np.random.default_rng(2).normal(size=(3, 6, size)).astype(np.float32)
        lengths = np.array([6, 3, 5])
        start = (jnp.zeros(size), jnp.zeros(size))

        @nnx.jit
        def decode(model, frames, lengths):
            args = model.joint, model.predictor, start, frames, lengths
            return jaxctc.rnnt_greedy_decode(*args), jaxctc.rnnt_beam_search(*args, beam_width=6)

        @nnx.jit
        def log_probs(model, frames, labels):  # [T, U + 1, C], as for training
            def after(state, label):
                return model.predictor(state, label)[::-1]

            outputs = jax.lax.scan(after, start, jnp.pad(labels, (1, 0)))[1]
            return jax.nn.log_softmax(model.joint(frames[:, None], outputs[None]))

        path, found = jax.tree.map(np.asarray, decode(model, frames, lengths))
        assert path.lengths.max() > 1
        assert (found.scores[:, 0] >= path.scores - 1e-5).all()
        for b, n in enumerate(lengths):
            labels, at = path.labels[b, : path.lengths[b]], path.frames[b, : path.lengths[b]]
            table = np.asarray(log_probs(model, frames[b], np.maximum(path.labels[b], 0)))
            emitted = np.searchsorted(at, np.arange(n), side="right")  # by the end of each frame
            want = table[np.arange(n), emitted, 0].sum()
            want += table[at, np.arange(len(labels)), labels].sum()
            np.testing.assert_allclose(path.scores[b], want, rtol=1e-5)


def test_nnx_metric_sums_over_batches():
    from jaxctc.compat.flax import ErrorRate

    metrics = nnx.MultiMetric(cer=ErrorRate())
    assert float(metrics.compute()["cer"]) == 0

    @nnx.jit
    def update(metrics, hypotheses, references):
        metrics.update(hypotheses=hypotheses, references=references)

    update(metrics, jnp.array([[1, 2, -1], [3, -1, -1]]), jnp.array([[1, 2], [3, 4]]))
    update(metrics, jnp.array([[1, 2, 3], [3, 4, -1]]), jnp.array([[1, -1], [-1, -1]]))
    assert float(metrics.compute()["cer"]) == pytest.approx(5 / 5)
    metrics.reset()
    assert float(metrics.compute()["cer"]) == 0
