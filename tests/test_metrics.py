"""Edit distance and error rates against rapidfuzz, jiwer's published cases and plain Python."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxctc

DATA = json.loads((published.DATA / "edit.json").read_text())
BATCH, H, R = 10_000, 14, 12


def padded(sequences, width, fill=-1):
    """Sequences of integers as one array, and their lengths."""
    array = np.full((len(sequences), width), fill, np.int32)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence
    return array, np.array([len(s) for s in sequences], np.int32)


@pytest.fixture(scope="module")
def random_pairs():
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 3, (BATCH, H)),
        rng.integers(0, 3, (BATCH, R)),
        rng.integers(0, H + 1, BATCH),
        rng.integers(0, R + 1, BATCH),
    )


def test_counts_equal_rapidfuzz_on_random_pairs(random_pairs):
    levenshtein = pytest.importorskip("rapidfuzz.distance", reason="needs rapidfuzz").Levenshtein
    hypotheses, references, h_lengths, r_lengths = random_pairs
    edits = jaxctc.edit_operations(*random_pairs)
    want = []
    for h, r, m, n in zip(hypotheses, references, h_lengths, r_lengths, strict=True):
        tags = [op.tag for op in levenshtein.editops(r[:n].tolist(), h[:m].tolist())]
        want.append([len(tags), *(tags.count(tag) for tag in ("replace", "insert", "delete"))])
    np.testing.assert_array_equal(np.stack(edits, axis=1), want)
    np.testing.assert_array_equal(jaxctc.edit_distance(*random_pairs), edits.distance)


def test_padding_is_never_read(random_pairs):
    hypotheses, references, h_lengths, r_lengths = (x[:200].copy() for x in random_pairs)
    want = jaxctc.edit_operations(hypotheses, references, h_lengths, r_lengths)
    hypotheses[np.arange(H) >= h_lengths[:, None]] = 2**31 - 1
    references[np.arange(R) >= r_lengths[:, None]] = 2**31 - 1  # equal: must not count as a match
    got = jaxctc.edit_operations(hypotheses, references, h_lengths, r_lengths)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_without_lengths_a_negative_label_ends_a_sequence(random_pairs):
    hypotheses, references, h_lengths, r_lengths = (x[:200].copy() for x in random_pairs)
    want = jaxctc.edit_distance(hypotheses, references, h_lengths, r_lengths)
    hypotheses[np.arange(H) >= h_lengths[:, None]] = -1
    references[np.arange(R) >= r_lengths[:, None]] = -1
    np.testing.assert_array_equal(jaxctc.edit_distance(hypotheses, references), want)


def test_batch_axes_jit_and_vmap_change_nothing(random_pairs):
    hypotheses, references, h_lengths, r_lengths = (jnp.asarray(x[:24]) for x in random_pairs)
    want = jaxctc.edit_distance(hypotheses, references, h_lengths, r_lengths)
    nested = [
        x.reshape(2, 12, *x.shape[1:]) for x in (hypotheses, references, h_lengths, r_lengths)
    ]
    np.testing.assert_array_equal(jaxctc.edit_distance(*nested).reshape(-1), want)
    arguments = hypotheses, references, h_lengths, r_lengths
    np.testing.assert_array_equal(jax.vmap(jaxctc.edit_distance)(*arguments), want)
    np.testing.assert_array_equal(jax.jit(jaxctc.edit_distance)(*arguments), want)


@given(*[st.lists(st.integers(0, 2), max_size=6)] * 3)
def test_a_metric(a, b, c):
    rows, lengths = padded([a, b, c], 6)
    i, j = np.array([0, 1, 0, 1, 0]), np.array([0, 0, 1, 2, 2])
    same, ba, ab, bc, ac = jaxctc.edit_distance(rows[i], rows[j], lengths[i], lengths[j])
    assert same == 0
    assert ab == ba
    assert (ab == 0) == (a == b)
    assert ac <= ab + bc
    assert abs(len(a) - len(b)) <= ab <= max(len(a), len(b))


@pytest.mark.parametrize("case", DATA["edit_distance"], ids=lambda c: c["name"])
def test_published_distances(case):
    ids = {x: i for i, x in enumerate(sorted(set([*case["hyp"], *case["ref"]]), key=str))}
    (hypothesis, h_length), (reference, r_length) = (
        padded([[ids[x] for x in case[k]]], 16) for k in ("hyp", "ref")
    )
    (distance,) = jaxctc.edit_distance(hypothesis, reference, h_length, r_length)
    assert distance / case["normaliser"] == pytest.approx(case["distance"])


@pytest.mark.parametrize("case", DATA["rates"], ids=lambda c: c["name"])
def test_published_error_rates(case):
    ids = {x: i for i, x in enumerate(sorted({x for s in case["hyp"] + case["ref"] for x in s}))}
    # One shape for all: pairs of empty sequences change nothing.
    (hypotheses, h_lengths), (references, r_lengths) = (
        padded([[ids[x] for x in s] for s in case[k]] + [[]] * (4 - len(case[k])), 32)
        for k in ("hyp", "ref")
    )
    rate = jaxctc.error_rate(hypotheses, references, h_lengths, r_lengths)
    np.testing.assert_allclose(rate, case["rate"], rtol=1e-6)
    if "operations" in case:
        edits = jaxctc.edit_operations(hypotheses, references, h_lengths, r_lengths)
        assert [int(x.sum()) for x in edits[1:]] == case["operations"]


def test_empty_axes():
    assert jaxctc.edit_distance([], []) == 0
    assert jaxctc.edit_distance([], [1, 2]) == 2
    assert jaxctc.edit_distance([3, 1], []) == 2
    assert jaxctc.error_rate([], []) == 0
    assert jaxctc.error_rate([1, 2], []) == 2
    assert jaxctc.edit_distance(np.zeros((0, 3), int), np.zeros((0, 2), int)).shape == (0,)


def test_errors_name_the_argument():
    with pytest.raises(TypeError, match="hypotheses has dtype float"):
        jaxctc.edit_distance([1.5], [1])
    with pytest.raises(
        ValueError, match="hypotheses has rows of different lengths; they must have one"
    ):
        jaxctc.edit_distance([[1, 2], [1]], [[1], [2]])
    with pytest.raises(ValueError, match="references has the batch axes"):
        jaxctc.edit_distance([[1], [1]], [[1]] * 3)
    with pytest.raises(ValueError, match="reference_lengths has the value 3"):
        jaxctc.edit_distance([1], [1], None, 3)
