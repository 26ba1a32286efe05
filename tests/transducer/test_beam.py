"""The transducers' beam search against enumeration and the same search in plain Python."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from transducer_searches import (
    BATCH,
    BLANK,
    LABELS,
    LENGTHS,
    START,
    C,
    D,
    Plain,
    as_dict,
    assert_labels_say,
    beam,
    decoded,
    enumerate_alignments,
    joint,
    one,
    plain_beam,
    predictor,
    same,
)

import jaxctc


@pytest.mark.parametrize(
    ("width", "bounds"),
    [
        (5, {"max_symbols": 3}),
        (2, {"max_symbols": 3, "max_labels": 4}),
        (5, {"max_symbols": 2, "monotonic": True}),
    ],
    ids=str,
)
def test_small_beams_equal_the_plain_search(width, bounds, encoder):
    found = decoded(beam, encoder, LENGTHS, beam_width=width, **bounds)
    for b, n in enumerate(LENGTHS):
        want = plain_beam(Plain(encoder[b, :n]), width, **bounds)
        got = as_dict(one(found, b))
        assert list(got) == list(want)
        np.testing.assert_allclose(list(got.values()), list(want.values()), atol=1e-4)


# All sequences of 3 labels which the bounds allow fit into these beams.
@pytest.mark.parametrize(
    ("frames", "bounds"),
    [
        (3, {"max_symbols": 2, "max_labels": 4}),
        (4, {"max_symbols": 1, "monotonic": True}),
    ],
    ids=str,
)
def test_with_a_wide_beam_all_scores_are_exact(frames, bounds, encoder):
    encoder = encoder[:, :frames]
    found = decoded(beam, encoder, beam_width=125, **bounds)
    for b in range(BATCH):
        want = enumerate_alignments(Plain(encoder[b]), LABELS, **bounds)
        got = as_dict(one(found, b))
        assert got.keys() == want.keys()
        exact = [np.logaddexp.reduce([score for score, _ in want[y]]) for y in got]
        np.testing.assert_allclose(list(got.values()), exact, atol=2e-5)
        for n, y in enumerate(got):
            assert tuple(found.frames[b, n, : len(y)].tolist()) == max(want[y])[1]
        for n in range(0, len(got), 7):
            alone = one(one(found, b), n)
            assert_labels_say(Plain(encoder[b]), alone, "monotonic" in bounds)


def test_the_score_of_a_hypothesis_is_the_loss_of_its_labels(encoder):
    """The sums of the search and of the lattice, over the alignments that both allow."""
    found = decoded(beam, encoder[:, :4], beam_width=125, max_symbols=1, monotonic=True)
    labels, lengths = (x[:, :20] for x in (found.labels, found.lengths))
    plain = [Plain(x[:4]) for x in encoder]
    logits = np.zeros((*labels.shape[:2], 4, 5, C), np.float32)
    for b, n in np.ndindex(*lengths.shape):
        for u in range(lengths[b, n] + 1):
            prefix = tuple(labels[b, n, :u].tolist())
            logits[b, n, :, u] = [plain[b].log_probs(t, prefix) for t in range(4)]
    losses = jaxctc.rnnt_loss(logits, labels, label_lengths=lengths, blank_id=BLANK, monotonic=True)
    np.testing.assert_allclose(-losses, found.scores[:, :20], atol=2e-5)


def test_no_beam_is_better_than_one_that_is_wide_enough(encoder):
    found = decoded(beam, encoder[:, :4], beam_width=3, monotonic=True)
    for b in range(BATCH):
        exact = enumerate_alignments(Plain(encoder[b, :4]), LABELS, 1, monotonic=True)
        exact = {
            y: np.logaddexp.reduce([score for score, _ in found]) for y, found in exact.items()
        }
        some = as_dict(one(found, b))
        assert all(score <= exact[y] + 1e-5 for y, score in some.items())
        assert max(some.values()) <= max(exact.values()) + 1e-5


def test_half_precision_is_computed_in_float32(encoder):
    def half(frame, output):
        return joint(frame.astype(jnp.float32), output).astype(jnp.bfloat16)

    def widened(frame, output):
        return half(frame, output).astype(jnp.float32)

    frames = jnp.asarray(encoder, jnp.bfloat16)
    found = [
        decoded(
            functools.partial(jaxctc.rnnt_beam_search, f, predictor, START, monotonic=True),
            frames,
            LENGTHS,
        )
        for f in (half, widened)
    ]
    assert found[0].scores.dtype == jnp.float32
    same(*found)


def test_a_beam_has_a_width():
    with pytest.raises(ValueError, match=r"^beam_width is 0; it must be at least 1\.$"):
        beam(np.zeros((4, D), np.float32), beam_width=0)
