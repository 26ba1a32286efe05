"""One frame of prefix beam search, for a batch.

A beam holds W different prefixes. For each it keeps the total probability of its alignments so
far, separately for those that end in a blank and those that end in its last label
(Graves 2008, "Supervised sequence labelling", section 7.5; Hannun et al. 2014, "First-pass large
vocabulary continuous speech recognition using bi-directional recurrent DNNs", algorithm 1).
At each frame every prefix stays as it is, by a blank or by its last label again, and also yields
prefixes longer by one label. A longer prefix that is already in the beam is merged with it.

* Merging. Prefixes in the beam differ, so a longer prefix can be equal to one in the beam only,
  and only to a child of its own parent. Each prefix has a hash of itself and one of its parent
  (64 bits, and the length), which are compared for all pairs of the beam.
* Candidates. Without an automaton, the longer prefixes of the p-th prefix of the beam rank as their
  labels do at this frame, except that its own last label may rank lower. Counting from 0, the
  k-th label of the p-th prefix is therefore beaten by at least (p + 1) k - 1 others (a merged
  prefix counts as the one it was merged with). So all with (p + 1) k > W are left out: about
  W log W candidates remain, however many classes there are, and no result changes.
* Frames. The best alignment of each prefix is tracked as well, again separately for the two
  endings. Each frame records where it came from; read backwards, this gives labels and frames.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import meshes
from jaxctc.decoding.hashing import prefix_hash
from jaxctc.language.tables import Automaton

NOTHING = -(2**30)  # the length in an empty place of the beam, which has no parent and no child


class Beam(NamedTuple):
    """The prefixes of a beam, the best first; all ``[B, W]``."""

    blank: jax.Array  # log-probability of the alignments that end in a blank
    label: jax.Array  # log-probability of the alignments that end in the last label
    best_blank: jax.Array  # log-probability of the best single alignment of each kind
    best_label: jax.Array
    last: jax.Array  # int32: the last label, -1 where there is none
    length: jax.Array  # int32
    high: jax.Array  # uint32: the prefix's hash
    low: jax.Array  # uint32: and its second word
    parent_high: jax.Array  # uint32: the hash of the prefix without its last label
    parent_low: jax.Array
    automaton_state: jax.Array  # int32
    automaton_score: jax.Array


class Frame(NamedTuple):
    """The log-probabilities of one frame."""

    blank: jax.Array  # log-probability [B]
    log_probs: jax.Array  # [B, C]
    top_log_probs: jax.Array  # [B, K]: of the labels that may be added, the best first
    top_labels: jax.Array  # int32 [B, K]
    inside: jax.Array  # bool [B]


class Trace(NamedTuple):
    """Where the best alignments at one frame came from, of 2 W places, blank-ending first."""

    blank: jax.Array  # int32 [B, W]: the place before
    label: jax.Array  # int32 [B, W]: the place before
    begins: jax.Array  # bool [B, W]: does the last label begin at this frame?
    last: jax.Array  # int32 [B, W]: the last label


def start(batch: int, width: int, dtype) -> Beam:
    """A beam of the empty prefix and W - 1 empty places."""
    first = jnp.broadcast_to((jnp.arange(width, dtype=jnp.int32) == 0)[None, :], (batch, width))
    nothing = jnp.full((batch, width), -jnp.inf, dtype)
    sure = jnp.where(first, jnp.zeros((), dtype), nothing)
    integers = jnp.zeros((batch, width), jnp.int32)
    words = jnp.zeros((batch, width), jnp.uint32)
    return Beam(
        blank=sure,
        label=nothing,
        best_blank=sure,
        best_label=nothing,
        last=integers - 1,
        length=jnp.where(first, integers, NOTHING),
        high=words,
        low=words,
        parent_high=words,
        parent_low=words,
        automaton_state=integers,
        automaton_score=jnp.zeros((batch, width), dtype),
    )


def frames(
    logits: jax.Array, inside: jax.Array, labels: int | None, blank_id: int, only_these: bool
) -> Frame:
    """The frames of logits ``[B, T, C]``, arrays with T first, with the best `labels` labels.

    If `only_these` are possible, the other labels have probability 0. None means all
    classes in their own order.
    """
    classes = logits.shape[2]
    x = jnp.where(inside[:, :, None], logits, 0)
    log_probs = _log_softmax(x)
    blank = log_probs[:, :, blank_id]
    identity = jnp.arange(classes, dtype=jnp.int32)[None, None, :]
    log_probs = jnp.where(identity == blank_id, -jnp.inf, log_probs)  # of labels, from here on
    if labels is not None:
        best, label = lax.top_k(log_probs, min(labels, max(1, classes - 1)))
    else:
        best, label = log_probs, jnp.broadcast_to(identity, log_probs.shape)
    if only_these:
        least = jnp.min(best, axis=2, keepdims=True)
        # If labels tie, top_k takes the first.
        place = jnp.max(jnp.where(best == least, label, -1), axis=2, keepdims=True)
        kept = (log_probs > least) | ((log_probs == least) & (identity <= place))
        log_probs = jnp.where(kept, log_probs, -jnp.inf)
    return jax.tree.map(lambda y: y.swapaxes(0, 1), Frame(blank, log_probs, best, label, inside))


def _log_softmax(x: jax.Array) -> jax.Array:
    """``x - logsumexp(x)`` over the last axis; NaN if one is NaN or inf, ``-inf`` if all are.

    Subtracted in two steps: with large logits, maximum plus logarithm would round.

    The sum adds one half to the other. In a reduction the compiler chooses an order that depends
    on the number of frames: a stream's last bits would then depend on how it was cut.
    """
    top = jnp.max(x, axis=-1, keepdims=True)
    top = jnp.where(top != -jnp.inf, top, 0)
    total = jnp.exp(x - top)
    while (classes := total.shape[-1]) > 1:
        half = (classes + 1) // 2
        rest = jnp.pad(total[..., half:], [(0, 0)] * (x.ndim - 1) + [(0, 2 * half - classes)])
        total = total[..., :half] + rest
    return x - top - jnp.log(jnp.where(total == 0, 1, total))


def candidates(width: int, labels: int, every: bool) -> np.ndarray:
    """Which longer prefixes are considered: indices into a table of prefixes by ranked labels."""
    p, k = np.divmod(np.arange(width * labels), labels)
    return np.flatnonzero(every | ((p + 1) * k <= width))


def step(
    beam: Beam,
    frame: Frame,
    chosen: np.ndarray,
    max_labels: int,
    automaton: Automaton | None,
    automaton_weight: jax.Array,
) -> tuple[Beam, Trace]:
    """The beam after one more frame, and where its best alignments came from."""
    batch, width = beam.last.shape
    labels = frame.top_labels.shape[1]
    place = jnp.arange(width, dtype=jnp.int32)
    total = jnp.logaddexp(beam.blank, beam.label)
    best = jnp.maximum(beam.best_blank, beam.best_label)
    # If the two endings tie, the alignment ends in the label, as in `forced_align`.
    best_place = jnp.where(beam.best_blank > beam.best_label, 0, width) + place[None, :]

    # Pairs [B, parent, child] of the beam.
    is_parent = beam.length[:, :, None] + 1 == beam.length[:, None, :]
    is_parent &= beam.high[:, :, None] == beam.parent_high[:, None, :]
    is_parent &= beam.low[:, :, None] == beam.parent_low[:, None, :]
    same = beam.last[:, :, None] == beam.last[:, None, :]

    def from_parent(repeated, other):
        """What a child inherits: if it repeats the parent's last label, only blank-ending ones."""
        return jnp.where(same, repeated[:, :, None], other[:, :, None])

    entering = jnp.where(is_parent, from_parent(beam.blank, total), -jnp.inf).max(axis=1)
    best_entering = jnp.where(is_parent, from_parent(beam.best_blank, best), -jnp.inf).max(axis=1)
    blank_place = jnp.broadcast_to(place[None, :], best_place.shape)
    entering_place = jnp.where(is_parent, from_parent(blank_place, best_place), 0)
    entering_place = entering_place.sum(axis=1, dtype=jnp.int32)

    # Prefixes that stay as they are.
    log_blank = frame.blank[:, None]
    log_last = jnp.take_along_axis(frame.log_probs, jnp.maximum(beam.last, 0), axis=1)
    log_last = jnp.where(beam.last >= 0, log_last, -jnp.inf)
    stay_blank = total + log_blank
    stay_label = jnp.logaddexp(beam.label, entering) + log_last
    begins = best_entering > beam.best_label
    stay = jnp.logaddexp(stay_blank, stay_label)
    stay_best_label = jnp.where(begins, best_entering, beam.best_label) + log_last
    stay_label_place = jnp.where(begins, entering_place, width + place[None, :])

    # Prefixes that become longer by one label, [B, W, K].
    repeats = frame.top_labels[:, None, :] == beam.last[:, :, None]
    before = jnp.where(repeats, beam.blank[:, :, None], total[:, :, None])
    longer = before + frame.top_log_probs[:, None, :]
    merged = _merged(is_parent, repeats)
    longer = jnp.where(merged | (beam.length >= max_labels)[:, :, None], -jnp.inf, longer)

    # The W best of both.
    if automaton is not None:
        grown = automaton.score[beam.automaton_state]  # [B, W, C]
        grown = jnp.take_along_axis(grown, frame.top_labels[:, None, :], axis=2)
        grown = grown.astype(beam.automaton_score.dtype)
        allowed = grown > -jnp.inf
        grown = jnp.where(allowed, beam.automaton_score[:, :, None] + grown, 0)
        longer = jnp.where(allowed, longer + automaton_weight * grown, -jnp.inf)
        stay = stay + automaton_weight * beam.automaton_score
    rank, winner = lax.top_k(
        jnp.concatenate([stay, longer.reshape(batch, width * labels)[:, chosen]], axis=1), width
    )
    exists = rank > -jnp.inf
    # A frame with NaN leaves no prefix; the scores are NaN from there on.
    nothing = jnp.where(jnp.isnan(total[:, :1] + log_blank), jnp.nan, -jnp.inf)

    stays = winner < width
    cell = jnp.asarray(chosen.astype(np.int32))[jnp.maximum(winner - width, 0)]
    source = jnp.where(stays, winner, cell // labels)

    def take(x):
        return jnp.take_along_axis(x, source, axis=1)

    choice = cell % labels
    label = jnp.take_along_axis(frame.top_labels, choice, axis=1)
    label = jnp.where(stays, take(beam.last), label)
    log_prob = jnp.take_along_axis(frame.top_log_probs, choice, axis=1)
    again = label == take(beam.last)
    new_label = jnp.where(again, take(beam.blank), take(total)) + log_prob
    new_best = jnp.where(again, take(beam.best_blank), take(best)) + log_prob
    new_place = jnp.where(again, source, take(best_place))
    high, low = take(beam.high), take(beam.low)
    child_high, child_low = prefix_hash(high, low, label)
    after = Beam(
        blank=jnp.where(exists, jnp.where(stays, take(stay_blank), -jnp.inf), nothing),
        label=jnp.where(exists, jnp.where(stays, take(stay_label), new_label), nothing),
        best_blank=jnp.where(stays, take(best) + log_blank, -jnp.inf),
        best_label=jnp.where(stays, take(stay_best_label), new_best),
        last=label,
        length=jnp.where(exists, take(beam.length) + (~stays).astype(jnp.int32), NOTHING),
        high=jnp.where(stays, high, child_high),
        low=jnp.where(stays, low, child_low),
        parent_high=jnp.where(stays, take(beam.parent_high), high),
        parent_low=jnp.where(stays, take(beam.parent_low), low),
        automaton_state=beam.automaton_state,
        automaton_score=beam.automaton_score,
    )
    if automaton is not None:
        state, score = take(beam.automaton_state), take(beam.automaton_score)
        safe = jnp.maximum(label, 0)
        following, gain = automaton.transition[state, safe], automaton.score[state, safe]
        after = after._replace(
            automaton_state=jnp.where(stays, state, following.astype(jnp.int32)),
            automaton_score=jnp.where(stays, score, score + gain.astype(score.dtype)),
        )
    trace = Trace(
        blank=take(best_place),
        label=jnp.where(stays, take(stay_label_place), new_place),
        begins=~stays | take(begins),
        last=label,
    )

    # A frame past the end changes nothing.
    inside = frame.inside[:, None]
    after = jax.tree.map(lambda x, y: jnp.where(inside, x, y), after, beam)
    unmoved = Trace(
        blank_place, blank_place + width, jnp.zeros_like(stays), jnp.zeros_like(beam.last)
    )
    return after, jax.tree.map(lambda x, y: jnp.where(inside, x, y), trace, unmoved)


def _merged(is_parent: jax.Array, repeats: jax.Array) -> jax.Array:
    """Which longer prefixes, [B, W, K], are in the beam: has p a child that ends in label k?

    Sets of parents are stored as bits, so that there is no array of size W W K.
    """
    width = is_parent.shape[1]
    parts = []
    for first in range(0, width, 32):
        word = is_parent[:, first : first + 32]
        bit = jnp.arange(word.shape[1], dtype=jnp.uint32)[None, :, None]
        one = jnp.uint32(1)
        parents = jnp.where(word, one << bit, jnp.uint32(0)).sum(axis=1, dtype=jnp.uint32)
        sets = jnp.where(repeats, parents[:, :, None], jnp.uint32(0)).sum(axis=1, dtype=jnp.uint32)
        parts.append((sets[:, None, :] >> bit) & one != 0)
    return jnp.concatenate(parts, axis=1)


def trace_back(traces: Trace) -> tuple[jax.Array, jax.Array]:
    """The best alignments of all prefixes, from a `Trace` of arrays ``[T, B, W]``.

    Returns:
      The label that begins at each frame, -1 if none does, int32 ``[T, B, 2 W]``; and the place
      of each alignment before the first frame, int32 ``[B, 2 W]``.
    """
    before = jnp.concatenate([traces.blank, traces.label], axis=2)
    begun = jnp.where(traces.begins, traces.last, -1)
    begun = jnp.concatenate([jnp.full_like(begun, -1), begun], axis=2)

    def back(place, frame):
        before, begun = (jnp.take_along_axis(x, place, axis=1) for x in frame)
        return before, begun

    place = jnp.broadcast_to(
        jnp.arange(before.shape[2], dtype=jnp.int32)[None, :], before.shape[1:]
    )
    place, begun = meshes.scan(back, place, (before, begun), reverse=True)
    return begun, place
