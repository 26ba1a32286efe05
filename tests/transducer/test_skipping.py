"""The W-Transducer against all of its paths, on the recursion and as a loss."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import Case, KernelConformance, LatticeConformance
from published import DATA

import jaxctc
from jaxctc.transducer import skipping
from jaxctc.transducer.lattice import TransducerArcs


def paths(frames, labels, monotonic=False, skip_last=False):
    """Every path: its arcs, (t, u, is_label), and the skips ``("enter", t)``, ``("leave", t)``.

    Frames from 0 to t are skipped at the start, those after t at the end.
    """

    def onwards(t, u):
        if t == frames:
            if u == labels:
                yield ()
            return
        for rest in onwards(t + 1, u):
            yield ((t, u, False), *rest)
        if u < labels:
            for rest in onwards(t + monotonic, u + 1):
                yield ((t, u, True), *rest)
        if u == labels and t < frames - 1:
            last = () if skip_last else ((frames - 1, u, False),)
            yield (("leave", t), *last)

    if frames == 0:
        return []
    found = list(onwards(0, 0))
    for t in range(1, frames):
        found += [(("enter", t - 1), *rest) for rest in onwards(t, 0)]
    return found


class TestSkipping(KernelConformance, LatticeConformance):
    monotonic, skip_last = False, False
    frames = (4, 3, 1)
    labels = (2, 1, 1)

    def lattice(self, dtype=jnp.float32, seed=0):
        keys = jax.random.split(jax.random.key(seed))
        shape = (len(self.frames), max(self.frames), max(self.labels) + 1)
        blank = jax.random.normal(keys[0], shape).astype(dtype) - 1
        label = jax.random.normal(keys[1], shape).astype(dtype)[:, :, 1:] - 1
        lengths = jnp.array(self.frames), jnp.array(self.labels)
        rule = self.monotonic, -0.5, self.skip_last
        return Case(*skipping.lattice(TransducerArcs(blank, label), *lengths, *rule)[:2])

    def of_sequence(self, case, scores, b):
        frames, spaces = self.frames[b], self.labels[b] + 1

        def by_cell(x):
            x = np.asarray(x[:, :, b] if case.topology.axis == 0 else x[:, b])
            if self.monotonic:
                return x[:frames, :spaces]
            return np.array([[x[t + u, u] for u in range(spaces)] for t in range(frames)])

        return jax.tree.map(by_cell, scores)

    def paths(self, case, b):
        found, (frames, labels) = [], (self.frames[b], self.labels[b])
        for path in paths(frames, labels, self.monotonic, self.skip_last):
            counts = skipping.SkippingArcs(
                TransducerArcs(*np.zeros((2, frames, labels + 1))),
                *np.zeros((3, frames, labels + 1)),
            )
            for arc in path:
                if arc[0] == "enter":
                    counts.enter[arc[1], 0] = 1
                elif arc[0] == "leave":
                    counts.leave[arc[1], labels] = 1
                    counts.arrive[frames - 1 if self.skip_last else frames - 2, labels] = 1
                else:
                    counts.arcs[arc[2]][arc[:2]] = 1
            found.append(counts)
        return found


@jax.jit
def losses_and_gradients(blank, label, frames, lengths, score):
    """Of all kinds, for one set of arcs."""

    def one(monotonic, skip_last):
        def loss(*arcs):
            rule = {"monotonic": monotonic, "skip_last": skip_last, "skip_score": score}
            return jaxctc.w_transducer_loss(*arcs, frames, lengths, delay_penalty=0.25, **rule)

        losses, pullback = jax.vjp(loss, blank, label)
        return losses, pullback(jnp.ones_like(losses))

    return {kind: one(*kind) for kind in KINDS}


KINDS = [(False, False), (False, True), (True, False), (True, True)]


def test_losses_and_gradients_are_those_of_all_paths():
    frames, lengths = np.array([4, 3, 1, 0, 2]), np.array([2, 0, 1, 1, 2])
    generator, size = np.random.default_rng(0), len(frames)
    blank = np.float32(generator.standard_normal((size, 4, 3)))
    label = np.float32(generator.standard_normal((size, 4, 2)))
    for b in range(size):
        blank[b, frames[b] :] = blank[b, :, lengths[b] + 1 :] = np.nan
        label[b, frames[b] :] = label[b, :, lengths[b] :] = np.nan
    found = losses_and_gradients(blank, label, frames, lengths, -0.5)
    for kind, (losses, gradients) in found.items():
        for b in range(size):
            total, used = 0.0, [np.zeros((4, 3)), np.zeros((4, 2))]
            for path in paths(frames[b], lengths[b], *kind):
                arcs = [arc for arc in path if len(arc) == 3]
                score = -0.5 * (len(path) - len(arcs))
                for t, u, is_label in arcs:
                    early = 0.25 * ((frames[b] - 1) / 2 - t) if is_label else 0
                    score += (label if is_label else blank)[b, t, u] + early
                total += np.exp(score)
                for t, u, is_label in arcs:
                    used[is_label][t, u] += np.exp(score)
            want = -np.log(total) if total else np.inf
            np.testing.assert_allclose(losses[b], want, rtol=1e-5, atol=1e-6)
            for gradient, share in zip(gradients, used, strict=True):
                np.testing.assert_allclose(gradient[b], -share / (total or 1), atol=2e-6)


def test_where_skips_cost_100_it_is_the_published_transducer_loss():
    cases = json.loads((DATA / "rnnt_loss.json").read_text())["cases"]
    (case,) = (c for c in cases if c["name"] == "warp_transducer_small")
    logits, labels = np.float32(case["inputs"]["values"]), np.array(case["inputs"]["labels"])

    def loss(x):
        return jaxctc.w_transducer_loss(*jaxctc.rnnt_log_probs(x, labels), skip_score=-100.0).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    np.testing.assert_allclose(value, case["expected"]["loss"][0], rtol=1e-6)
    np.testing.assert_allclose(gradient, case["expected"]["grad"], atol=1e-6)


def test_missing_words_cost_less_than_in_the_transducer_loss():
    # The frames say 1 2 3 4, and the transcript is 2 3.
    spoken = np.array([0, 1, 0, 2, 3, 0, 4, 0])
    position = np.array([0, 0, 0, 1, 2, 2, 2, 2])  # labels of 2 3 after each frame
    logits = np.full((8, 3, 5), -1.0, np.float32)
    for t, c in enumerate(spoken):
        logits[t, :, c] = 5
    for t in (3, 4):
        logits[t, position[t], 0] = 5
    arcs = jaxctc.rnnt_log_probs(logits, np.array([2, 3]))
    plain = jaxctc.rnnt_loss_from_log_probs(*arcs)
    assert jaxctc.w_transducer_loss(*arcs, skip_score=-1.0) < plain - 5


def test_broken_arcs_and_arguments():
    blank, label = np.zeros((2, 3, 2), np.float32), np.zeros((2, 3, 1), np.float32)
    label[0, 1, 0] = np.nan
    losses = jaxctc.w_transducer_loss(blank, label)
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
    with pytest.raises(ValueError, match=r"^skip_score is inf; it must be finite"):
        jaxctc.w_transducer_loss(blank, label, skip_score=np.inf)
    with pytest.raises(TypeError, match=r"^skip_last is 1; it must be True or False"):
        jaxctc.w_transducer_loss(blank, label, skip_last=1)
