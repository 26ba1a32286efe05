"""Stars, which match labels missing from a transcript."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from oracles import collapse

import jaxctc


def test_stars_stand_for_missing_labels():
    # With a star of weight 0 and sure logits, missing labels do not change the score.
    frames = jnp.array([2, 0, 1, 0, 3, 3])
    log_probs = jnp.log(0.97 * jax.nn.one_hot(frames, 4) + 0.0075)
    starred = jaxctc.with_star(log_probs)
    np.testing.assert_allclose(
        jnp.exp(starred[:, 4]), jnp.exp(log_probs[:, 1:]).sum(axis=1), rtol=1e-6
    )
    missing = jaxctc.fsa_score(jaxctc.ctc_fsa([1]), log_probs)
    partly = jaxctc.fsa_score(jaxctc.ctc_fsa([1], star_id=4), starred)
    charged = jaxctc.fsa_score(jaxctc.ctc_fsa([1], star_id=4, star_weight=-2.0), starred)
    assert missing < -8
    assert partly > -0.3
    np.testing.assert_allclose(charged - partly, -4, atol=0.2)  # two stars


def test_stars_that_exclude_the_next_label():
    """Against all sequences of labels and stars, where no star is the label after it."""
    classes, star, wanted = 3, 3, [1, 2, 2]
    log_probs = jax.nn.log_softmax(np.random.default_rng(0).normal(0, 3, (5, classes)))
    starred = jaxctc.with_star(log_probs, excluding=True)
    probs = np.exp(np.asarray(log_probs, np.float64))
    of_star = {star: probs[:, 1] + probs[:, 2], star + 2: probs[:, 2], star + 3: probs[:, 1]}
    for c, want in of_star.items():
        np.testing.assert_allclose(jnp.exp(starred[:, c]), want, rtol=1e-5)
    weights = of_star | {c: probs[:, c] for c in range(classes)}

    def reads(tokens):
        done = 0
        for token in tokens:
            expected = wanted[done] if done < len(wanted) else None
            if token == expected:
                done += 1
            elif token != (star if expected is None else star + 1 + expected):
                return False
        return done == len(wanted)

    total = sum(
        np.prod([weights[c][t] for t, c in enumerate(path)])
        for path in itertools.product(weights, repeat=5)
        if reads(collapse(path, 0))
    )
    fsa = jaxctc.ctc_fsa(wanted, star_id=star, star_excludes_next=True)
    np.testing.assert_allclose(jaxctc.fsa_score(fsa, starred), np.log(total), rtol=1e-5)


def test_the_sum_of_others_is_exact_where_one_has_almost_all():
    log_probs = jnp.array([[-jnp.inf, 0.0, -70.0, -71.0], [0.0, -jnp.inf, -jnp.inf, -5.0]])
    others, pullback = jax.vjp(lambda x: jaxctc.with_star(x, excluding=True)[:, 5:], log_probs)
    want = [[0, np.logaddexp(-70, -71), 0, 0], [-5, -5, -5, -np.inf]]
    np.testing.assert_allclose(others, want, rtol=1e-6, atol=1e-6)
    (gradient,) = pullback(jnp.ones_like(others).at[:, 0].set(0))
    first = np.exp(-70 - np.logaddexp(-70, -71))
    want = [[0, 2, first, 1 - first], [0, 0, 0, 2]]
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-6)


def test_the_star_of_padding_and_of_no_label_has_no_gradient():
    log_probs = jnp.array([[0.0, -1, -2], [0, -jnp.inf, -jnp.inf], [jnp.nan] * 3])
    star, pullback = jax.vjp(lambda x: jaxctc.with_star(x)[:, 3], log_probs)
    np.testing.assert_allclose(star, [np.logaddexp(-1, -2), -np.inf, np.nan], rtol=1e-6)
    (gradient,) = pullback(jnp.ones(3))
    assert np.isfinite(gradient).all()
    assert not gradient[1:].any()
