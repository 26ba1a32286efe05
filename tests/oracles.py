"""Oracles for the tests: plain Python and numpy in float64, written for clarity."""

import itertools

import numpy as np

import jaxctc


def collapse(path, blank):
    """The labels of an alignment: repeats merged, blanks removed."""
    merged = [c for c, _ in itertools.groupby(path)]
    return tuple(c for c in merged if c != blank)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def confidence(log_probs):
    """1 minus the entropy of each distribution, as a share of the highest there is."""
    terms = np.exp(log_probs) * np.where(log_probs > -np.inf, log_probs, 0)
    return 1 + terms.sum(-1) / np.log(log_probs.shape[-1])


def numeric_gradient(function, x, step=1e-5):
    """Central differences of a function of one array."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        change = np.zeros_like(x)
        change[place] = step
        gradient[place] = (function(x + change) - function(x - change)) / (2 * step)
    return gradient


def sequences(classes, most):
    """All sequences of at most `most` of the classes."""
    return itertools.chain.from_iterable(
        itertools.product(classes, repeat=n) for n in range(most + 1)
    )


def scores_of(scorer, many):
    """The scores of label sequences of any lengths, as `jaxctc.score_sequence` gives them."""
    many = [list(labels) for labels in many]
    longest = max(map(len, many))
    padded = [labels + [-1] * (longest - len(labels)) for labels in many]
    return np.asarray(jaxctc.score_sequence(scorer, np.array(padded, int))).tolist()


def ctc_by_enumeration(log_probs, labels, blank):
    """Loss, and posterior of each class at each frame, from all C**T alignments of one pair."""
    frames, classes = log_probs.shape
    total, posterior = 0.0, np.zeros((frames, classes))
    for path in itertools.product(range(classes), repeat=frames):
        if collapse(path, blank) == tuple(labels):
            probability = np.exp(sum(log_probs[t, c] for t, c in enumerate(path)))
            total += probability
            for t, c in enumerate(path):
                posterior[t, c] += probability
    if total == 0:
        return np.inf, posterior
    return -np.log(total), posterior / total


def ctc_by_recursion(logits, labels, blank):
    """Loss, and gradient with respect to the logits, of one pair: forward-backward in float64.

    The textbook recursion over the 2 S + 1 states with blanks between, in log-space.
    """
    log_probs = log_softmax(logits)
    frames, classes = log_probs.shape
    extended = np.full(2 * len(labels) + 1, blank)
    extended[1::2] = labels
    can_skip = np.zeros(len(extended), bool)
    can_skip[2:] = (extended[2:] != blank) & (extended[2:] != extended[:-2])
    emit = log_probs[:, extended]

    def forward(emit, can_skip):
        alpha = np.full(emit.shape, -np.inf)
        state = np.full(emit.shape[1], -np.inf)
        state[:2] = 0
        for t in range(len(emit)):
            if t:
                one = np.concatenate([[-np.inf], state[:-1]])
                two = np.where(
                    can_skip, np.concatenate([[-np.inf] * 2, state])[: len(state)], -np.inf
                )
                state = np.logaddexp(np.logaddexp(state, one), two)
            state = state + emit[t]
            alpha[t] = state
        return alpha

    if frames == 0:
        return (0.0 if len(labels) == 0 else np.inf), np.zeros((0, classes))
    alpha = forward(emit, can_skip)
    # The lattice backwards in time is the lattice of the reversed labels.
    reverse_skip = np.zeros_like(can_skip)
    reverse_skip[2:] = can_skip[2:][::-1]
    beta = forward(emit[::-1, ::-1], reverse_skip)[::-1, ::-1]
    log_z = np.logaddexp.reduce(alpha[-1, -2:])
    if not np.isfinite(log_z):
        return np.inf, np.zeros((frames, classes))
    occupancy = np.exp(np.where(np.isfinite(emit), alpha + beta - emit, -np.inf) - log_z)
    gradient = np.exp(log_probs)
    for s, c in enumerate(extended):
        gradient[:, c] -= occupancy[:, s]
    return -log_z, gradient


def viterbi(scores, labels, blank):
    """The best path of CTC and its score. Ties: stay, else advance by one; end in the label."""
    states = [blank, *(c for label in labels for c in (label, blank))]
    best = {(0, s): (scores[0, states[s]], ()) for s in range(min(2, len(states)))}
    for t in range(1, len(scores)):
        for s in range(len(states)):
            skip = s > 1 and states[s] not in (blank, states[s - 2])
            ways = [best.get((t - 1, s - n)) for n in ((0, 1, 2) if skip else (0, 1))]
            ways = [(w[0], w[1] + (s - n,)) for n, w in enumerate(ways) if w is not None]
            if ways:
                score, path = max(ways, key=lambda w: w[0])  # the first of equal ones
                best[t, s] = score + scores[t, states[s]], path
    last = len(states) - 1
    ends = [(best.get((len(scores) - 1, s)), s) for s in (last - 1, last) if s >= 0]
    ends = [(end[0], (*end[1], s)) for end, s in ends if end is not None and end[0] > -np.inf]
    if not ends:
        return -np.inf, None
    score, path = max(ends, key=lambda e: e[0])
    return score, [states[s] for s in path]


def transducer_paths(frames, labels, monotonic=False, max_symbols=None):
    """Every path of a transducer: the (t, u, is_label) of its arcs."""

    def onwards(t, u, symbols):
        if t == frames:
            if u == labels:
                yield ()
            return
        for rest in onwards(t + 1, u, 0):
            yield ((t, u, False), *rest)
        if u < labels and symbols != max_symbols:
            for rest in onwards(t + monotonic, u + 1, symbols + (not monotonic)):
                yield ((t, u, True), *rest)

    return list(onwards(0, 0, 0)) if frames or monotonic else []


def duration_paths(frames, labels, durations, max_symbols=None):
    """Every path of a token-and-duration transducer: (t, u, is_label, duration) of its arcs."""

    def onwards(t, u, symbols=0):
        for duration in durations:
            if duration > 0 and t + duration < frames:
                for rest in onwards(t + duration, u):
                    yield ((t, u, False, duration), *rest)
            if duration > 0 and t + duration == frames and u == labels:
                yield ((t, u, False, duration),)
            if u < labels and t + duration < frames and symbols != max_symbols:
                after = (t + duration, u + 1, 0 if duration else symbols + 1)
                for rest in onwards(*after):
                    yield ((t, u, True, duration), *rest)

    return list(onwards(0, 0)) if frames else []


def transducer_by_enumeration(blank, label, monotonic=False, max_symbols=None):
    """Loss, and posteriors of blanks and labels, from all paths of one lattice."""
    frames, spaces = blank.shape
    total, posteriors = 0.0, (np.zeros(blank.shape), np.zeros(label.shape))
    for path in transducer_paths(frames, spaces - 1, monotonic, max_symbols):
        log_probability = sum((label if is_label else blank)[t, u] for t, u, is_label in path)
        probability = np.exp(log_probability)
        total += probability
        for t, u, is_label in path:
            posteriors[is_label][t, u] += probability
    if total == 0:
        return np.inf, *posteriors
    return -np.log(total), *(p / total for p in posteriors)


def transducer_by_recursion(blank, label, monotonic=False):
    """The same by forward-backward in float64, cell by cell, in log-space."""
    frames, spaces = blank.shape
    step = int(monotonic)
    forward = np.full((frames + 1, spaces), -np.inf)
    backward = np.full((frames + 1, spaces), -np.inf)
    forward[0, 0], backward[frames, spaces - 1] = 0, 0
    label = np.concatenate([label, np.full((1, spaces - 1), -np.inf)])
    blank = np.concatenate([blank, np.full((1, spaces), -np.inf)])
    for t in range(frames + 1):
        for u in range(spaces):
            ways = [forward[t, u]]
            if t:
                ways.append(forward[t - 1, u] + blank[t - 1, u])
            if u and t >= step:
                ways.append(forward[t - step, u - 1] + label[t - step, u - 1])
            forward[t, u] = np.logaddexp.reduce(ways)
    for t in reversed(range(frames + 1)):
        for u in reversed(range(spaces)):
            ways = [backward[t, u]]
            if t < frames:
                ways.append(blank[t, u] + backward[t + 1, u])
            if u < spaces - 1 and t + step <= frames:
                ways.append(label[t, u] + backward[t + step, u + 1])
            backward[t, u] = np.logaddexp.reduce(ways)
    log_z = forward[frames, -1]
    blanks = np.exp(forward[:-1] + blank[:-1] + backward[1:] - log_z)
    arrived = backward[1:, 1:] if monotonic else backward[:-1, 1:]
    labels = np.exp(forward[:-1, :-1] + label[:-1] + arrived - log_z)
    return -log_z, blanks, labels


def arcs_of(log_probs, labels, blank_id):
    """Log-probabilities of blanks [T, U + 1] and labels [T, U] of one sequence."""
    label = np.stack(
        [log_probs[:, u, y] for u, y in enumerate(labels)] or [np.zeros((len(log_probs), 0)).T], -1
    )
    return log_probs[..., blank_id], label.reshape(len(log_probs), len(labels))


def transducer_gradient(log_probs, labels, blank_id, blanks, label_posteriors):
    """The loss's gradient with respect to logits, from the posteriors of the arcs."""
    visits = blanks.copy()
    visits[:, :-1] += label_posteriors
    gradient = np.exp(log_probs) * visits[..., None]
    gradient[..., blank_id] -= blanks
    for u, y in enumerate(labels):
        gradient[:, u, y] -= label_posteriors[:, u]
    return gradient


