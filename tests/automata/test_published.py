"""Scores and gradients that k2 and gtn published."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import fsa_paths
from published import DATA

import jaxctc
from jaxctc.core.semirings import MAX_TROPICAL, PROBABILITY

PUBLISHED = json.loads((DATA / "fsa.json").read_text())["cases"]
KIND = {name: [c for c in PUBLISHED if c["type"] == name] for name in ("fsa_score", "gtn_graph")}


@functools.partial(jax.jit, static_argnums=2)
def of_any_length(fsa, final, semiring):
    """Totals over paths of every length, of automata without cycles; their sum's gradients."""

    def score(weight):
        frames = fsa.final.shape[-1]
        zeros = jnp.zeros((*final.shape[:1], frames, frames, 12))
        lengths = jnp.broadcast_to(jnp.arange(frames), (*final.shape[:1], frames))
        totals = jax.vmap(
            lambda final, zeros, lengths: jaxctc.fsa_score(
                fsa._replace(weight=weight, final=final), zeros, lengths, semiring=semiring
            )
        )(final, zeros, lengths)
        weights = semiring.from_log(totals.T)
        total = semiring.scatter_sum(weights, (jnp.zeros(frames, jnp.int32),), (1, len(final)))
        return semiring.to_log(total)[0]

    totals, pullback = jax.vjp(score, fsa.weight)
    gradients = jax.vmap(pullback)(jnp.eye(len(final)))
    return totals, gradients[0]


def published_arcs(case):
    """The arcs of a case as an automaton whose arcs all read a frame, all of one size."""
    inputs = case["inputs"]
    if "fsa" in inputs:
        *lines, end = inputs["fsa"].splitlines()
        arcs = [[float(x) for x in line.split()] for line in lines]
        ends = {"final": [int(end)]}
    else:
        arcs, ends = inputs["arcs"], {"start": inputs["start"], "final": inputs["accept"]}
    arcs = [(s, d, 11 if c < 0 else c, float(w)) for s, d, c, w in arcs]
    stacked = jaxctc.Fsa.stack([jaxctc.Fsa.from_arcs(arcs, **ends)], states=10, arcs=12)
    return jaxctc.Fsa(*(x[0] for x in stacked)), len(arcs)


@pytest.mark.parametrize("case", KIND["fsa_score"], ids=lambda c: c["name"])
def test_k2_total_scores_and_arc_gradients(case):
    want = case["expected"]
    semiring = PROBABILITY if "_log" in case["name"] else MAX_TROPICAL
    fsa, arcs = published_arcs(case)
    # The total, and that of the paths to every single state: the forward scores.
    final = np.where(np.eye(10) > 0, 0, -np.inf).astype(np.float32)
    (total, *forward), (gradient, *by_state) = of_any_length(
        fsa, np.concatenate([fsa.final[None], final]), semiring
    )
    np.testing.assert_allclose(total, want["tot_score"], rtol=1e-5)
    text = jaxctc.graphs.from_k2_text(case["inputs"]["fsa"])
    scores = [
        text.start[first] + text.weight[list(path)].sum() + text.final[last]
        for frames in range(10)
        for first, path, last in fsa_paths(text, frames)
    ]
    combined = np.logaddexp.reduce(scores) if semiring is PROBABILITY else max(scores)
    np.testing.assert_allclose(combined, want["tot_score"], rtol=1e-5)
    if "arc_grad" in want:
        np.testing.assert_allclose(gradient[:arcs], want["arc_grad"], rtol=1e-5, atol=1e-7)
    if "best_path_arcs" in want:
        np.testing.assert_array_equal(np.flatnonzero(gradient), want["best_path_arcs"])
    if "arc_post_log" in want:
        np.testing.assert_allclose(
            jnp.log(gradient[:arcs]), want["arc_post_log"], rtol=1e-4, atol=1e-6
        )
    if "forward_scores" in want:
        states = len(want["forward_scores"])
        np.testing.assert_allclose(forward[:states], want["forward_scores"], rtol=1e-5, atol=1e-6)
    if "weighted_forward_grad" in want:
        weights = np.array(want["weighted_forward_grad"]["weights"], np.float32)
        weighted = weights @ np.array(by_state)[: len(weights), :arcs]
        np.testing.assert_allclose(weighted, want["weighted_forward_grad"]["arc_grad"])


@pytest.mark.parametrize("case", KIND["gtn_graph"], ids=lambda c: c["name"])
def test_gtn_scores_and_gradients(case):
    want, (fsa, arcs) = case["expected"], published_arcs(case)
    final = np.full((11, 10), -np.inf, np.float32)
    final[0] = fsa.final
    for name, semiring in (("forward", PROBABILITY), ("viterbi", MAX_TROPICAL)):
        totals, gradients = of_any_length(fsa, final, semiring)
        if f"{name}_score" in want:
            np.testing.assert_allclose(totals[0], float(want[f"{name}_score"]), atol=1e-4)
        if f"{name}_grad" in want:
            # Where there is no path ours is 0, and theirs NaN.
            theirs = np.nan_to_num(np.array(want[f"{name}_grad"], float))
            np.testing.assert_allclose(gradients[0, :arcs], theirs, atol=1e-4)


@pytest.mark.parametrize(
    "case", [c for c in PUBLISHED if c["type"] == "intersect_dense"], ids=lambda c: c["name"]
)
def test_k2_intersection_with_dense_scores(case):
    inputs, want = case["inputs"], case["expected"]
    fsa = jaxctc.Fsa.stack([jaxctc.graphs.from_k2_text(text) for text in inputs["fsas"]])
    dense, lengths = jnp.array(inputs["dense"]), jnp.array(inputs["lengths"])

    def score(dense, weight, final):
        fsas = fsa._replace(weight=weight, final=final)
        scores = jaxctc.fsa_score(fsas, dense, lengths, semiring=MAX_TROPICAL)
        return scores.sum(), scores

    (_, scores), (by_dense, by_weight, by_final) = jax.jit(
        jax.value_and_grad(score, (0, 1, 2), has_aux=True)
    )(dense, fsa.weight, fsa.final)
    np.testing.assert_allclose(scores, want["tot_scores_derived"], rtol=1e-5)
    np.testing.assert_allclose(by_dense, want["grad_dense"])
    # The last arc of each is the final weight of the state before the last.
    np.testing.assert_allclose(
        np.concatenate([by_weight, by_final[:, 2:3]], axis=1), want["grad_fsa"]
    )
    path = jaxctc.fsa_best_path(fsa, dense, lengths)
    for b, per_arc in enumerate(want["out_arc_scores"]):
        arcs = np.asarray(path.arcs[b, : lengths[b]])
        found = fsa.weight[b, arcs] + np.asarray(dense)[b, range(len(arcs)), fsa.label[b, arcs]]
        np.testing.assert_allclose([*found, 3.0], per_arc, rtol=1e-5)
        assert np.all(path.arcs[b, lengths[b] :] == -1)
