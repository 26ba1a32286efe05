"""The drop-in for torch against torch's own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import DATA

import jaxctc
from jaxctc import compat

_TORCH = np.load(DATA / "torch_ctc.npz")


CASES = sorted({key.split(".")[0] for key in _TORCH})


def torch_case(name):
    fields = {k.split(".")[1]: _TORCH[k] for k in _TORCH if k.startswith(f"{name}.")}
    options = {
        "blank": int(fields["blank"]),
        "reduction": str(fields["reduction"]),
        "zero_infinity": bool(fields["zero_infinity"]),
    }
    return fields, options


@pytest.mark.parametrize(
    ("name", "jitted"), [(n, False) for n in CASES] + [(n, True) for n in CASES[3::6]]
)
def test_torch_numbers(name, jitted):
    case, options = torch_case(name)

    def total(logits, targets, input_lengths, target_lengths):
        log_probs = jax.nn.log_softmax(logits)
        loss = compat.torch.ctc_loss(log_probs, targets, input_lengths, target_lengths, **options)
        return loss.sum(), loss

    arguments = [case["logits"].astype(np.float32), case["targets"].astype(np.int64)]
    lengths = tuple(case["input_lengths"].tolist()), tuple(case["target_lengths"].tolist())
    value_and_gradient = jax.value_and_grad(total, has_aux=True)
    if jitted:  # lengths traced, concatenated targets too
        (_, loss), gradient = jax.jit(value_and_gradient)(*arguments, *map(jnp.array, lengths))
    else:
        (_, loss), gradient = value_and_gradient(*arguments, *lengths)
    np.testing.assert_allclose(loss, case["loss"], rtol=2e-6)
    # Where torch has NaN, for an infeasible pair, there are zeros.
    np.testing.assert_allclose(gradient, np.nan_to_num(case["grad"]), atol=2e-6)


def test_the_plates_tutorial():
    """Four plates, 68 classes with the blank last, 18 frames, targets in one row."""
    case, _ = torch_case("02")
    log_probs = jax.nn.log_softmax(case["logits"].astype(np.float32))
    plates = [
        (18, 45, 33, 37, 40, 49, 63),
        (4, 54, 51, 34, 53, 37, 38),
        (22, 56, 37, 38, 33, 39, 34, 46),
        (2, 41, 44, 37, 39, 35, 33, 40),
    ]
    targets = jnp.array([character for plate in plates for character in plate])
    np.testing.assert_array_equal(targets, case["targets"])
    ctc_loss = jaxctc.CTCLoss(blank=67, reduction="mean")
    loss = ctc_loss(log_probs, targets, (18, 18, 18, 18), (7, 7, 8, 8))
    np.testing.assert_allclose(loss, 8.305155529420176, rtol=1e-6)

    @jax.jit
    def with_static_lengths(log_probs, targets):
        return ctc_loss(log_probs, targets, (18, 18, 18, 18), (7, 7, 8, 8))

    np.testing.assert_allclose(with_static_lengths(log_probs, targets), loss, rtol=1e-6)


def test_one_sequence_without_a_batch():
    case, _ = torch_case("06")
    log_probs = jax.nn.log_softmax(case["logits"].astype(np.float32))[:, 0]
    for reduction, want in (("none", case["loss"][0]), ("mean", case["loss"][0] / 6)):
        for lengths in ((25, 6), ((25,), (6,)), (np.array(25), jnp.array([6]))):
            loss = compat.torch.ctc_loss(
                log_probs, case["targets"][0], *lengths, reduction=reduction
            )
            assert loss.shape == ()
            np.testing.assert_allclose(loss, want, rtol=1e-6)


LOG_PROBS = np.zeros((5, 2, 4), np.float32)


TARGETS = np.array([[1, 2], [3, 1]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOG_PROBS, TARGETS, (5, 5), (2, 2), 4), r"^blank is 4; it must be a class, in 0…3\.$"),
        ((LOG_PROBS, TARGETS, (5, 5), (2, 2), 0, "avg"), r"^reduction is 'avg'; it must be one of"),
        ((LOG_PROBS[0, 0], TARGETS, (5,), (2,)), r"^log_probs has shape \(4,\); it must be"),
        ((LOG_PROBS[None], TARGETS, (5, 5), (2, 2)), r"^log_probs has shape \(1, 5, 2, 4\); it"),
        ((LOG_PROBS, TARGETS, (5,), (2, 2)), r"^input_lengths has shape \(1,\); it must be \(2,\)"),
        ((LOG_PROBS, TARGETS, (5, 5), (2,)), r"^target_lengths has shape \(1,\); it must be"),
        (
            (LOG_PROBS, TARGETS, (5, 6), (2, 2)),
            r"^input_lengths has the value 6; it must be in 0…5",
        ),
        (
            (LOG_PROBS, TARGETS, (5, 5), (2, 3)),
            r"^target_lengths has the value 3; it must be in 0…2",
        ),
        ((LOG_PROBS, TARGETS, (5, 5), (2, -1)), r"^target_lengths has the value -1; it must be"),
        (
            (LOG_PROBS, [1, 2, 3], (5, 5), (2, 2)),
            r"^targets has 3 elements; it must have 4, the sum",
        ),
        ((LOG_PROBS, [1, 2, 3], (5, 5), (4, -1)), r"^target_lengths has the value -1; it must be"),
        (
            (LOG_PROBS, TARGETS[:1], (5, 5), (2, 2)),
            r"^targets has shape \(1, 2\); it must be \(2, S",
        ),
    ],
)
def test_torch_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        compat.torch.ctc_loss(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOG_PROBS.astype(int), TARGETS, (5, 5), (2, 2)), r"^log_probs has dtype int\d+; it must"),
        ((LOG_PROBS, TARGETS * 1.0, (5, 5), (2, 2)), r"^targets has dtype float64; it must be"),
        ((LOG_PROBS, TARGETS, (5.0, 5.0), (2, 2)), r"^input_lengths has dtype float64; it must be"),
        (
            (LOG_PROBS, TARGETS, (5, 5), (2, 2), 0, "mean", "no"),
            r"^zero_infinity is 'no'; it must be True or False",
        ),
    ],
)
def test_torch_type_errors(arguments, message):
    with pytest.raises(TypeError, match=message):
        compat.torch.ctc_loss(*arguments)


def test_options_are_checked_when_the_loss_is_made():
    with pytest.raises(ValueError, match=r"^reduction is 'max'; it must be one of"):
        jaxctc.CTCLoss(reduction="max")
    with pytest.raises(TypeError, match=r"^zero_infinity is 2; it must be True or False"):
        jaxctc.CTCLoss(zero_infinity=2)  # type: ignore[arg-type]


def test_torch_lengths_of_any_kind():
    """Narrow integers, tuples that jit makes tracers of, and traced lengths that do not add up."""
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (40, 15, 30)))
    targets = np.arange(300) % 29 + 1
    frames, lengths = (40,) * 15, (20,) * 15
    want = compat.torch.ctc_loss(log_probs, targets, frames, lengths, reduction="none")
    narrow = np.full(15, 20, np.uint8)
    got = compat.torch.ctc_loss(log_probs, targets, frames, narrow, reduction="none")
    np.testing.assert_array_equal(got, want)
    jitted = jax.jit(lambda *a: compat.torch.ctc_loss(*a, reduction="none"))
    np.testing.assert_allclose(jitted(log_probs, targets, frames, lengths), want, rtol=1e-6)
    assert np.isinf(jitted(log_probs, targets, frames, (19,) * 15)).all()
    padded = np.pad(targets, (0, 20), constant_values=-1)
    np.testing.assert_array_equal(jitted(log_probs, padded, frames, lengths), want)
    padded[-1] = 3
    assert np.isinf(jitted(log_probs, padded, frames, lengths)).all()


@pytest.mark.parametrize("shape", [(5, 0, 4), (0, 2, 4)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_nothing_is_refused_as_by_torch(shape, reduction):
    """torch 2.13: "log_probs tensor must not be empty", with any reduction."""
    frames, batch, _ = shape
    lengths = (frames,) * batch, (0,) * batch
    targets = np.zeros((batch, 2), int)
    message = rf"^log_probs has shape \({frames}, {batch}, 4\); it must not be empty\."
    with pytest.raises(ValueError, match=message):
        compat.torch.ctc_loss(np.zeros(shape, np.float32), targets, *lengths, reduction=reduction)
    with pytest.raises(ValueError, match=message):
        jax.jit(jaxctc.CTCLoss(reduction=reduction))(np.zeros(shape), targets, *lengths)
