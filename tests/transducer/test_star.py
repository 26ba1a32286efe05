"""Stars of transducers against all paths, of which any blank but the last may be a star."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import log_softmax, transducer_paths

import jaxctc

FRAMES, LENGTHS = np.array([4, 3, 1, 0, 4]), np.array([2, 0, 1, 1, 1])
T, U, WEIGHT = 4, 2, -0.7
RNG = np.random.default_rng(0)
# Of classes blank, next label, others.
LOG_PROBS = log_softmax(2 * RNG.standard_normal((5, T, U + 1, 4)))
STARS = RNG.standard_normal((T, U + 1)) - 1
KINDS = {
    "any label": {},
    "any but the next": {"star_excludes_next": True},
    "given": {"star_log_probs": np.float32(STARS)},
}


def plain_loss(blank, label, kind, monotonic):
    """Of one sequence, from the arcs within its lengths."""
    frames, spaces = blank.shape
    total = 0.0
    for path in transducer_paths(frames, spaces - 1, monotonic):
        weight = 1.0
        for t, u, is_label in path:
            if is_label:
                weight *= np.exp(label[t, u])
                continue
            arc = np.exp(blank[t, u])
            if t < frames - 1:
                star = 1 - arc
                if kind == "any but the next" and u < spaces - 1:
                    star -= np.exp(label[t, u])
                arc += np.exp(WEIGHT) * (np.exp(STARS[t, u]) if kind == "given" else star)
            weight *= arc
        total += weight
    return -np.log(total) if total else np.inf


@functools.partial(jax.jit, static_argnums=0)
def losses_and_gradients(monotonic, blank, label):
    def loss(kind, arcs):
        starred = jaxctc.rnnt_with_star(*arcs, FRAMES, LENGTHS, star_weight=WEIGHT, **KINDS[kind])
        return jaxctc.rnnt_loss_from_log_probs(*starred, FRAMES, LENGTHS, monotonic=monotonic)

    found = {}
    for kind in KINDS:
        losses, pullback = jax.vjp(functools.partial(loss, kind), (blank, label))
        found[kind] = losses, pullback(jnp.ones_like(losses))[0]
    return found


@pytest.mark.parametrize("monotonic", [False, True])
def test_losses_and_gradients_are_those_of_all_paths(monotonic):
    blank, label = LOG_PROBS[..., 0].copy(), LOG_PROBS[:, :, :U, 1].copy()
    blank[0, 1, 1], label[0, 1, 1] = -np.inf, -1e-12  # 1 - p(label) is 1e-12
    blank[4, 1, 0], label[4, 1, 0] = -1e-12, -40
    for b, (n, u) in enumerate(zip(FRAMES, LENGTHS, strict=True)):
        blank[b, n:] = blank[b, :, u + 1 :] = label[b, n:] = label[b, :, u:] = np.nan
    for kind, (losses, gradients) in losses_and_gradients(
        monotonic, np.float32(blank), np.float32(label)
    ).items():
        for b, (n, u) in enumerate(zip(FRAMES, LENGTHS, strict=True)):
            own = [blank[b, :n, : u + 1], label[b, :n, :u]]
            want = plain_loss(*own, kind, monotonic)
            np.testing.assert_allclose(losses[b], want, rtol=1e-5)
            for arcs, gradient in zip(own, gradients, strict=True):
                expected = np.zeros(gradient.shape[1:])
                for cell in np.ndindex(arcs.shape):
                    was, around = arcs[cell], []
                    for step in (1e-6, -1e-6):
                        arcs[cell] = was + step
                        around.append(plain_loss(*own, kind, monotonic))
                    arcs[cell] = was
                    if np.isfinite([was, *around]).all():
                        expected[cell] = (around[0] - around[1]) / 2e-6
                np.testing.assert_allclose(gradient[b], expected, atol=1e-5)


def test_words_missing_inside_cost_less_and_the_weight_takes_stars_away():
    # The frames say 1 3 2, and the transcript is 1 2.
    spoken, position = np.array([1, 0, 3, 2, 0]), np.array([0, 1, 1, 1, 2])
    logits = np.zeros((5, 3, 4), np.float32)
    logits[..., 0] = 9
    logits[np.arange(5), position] = 9 * np.eye(4)[spoken]
    arcs = jaxctc.rnnt_log_probs(logits, np.array([1, 2]))
    plain = jaxctc.rnnt_loss_from_log_probs(*arcs)

    def loss(**options):
        return jaxctc.rnnt_loss_from_log_probs(*jaxctc.rnnt_with_star(*arcs, **options))

    assert loss(star_weight=-1.0) < plain - 6
    assert loss(star_weight=-1.0, star_excludes_next=True) < plain - 6
    np.testing.assert_allclose(loss(star_weight=-100.0), plain, rtol=1e-6)
    np.testing.assert_allclose(loss(star_weight=-100.0, star_log_probs=0.0), plain, rtol=1e-6)
    found = jaxctc.rnnt_align(*jaxctc.rnnt_with_star(*arcs, star_weight=-1.0))
    np.testing.assert_array_equal(found.frames, [0, 3])


def test_impossible_and_broken_arcs_and_bad_arguments():
    blank, label = np.full((3, 3, 2), -1.0, np.float32), np.full((3, 3, 1), -1.0, np.float32)
    blank[1], label[1] = -np.inf, 0  # nothing but the label, so that no star is possible
    blank[2, 1, 0] = np.nan

    def losses(blank, label):
        arcs = jaxctc.rnnt_with_star(blank, label, star_excludes_next=True)
        return jaxctc.rnnt_loss_from_log_probs(*arcs)

    values, pullback = jax.vjp(losses, blank, label)
    np.testing.assert_array_equal(np.isnan(values), [False, False, True])
    assert values[1] == np.inf
    for gradient in pullback(jnp.ones_like(values)):
        assert np.isfinite(gradient[0]).all()
        np.testing.assert_array_equal(gradient[1], 0)
    with pytest.raises(ValueError, match=r"^star_weight is inf; it must be finite"):
        jaxctc.rnnt_with_star(blank, label, star_weight=np.inf)
    with pytest.raises(TypeError, match=r"^star_log_probs has dtype int32; it must be floating"):
        jaxctc.rnnt_with_star(blank, label, star_log_probs=np.int32(0))
    with pytest.raises(ValueError, match=r"has shape \(7,\); it must broadcast to \(3, 3, 2\)"):
        jaxctc.rnnt_with_star(blank, label, star_log_probs=np.zeros(7, np.float32))
