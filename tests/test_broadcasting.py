"""Batch axes broadcast as in numpy, and logits that several sequences share are not copied."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxctc

T, C, S = 9, 5, 3
GENERATOR = np.random.default_rng(0)


def normal(*shape):
    return GENERATOR.standard_normal(shape).astype(np.float32)


def labels_of(*batch):
    return GENERATOR.integers(1, C, (*batch, S))


PRIORS = np.log(np.array([0.6, 0.1, 0.1, 0.1, 0.1], np.float32))
FUNCTIONS = {
    "ctc_loss": jaxctc.ctc_loss,
    "ctc_loss_from_features": functools.partial(
        jaxctc.ctc_loss_from_features, jnp.sin, frames_per_chunk=4
    ),
    "ctc_posteriors": jaxctc.ctc_posteriors,
    "forced_align": jaxctc.forced_align,
    "wildcard": functools.partial(jaxctc.forced_align, wildcard_id=4),
    "ctc_entropy": jaxctc.ctc_entropy,
    "ctc_prior_loss": functools.partial(jaxctc.ctc_prior_loss, log_priors=PRIORS),
    "ctc_mwer_loss": functools.partial(jaxctc.ctc_mwer_loss, beam_width=2),
    "intermediate_ctc_loss": lambda x, *rest: jaxctc.intermediate_ctc_loss(
        x, jnp.stack([x[..., ::-1], 2 * x]), *rest
    ),
}
# Batch axes of logits, labels, lengths of logits, and lengths of labels.
SHAPES = {
    "candidates": ((), (7,), (), ()),
    "ragged candidates": ((), (7,), (7,), (7,)),
    "one text": ((4,), (), (4,), ()),
    "a table": ((2, 1), (3,), (2, 1), (3,)),
    "in the middle": ((2, 1, 3), (2, 4, 3), (4, 1), (2, 1, 1)),
    "lengths alone": ((), (), (3, 1), (2,)),
    "nothing": ((), (0,), (), ()),
    "nothing of some": ((2, 1), (2, 0), (), ()),
}


@functools.cache
def arguments(shapes):
    own, of_labels, of_frames, of_lengths = SHAPES[shapes]
    return (
        normal(*own, T, C),
        labels_of(*of_labels),
        GENERATOR.integers(5, T + 1, of_frames),
        GENERATOR.integers(1, S + 1, of_lengths),
    )


def copied(logits, labels, frames, lengths):
    batch = np.broadcast_shapes(
        logits.shape[:-2], labels.shape[:-1], np.shape(frames), np.shape(lengths)
    )
    return (
        jnp.broadcast_to(logits, (*batch, T, C)),
        jnp.broadcast_to(labels, (*batch, S)),
        jnp.broadcast_to(frames, batch),
        jnp.broadcast_to(lengths, batch),
    )


def assert_close(got, want):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6, atol=2e-6), got, want)


def value_and_gradient(function, logits, *rest):
    """All results, and the gradient of the sum of some function of those that are real."""

    def total(logits):
        found = function(logits, *rest)
        real = [x for x in jax.tree.leaves(found) if jnp.issubdtype(x.dtype, jnp.floating)]
        weights = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in real]
        return sum(jnp.sum(x * w) for x, w in zip(real, weights, strict=True)), found

    gradient, found = jax.grad(total, has_aux=True)(logits)
    return found, gradient


CASES = [("ctc_loss", shapes) for shapes in SHAPES]
CASES += [(name, shapes) for name in FUNCTIONS for shapes in ("in the middle", "nothing of some")]
CASES += [("forced_align", "ragged candidates"), ("ctc_prior_loss", "ragged candidates")]


@pytest.mark.parametrize(("name", "shapes"), sorted({*CASES}))
def test_broadcasting_is_copying(name, shapes):
    def of_copies(*given):
        return value_and_gradient(lambda *x: FUNCTIONS[name](*copied(*x)), *given)

    given = arguments(shapes)
    run = jax.jit(functools.partial(value_and_gradient, FUNCTIONS[name]))
    assert_close(run(*given), jax.jit(of_copies)(*given))


def test_eagerly_too_and_in_half_precision():
    logits, labels, frames, lengths = arguments("a table")
    half = jnp.asarray(logits, jnp.bfloat16)
    losses = jaxctc.ctc_loss(half, labels, frames, lengths)
    assert losses.shape == (2, 3)
    assert_close(losses, jaxctc.ctc_loss(*copied(half, labels, frames, lengths)))
    gradient = jax.grad(lambda x: jaxctc.ctc_loss(x, labels, frames, lengths).sum())(half)
    assert gradient.shape == half.shape
    assert gradient.dtype == jnp.bfloat16


def test_what_shared_logits_hold_past_a_length_changes_nothing_of_that_sequence():
    logits, labels = normal(T, C), labels_of(3)
    logits[6:] = np.nan
    frames = np.array([5, 6, 9])
    losses, gradient = value_and_gradient(jaxctc.ctc_loss, logits, labels[:2], frames[:2])
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient[:6]).all()
    np.testing.assert_array_equal(gradient[6:], 0)
    losses = jaxctc.ctc_loss(logits, labels, frames)
    np.testing.assert_array_equal(np.isnan(losses), [False, False, True])
    found = jaxctc.forced_align(logits, labels, frames)
    np.testing.assert_array_equal(np.isnan(found.score), [False, False, True])


def test_derivatives_of_higher_order_and_vmap():
    logits, labels = normal(2, 4, 3), np.array([[1, 2], [2, 2], [1, 1]])
    loss = jax.jit(jax.vmap(lambda x: jaxctc.ctc_loss(x, labels)))
    assert_close(loss(logits), jaxctc.ctc_loss(logits[:, None], labels))

    def total(broadcast):
        def of(x):
            x = x if broadcast else jnp.broadcast_to(x, (3, 4, 3))
            return jaxctc.ctc_loss(x, labels).sum()

        return jax.jit(jax.hessian(of))(logits[0])

    np.testing.assert_allclose(total(True), total(False), atol=1e-5)


def test_memory_is_of_one_copy_of_the_logits():
    shape, count = (60, 2000), 50
    logits = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct((count, 10), jnp.int32)
    size = 4 * shape[0] * shape[1]
    losses = {
        "loss": jaxctc.ctc_loss,
        "posteriors": lambda x, y: jaxctc.ctc_posteriors(x, y).labels,
        "alignment": lambda x, y: jaxctc.forced_align(x, y).score,
        "entropy": jaxctc.ctc_entropy,
        "priors": lambda x, y: jaxctc.ctc_prior_loss(x, y, log_priors=jnp.zeros(2000)),
    }
    for name, loss in losses.items():
        value = jax.jit(lambda x, y, f=loss: f(x, y).sum())
        for function in (value, jax.jit(jax.grad(value))):
            analysis = function.lower(logits, labels).compile().memory_analysis()
            assert analysis is not None
            assert analysis.temp_size_in_bytes < 8 * size, (
                name
            )  # a copy for each sequence would be 50 times the size


# Integers are cheap to copy.


def test_feasibility_and_edits():
    labels, frames = labels_of(3), np.array([[2], [3], [9]])
    got = jaxctc.is_feasible(labels, frames)
    want = jaxctc.is_feasible(np.broadcast_to(labels, (3, 3, S)), np.broadcast_to(frames, (3, 3)))
    np.testing.assert_array_equal(got, want)
    hypotheses, references = labels_of(2, 4), labels_of(2, 1)
    got = jaxctc.edit_operations(hypotheses, references)
    assert_close(got, jaxctc.edit_operations(hypotheses, np.broadcast_to(references, (2, 4, S))))
    assert got.distance.shape == (2, 4)
    np.testing.assert_array_equal(jaxctc.edit_distance(labels, labels[0], 2, 1).shape, (3,))


# Transducers: candidates of one encoder output.


def joint(encoder, predictor):
    return jnp.tanh(encoder + predictor) @ jnp.asarray(WEIGHTS)


WEIGHTS = normal(6, C)


def test_a_transducer_rescores_candidates_of_one_encoder_output():
    encoder, predictor, labels = normal(T, 6), normal(7, S + 1, 6), labels_of(7)
    frames, lengths = GENERATOR.integers(5, T + 1, 7), GENERATOR.integers(1, S + 1, 7)

    def rescored(encoder):
        return jaxctc.rnnt_loss_from_joint(
            joint, encoder, predictor, labels, frames, lengths, frames_per_chunk=4
        )

    def copied(encoder):
        return rescored(jnp.broadcast_to(encoder, (7, T, 6)))

    for got, want in zip(
        jax.jit(functools.partial(value_and_gradient, rescored))(encoder),
        jax.jit(functools.partial(value_and_gradient, copied))(encoder),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_labels_and_lengths_of_transducers():
    logits, durations = normal(2, 1, T, S + 1, C), normal(2, 1, T, S + 1, 2)
    labels, lengths = labels_of(3), np.array([3, 2, 1])
    whole = np.broadcast_to(logits, (2, 3, T, S + 1, C)), np.broadcast_to(labels, (2, 3, S))
    lasting = np.broadcast_to(durations, (2, 3, T, S + 1, 2))
    every = np.full((2, 3), 8), np.broadcast_to(lengths, (2, 3))
    assert_close(jaxctc.rnnt_loss(logits, labels, 8, lengths), jaxctc.rnnt_loss(*whole, *every))
    assert_close(
        jaxctc.tdt_loss(logits, durations, labels, 8, lengths, durations=(0, 1)),
        jaxctc.tdt_loss(whole[0], lasting, whole[1], *every, durations=(0, 1)),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: jaxctc.ctc_loss(normal(2, T, C), labels_of(3)),
            r"^labels has the batch axes \(3,\); they must broadcast with \(2,\)\.$",
        ),
        (
            lambda: jaxctc.ctc_loss(normal(T, C), labels_of(3), [9, 9]),
            r"^logit_lengths has the batch axes \(2,\); they must broadcast with \(3,\)\.$",
        ),
        (
            lambda: jaxctc.ctc_loss(normal(T, C), labels_of(3), None, [[3, 3]]),
            r"^label_lengths has the batch axes \(1, 2\); they must broadcast with \(3,\)\.$",
        ),
        (
            lambda: jaxctc.ctc_loss(normal(T, C), labels_of(3), 10),
            r"^logit_lengths has the value 10; it must be in 0…9\.$",
        ),
        (
            lambda: jaxctc.edit_distance(labels_of(2), labels_of(3)),
            r"^references has the batch axes \(3,\); they must broadcast with \(2,\)\.$",
        ),
        (
            lambda: jaxctc.rnnt_loss(normal(2, T, S + 1, C), labels_of(3)),
            r"^labels has the batch axes \(3,\); they must broadcast with \(2,\)\.$",
        ),
    ],
)
def test_axes_that_do_not_broadcast(call, message):
    with pytest.raises(ValueError, match=message):
        call()
