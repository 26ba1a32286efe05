"""Error messages of malformed calls of the transducer losses."""

import numpy as np
import pytest

import jaxctc
from jaxctc.compat import torch

LOGITS, LABELS = np.zeros((2, 5, 3, 4), np.float32), np.ones((2, 2), int)
WRONG = [
    (TypeError, {"logits": LOGITS.astype(int)}, r"logits has dtype int\d+; it must be floating"),
    (ValueError, {"logits": LOGITS[0, 0]}, r"it must be \[\*batch, T, U \+ 1, C\]"),
    (ValueError, {"logits": LOGITS[:, :, 1:]}, r"must have 3 elements, one more than there are"),
    (
        ValueError,
        {"labels": [*LABELS, LABELS[0]]},
        r"labels has the batch axes \(3,\); they must broadcast with \(2,\)",
    ),
    (TypeError, {"labels": LABELS * 1.0}, r"labels has dtype float64; it must be an integer"),
    (ValueError, {"logit_lengths": [5, 6]}, r"logit_lengths has the value 6; it must be in 0…5"),
    (ValueError, {"label_lengths": [3, 2]}, r"label_lengths has the value 3; it must be in 0…2"),
    (ValueError, {"blank_id": 4}, r"blank_id is 4; it must be a class, in 0…3"),
    (TypeError, {"blank_id": True}, r"blank_id has type bool; it must be an int"),
]


TAKE_LOGITS = [jaxctc.rnnt_loss, jaxctc.rnnt_log_probs, jaxctc.hat_log_probs]


