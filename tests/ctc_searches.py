"""Searches over label sequences in plain Python, and what CTC decoders are compared on."""

import itertools
import math

import jax
import numpy as np
from oracles import collapse

import jaxctc

BATCH, T, C, BLANK = 12, 14, 5, 2


def log_add(*x):
    top = max(x)
    return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in x))


def exhaustive_search(log_probs, blank):
    """Log-probability of every label sequence, from all C**T alignments."""
    total = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = sum(log_probs[t, c] for t, c in enumerate(path))
        total.setdefault(collapse(path, blank), []).append(score)
    return {labels: log_add(*scores) for labels, scores in total.items()}


def prefix_search(log_probs, blank, width, scorer=None, weight=1.0):
    """The W best label sequences as (labels, log-probability, scorer's score)."""
    nothing = jaxctc.Automaton(
        np.zeros((1, log_probs.shape[1]), int), np.zeros((1, log_probs.shape[1])), np.zeros(1)
    )
    scorer = scorer or nothing

    def walk(prefix):
        state, score = 0, 0.0
        for label in prefix:
            score += float(scorer.score[state, label])
            state = scorer.transition[state, label]
        return score, float(scorer.final_score[state])

    def best(beam, final=False):
        def rank(prefix):
            extra = sum(walk(prefix)) if final else walk(prefix)[0]
            return -math.inf if extra == -math.inf else log_add(*beam[prefix]) + weight * extra

        ranked = sorted(beam, key=rank, reverse=True)[:width]
        return {p: beam[p] for p in ranked if rank(p) > -math.inf}

    beam = {(): (0.0, -math.inf)}
    for frame in log_probs:
        new = {}

        def put(prefix, blank_ending, label_ending, new=new):
            old = new.get(prefix, (-math.inf, -math.inf))
            new[prefix] = (log_add(old[0], blank_ending), log_add(old[1], label_ending))

        for prefix, (b, lab) in beam.items():
            total = log_add(b, lab)
            put(prefix, total + frame[blank], -math.inf)
            for c in range(len(frame)):
                if c != blank:
                    again = prefix[-1:] == (c,)
                    put((*prefix, c), -math.inf, (b if again else total) + frame[c])
                    if again:
                        put(prefix, -math.inf, lab + frame[c])
        beam = best(new)
    # A scorer's final score comes in at the end. What may not end comes last.
    with_final = {p: walk(p) for p in beam}
    complete = {p: v for p, v in beam.items() if with_final[p][1] > -math.inf}
    rest = {p: v for p, v in beam.items() if p not in complete}
    found = [(p, log_add(*v), sum(with_final[p])) for p, v in best(complete, final=True).items()]
    return found + [(p, log_add(*v), with_final[p][0]) for p, v in best(rest).items()]


def as_list(hypotheses):
    """What one sequence's hypotheses are, as `prefix_search` gives them."""
    h = jax.tree.map(np.asarray, hypotheses)
    places = [n for n in range(len(h.lengths)) if h.scores[n] > -np.inf]
    return [
        (tuple(h.labels[n, : h.lengths[n]].tolist()), h.scores[n], h.scorer_scores[n])
        for n in places
    ]


def assert_same(got, want, atol=1e-4):
    assert [g[0] for g in got] == [w[0] for w in want]
    np.testing.assert_allclose([g[1:] for g in got], [w[1:] for w in want], atol=atol)