def fsa_paths(fsa, frames):
    """All paths of `frames` arcs through an automaton without batch axes: first state, and arcs.

    A path without arcs is a state. Weights of -inf are not looked at.
    """
    fsa = type(fsa)(*(np.asarray(x) for x in fsa))
    paths = [(q, ()) for q in range(len(fsa.start))]
    ends = dict.fromkeys(paths)
    for q, _ in paths:
        ends[q, ()] = q
    for _ in range(frames):
        longer = {}
        for (first, arcs), q in ends.items():
            for a in np.flatnonzero((fsa.source == q) & (fsa.label >= 0)):
                longer[first, (*arcs, int(a))] = int(fsa.destination[a])
        ends = longer
    return [(first, arcs, last) for (first, arcs), last in ends.items()]


def fsa_by_enumeration(fsa, log_probs):
    """log of the total, posteriors of classes and of arcs, and the score of the best path."""
    log_probs = np.asarray(log_probs, np.float64)
    fsa = type(fsa)(*(np.asarray(x) for x in fsa))
    weights, classes, arcs_used = [], [], []
    for first, arcs, last in fsa_paths(fsa, len(log_probs)):
        label = fsa.label[list(arcs)]
        weight = float(fsa.start[first]) + float(fsa.final[last])
        weight += sum(float(fsa.weight[a]) for a in arcs)
        weight += sum(log_probs[t, c] for t, c in enumerate(label))
        count = np.zeros_like(log_probs)
        for t, c in enumerate(label):
            count[t, c] = 1
        weights.append(weight)
        classes.append(count)
        arcs_used.append(np.bincount(np.array(arcs, int), minlength=len(fsa.label)))
    total = np.logaddexp.reduce([-np.inf, *weights])
    if total == -np.inf:
        return total, np.zeros_like(log_probs), np.zeros(len(fsa.label)), total
    share = np.exp(np.array(weights) - total)
    return (
        total,
        np.einsum("p,ptc->tc", share, classes),
        np.einsum("p,pa->a", share, arcs_used),
        max(weights),
    )