@pytest.mark.parametrize("function", TAKE_LOGITS)
@pytest.mark.parametrize(("error", "arguments", "sentence"), WRONG)
def test_malformed_calls_have_an_error_message(function, error, arguments, sentence):
    with pytest.raises(error, match=sentence):
        function(**{"logits": LOGITS, "labels": LABELS, **arguments})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: jaxctc.rnnt_loss_from_log_probs(LOGITS[..., 0], LOGITS[..., 0]),
            r"label_log_probs has shape \(2, 5, 3\); it must be \(2, 5, 2\)",
        ),
        (
            lambda: jaxctc.rnnt_align(LOGITS[..., 0], LOGITS[:, :, :2, 0], max_symbols=0),
            r"max_symbols is 0; it must be at least 1",
        ),
        (
            lambda: jaxctc.rnnt_posteriors(np.zeros((5, 0)), np.zeros((5, 0))),
            r"blank_log_probs has shape \(5, 0\); its last axis must not be empty",
        ),
        (
            lambda: jaxctc.tdt_loss(LOGITS, LOGITS, LABELS, durations=(0, 1)),
            r"duration_logits has shape \(2, 5, 3, 4\); it must be \(2, 5, 3, 2\)",
        ),
        (
            lambda: jaxctc.tdt_loss(LOGITS, LOGITS, LABELS, durations=(0, 1, 1, 2)),
            r"durations is \(0, 1, 1, 2\); it must be different ints from 0 up",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: e, LOGITS[:, :, 0], LOGITS[:, :2, 0], LABELS
            ),
            r"predictor has shape \(2, 2, 4\); it must be \[\*batch, 3, E\]",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: e, LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS
            ),
            r"joint returned shape \(2, 5, 1, 4\); it must be \[2, 5, 3, C\]",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: e + p, LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS, frames_per_chunk=0
            ),
            r"frames_per_chunk is 0; it must be at least 1",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS, [5, 5], [2, 2], blank=4),
            r"blank is 4; it must be in -4…3",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS[:1], [5, 5], [2, 2]),
            r"targets has shape \(1, 2\); it must be \[2, S\]",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS, [5, 5], [2, 3]),
            r"target_lengths has the value 3; it must be in 0…2",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS[0], LABELS[0], 5, 2),
            r"logits has shape \(5, 3, 4\); it must be \(N, T, U \+ 1, C\)",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS, [5, 5], [2, 2], reduction="avg"),
            r"reduction is 'avg'; it must be one of",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS, [5, 5], [2, 2], clamp=np.nan),
            r"clamp is nan; it must be finite",
        ),
        (
            lambda: jaxctc.tdt_loss(LOGITS, LOGITS, LABELS, durations=(0, 1, 2, 3), sigma=np.nan),
            r"sigma is nan; it must be finite",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: (e + p)[..., :0], LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS
            ),
            r"joint returned shape \(2, 5, 3, 0\); it must be \[2, 5, 3, C\], C at least 1",
        ),
    ],
)
def test_other_malformed_calls(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS, [5, 5], [2, 2], blank=None),
            r"blank has type NoneType; it must be an int",
        ),
        (
            lambda: torch.rnnt_loss(LOGITS, LABELS, [5, 5], [2, 2], clamp=None),
            r"clamp has type NoneType; it must be a number known while tracing",
        ),
        (
            lambda: jaxctc.tdt_loss(LOGITS, LOGITS, LABELS, durations=3),
            r"durations is 3; it must be a sequence of ints",
        ),
        (
            lambda: jaxctc.tdt_loss(LOGITS, LOGITS, LABELS, durations=[0, [1], 2]),
            r"durations\[1\] has type list; it must be an int",
        ),
        (
            lambda: jaxctc.tdt_loss(LOGITS, LOGITS, LABELS, durations="012"),
            r"durations is '012'; it must be a sequence of ints",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(None, LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS),
            r"joint has type NoneType; it must be a function",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: e + p,
                LOGITS[:, :, 0],
                LOGITS[:, :3, 0],
                LABELS,
                log_probs=lambda logits, *_, **options: logits,
            ),
            r"log_probs returned type \w+; it must be TransducerArcs",
        ),
        (
            lambda: jaxctc.rnnt_greedy_decode(None, lambda s, y: (y, s), (), LOGITS[:, :, 0]),
            r"joint has type NoneType; it must be a function",
        ),
        (
            lambda: jaxctc.rnnt_beam_search(lambda f, y: f, None, (), LOGITS[:, :, 0]),
            r"predictor has type NoneType; it must be a function",
        ),
        (
            lambda: jaxctc.rnnt_beam_search(
                lambda f, y: f, lambda s, y: (y, s), "state", LOGITS[:, :, 0]
            ),
            r"initial_state is 'state'; it must be a pytree of arrays",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: (e, p), LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS
            ),
            r"joint returned type tuple; it must be an array \[2, 5, 3, C\]",
        ),
        (
            lambda: jaxctc.rnnt_loss_from_joint(
                lambda e, p: (e + p).astype(int), LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS
            ),
            r"joint returned dtype int32; it must be floating-point",
        ),
    ],
)
def test_arguments_of_the_wrong_type(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()


ARCS = LOGITS[:, :, :, 0], LOGITS[:, :, :2, 0]
RANGES = np.zeros((2, 5, 3), int) + np.arange(3)


@pytest.mark.parametrize("value", ["no", None, 1, np.array(True)])
@pytest.mark.parametrize(
    "call",
    [
        lambda **x: jaxctc.rnnt_loss(LOGITS, LABELS, **x),
        lambda **x: jaxctc.rnnt_loss_from_log_probs(*ARCS, **x),
        lambda **x: jaxctc.rnnt_loss_from_joint(
            lambda e, p: e + p, LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS, **x
        ),
        lambda **x: jaxctc.rnnt_loss_simple(LOGITS[:, :, 0], LOGITS[:, :3, 0], LABELS, **x),
        lambda **x: jaxctc.rnnt_posteriors(*ARCS, **x),
        lambda **x: jaxctc.rnnt_align(*ARCS, **x),
        lambda **x: jaxctc.rnnt_prune_ranges(*ARCS, s_range=2, **x),
        lambda **x: jaxctc.rnnt_loss_pruned(LOGITS, LABELS, RANGES, **x),
        lambda **x: jaxctc.rnnt_greedy_decode(
            lambda f, y: f, lambda s, y: (y, s), (), LOGITS[:, :, 0], **x
        ),
    ],
)
def test_monotonic_is_true_or_false(call, value):
    with pytest.raises(TypeError, match=r"monotonic (is|has type) .+; it must be True or False"):
        call(monotonic=value)
