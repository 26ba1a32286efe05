"""What the package is tested against: plain Python and numpy in float64, written for clarity."""

import itertools

import numpy as np


def collapse(path, blank):
    """The labels that an alignment reads as: runs merged, blanks removed."""
    merged = [c for c, _ in itertools.groupby(path)]
    return tuple(c for c in merged if c != blank)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


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
