"""One frame of prefix beam search, for a batch.

A beam holds W different prefixes. For each it keeps the total probability of its alignments so
far, separately for those that end in a blank and those that end in its last label
(Graves 2008, "Supervised sequence labelling", section 7.5; Hannun et al. 2014, "First-pass large
vocabulary continuous speech recognition using bi-directional recurrent DNNs", algorithm 1).
At each frame every prefix stays as it is, by a blank or by its last label again, and also yields
prefixes longer by one label. A longer prefix that is already in the beam is merged with it.

* Merging. Prefixes in the beam differ, so a longer prefix can be equal to one in the beam only,
  and only to a child of its own parent. Each prefix has a hash of itself and one of its parent
  (64 bits, and the length), by which `merging` finds parents.
* Candidates. Without a scorer, the longer prefixes of the p-th prefix of the beam rank as their
  labels do at this frame, except that its own last label may rank lower. Counting from 0, the
  k-th label of the p-th prefix is therefore beaten by at least (p + 1) k - 1 others (a merged
  prefix counts as the one it was merged with). So all with (p + 1) k > W are left out: about
  W log W candidates remain, however many classes there are, and no result changes.
* Frames. The best alignment of each prefix is tracked as well, again separately for the two
  endings. Each frame records where it came from; see `traces`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.ctc import merging
from jaxctc.ctc.frames import Frame
from jaxctc.ctc.prefixes import NOTHING, Beam, Search
from jaxctc.ctc.traces import Trace, unmoved
from jaxctc.decoding import selection
from jaxctc.decoding.hashing import prefix_hash
from jaxctc.language.scorer import Scorer, extend_scores


def candidates(width: int, labels: int, every: bool) -> np.ndarray:
    """Which longer prefixes are considered: indices into a table of prefixes by ranked labels."""
    p, k = np.divmod(np.arange(width * labels), labels)
    return np.flatnonzero(every | ((p + 1) * k <= width))


def step(beam: Beam, frame: Frame, search: Search) -> tuple[Beam, Trace]:
    """The beam after one more frame, and where its best alignments came from."""
    width = beam.last.shape[1]
    added = frame.log_probs if frame.top_log_probs is None else frame.top_log_probs  # [B, K]
    place = jnp.arange(width, dtype=jnp.int32)
    total = jnp.logaddexp(beam.blank, beam.label)
    best = jnp.maximum(beam.best_blank, beam.best_label)
    # If the two endings tie, the alignment ends in the label, as in `forced_align`.
    best_place = jnp.where(beam.best_blank > beam.best_label, 0, width) + place[None, :]
    blank_place = jnp.broadcast_to(place[None, :], best_place.shape)

    # What children inherit: if one repeats its parent's last label, only what ends in a blank.
    parent = merging.parents(
        beam.length, (beam.high, beam.low), (beam.parent_high, beam.parent_low)
    )
    has_parent, above = parent >= 0, jnp.maximum(parent, 0)

    def take(x, source):
        return jnp.take_along_axis(x, source, axis=1)

    same = take(beam.last, above) == beam.last

    def from_parent(repeated, other):
        return jnp.where(same, take(repeated, above), take(other, above))

    entering = jnp.where(has_parent, from_parent(beam.blank, total), -jnp.inf)
    best_entering = jnp.where(has_parent, from_parent(beam.best_blank, best), -jnp.inf)
    entering_place = from_parent(blank_place, best_place)

    # Prefixes that stay as they are.
    log_blank = frame.blank[:, None]
    log_last = take(frame.log_probs, jnp.maximum(beam.last, 0))
    log_last = jnp.where(beam.last >= 0, log_last, -jnp.inf)
    stay_blank = total + log_blank
    stay_label = jnp.logaddexp(beam.label, entering) + log_last
    begins = best_entering > beam.best_label
    stay = jnp.logaddexp(stay_blank, stay_label)
    stay_best_label = jnp.where(begins, best_entering, beam.best_label) + log_last
    stay_label_place = jnp.where(begins, entering_place, width + place[None, :])

    (rank, stays, source, choice), wanted = _winners(
        search, _Ranked(beam, frame, added, total, stay, parent), width
    )
    exists = rank > -jnp.inf
    if search.threshold is not None:
        exists &= rank >= jnp.max(rank, axis=1, keepdims=True) - search.threshold
    # A frame with NaN leaves no prefix; the scores are NaN from there on.
    nothing = jnp.where(jnp.isnan(total[:, :1] + log_blank), jnp.nan, -jnp.inf)

    def old(x):
        return take(x, source)

    label = choice if frame.top_labels is None else take(frame.top_labels, choice)
    label = jnp.where(stays, old(beam.last), label)
    log_prob = take(added, choice)
    again = label == old(beam.last)
    new_label = jnp.where(again, old(beam.blank), old(total)) + log_prob
    new_best = jnp.where(again, old(beam.best_blank), old(best)) + log_prob
    new_place = jnp.where(again, source, old(best_place))
    high, low = old(beam.high), old(beam.low)
    child_high, child_low = prefix_hash(high, low, label)
    after = Beam(
        blank=jnp.where(exists, jnp.where(stays, old(stay_blank), -jnp.inf), nothing),
        label=jnp.where(exists, jnp.where(stays, old(stay_label), new_label), nothing),
        best_blank=jnp.where(stays, old(best) + log_blank, -jnp.inf),
        best_label=jnp.where(stays, old(stay_best_label), new_best),
        last=label,
        length=jnp.where(exists, old(beam.length) + (~stays).astype(jnp.int32), NOTHING),
        high=jnp.where(stays, high, child_high),
        low=jnp.where(stays, low, child_low),
        parent_high=jnp.where(stays, old(beam.parent_high), high),
        parent_low=jnp.where(stays, old(beam.parent_low), low),
        scorer_state=beam.scorer_state,
        scorer_score=beam.scorer_score,
        lost=beam.lost,
        full=beam.full,
    )
    if wanted is not None and frame.most is not None:
        lost = jnp.logaddexp(beam.lost + frame.most, wanted)
        after = after._replace(lost=lost, full=beam.full | (lost > jnp.max(rank, axis=1)))
    if search.scorer is not None:
        state, score = _scored(search.scorer, beam, source, label, stays)
        after = after._replace(scorer_state=state, scorer_score=score)
    trace = Trace(
        blank=old(best_place),
        label=jnp.where(stays, old(stay_label_place), new_place),
        begins=~stays | old(begins),
        last=label,
    )

    # A frame past the end changes nothing.
    before = beam, unmoved(beam.last)
    return jax.tree.map(lambda x, y: _where(frame.inside, x, y), (after, trace), before)


class _Ranked(NamedTuple):
    """What the candidates of a frame are ranked by."""

    beam: Beam
    frame: Frame
    added: jax.Array  # [B, K]: log-probabilities of labels
    total: jax.Array  # [B, W]
    stay: jax.Array  # [B, W]
    parent: jax.Array  # int32 [B, W]


def _winners(
    search: Search, x: _Ranked, width: int
) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
    """The W best of prefixes that stay and prefixes that become longer by one label.

    Returns:
      ``[B, W]``: their ranks, whether they stay, the place of each before, which label is added;
      and ``[B]``, the best rank of those that would be longer than there is room for.
    """
    beam, labels = x.beam, x.frame.top_labels
    batch, count = x.added.shape
    every = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None, :], x.added.shape)
    longer, repeats = _longer(x, every if labels is None else labels, x.added)
    # Without those that are in the beam already.
    row = jnp.arange(batch, dtype=jnp.int32)[:, None]
    if labels is None:
        cell = beam.last
    else:
        cell = jnp.where(repeats.any(axis=2), jnp.argmax(repeats, axis=2).astype(jnp.int32), count)
    longer = longer.at[row, jnp.where(x.parent >= 0, x.parent, width), cell].set(
        -jnp.inf, mode="drop"
    )
    longer = jnp.where((beam.length >= search.max_labels)[:, :, None], -jnp.inf, longer)
    wanted = _wanted(search, x) if search.capped else None
    stay = x.stay
    if search.scorer is None:
        flat = longer.reshape(batch, width * count)[:, search.chosen]
        rank, winner = lax.top_k(jnp.concatenate([stay, flat], axis=1), width)
        stays = winner < width
        chosen = jnp.asarray(search.chosen, jnp.int32)[jnp.maximum(winner - width, 0)]
        return (rank, stays, jnp.where(stays, winner, chosen // count), chosen % count), wanted

    longer = _with_scores(search.scorer, search.weight, beam, labels, longer)
    stay = stay + search.weight * beam.scorer_score
    both = jnp.concatenate([stay[:, :, None], longer], axis=2)
    both = both.reshape(batch, width * (count + 1))
    rank, winner = selection.best(both, width)
    source, choice = winner // (count + 1), winner % (count + 1)
    return (rank, choice == 0, source, jnp.maximum(choice - 1, 0)), wanted


def _longer(x: _Ranked, labels: jax.Array, added: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Prefixes longer by labels of these log-probabilities, and which repeat, ``[B, W, K]``."""
    repeats = labels[:, None, :] == x.beam.last[:, :, None]
    before = jnp.where(repeats, x.beam.blank[:, :, None], x.total[:, :, None])
    return before + added[:, None, :], repeats


def _with_scores(
    scorer: Scorer, weight: jax.Array, beam: Beam, labels: jax.Array | None, longer: jax.Array
) -> jax.Array:
    """The ranks ``[B, W, K]`` with the scorer's scores of labels ``[B, K]``, or of all classes."""
    batch, width, count = longer.shape

    def scores(state, labels):
        return extend_scores(scorer, state, labels)

    if labels is None:
        every = jnp.arange(count, dtype=jnp.int32)
        of_prefix = jax.vmap(lambda state: scores(state, every), axis_size=width)
        grown = jax.vmap(of_prefix, axis_size=batch)(beam.scorer_state)
    else:
        grown = jax.vmap(jax.vmap(scores, (0, None), axis_size=width))(beam.scorer_state, labels)
    grown = grown.astype(longer.dtype)
    allowed = grown > -jnp.inf
    grown = jnp.where(allowed, beam.scorer_score[:, :, None] + grown, 0)
    return jnp.where(allowed, longer + weight * grown, -jnp.inf)


def _wanted(search: Search, x: _Ranked) -> jax.Array:
    """The best rank ``[B]`` of prefixes that would be longer than there is room for.

    Only the two most probable labels of the frame are asked, since one may repeat the prefix's
    last. They are ranked anew: the ranks of all labels, read twice, would be computed twice.
    """
    labels, added = x.frame.likely_labels, x.frame.likely_log_probs
    assert labels is not None
    assert added is not None
    longer, _ = _longer(x, labels, added)
    longer = jnp.where((x.beam.length >= search.max_labels)[:, :, None], longer, -jnp.inf)
    if search.scorer is not None:
        longer = _with_scores(search.scorer, search.weight, x.beam, labels, longer)
    return jnp.max(longer, axis=(1, 2))


def _scored(scorer: Scorer, beam: Beam, source, label, stays) -> tuple[Any, jax.Array]:
    """The scorer's states and scores of the winners."""

    def old(x):
        return jax.vmap(lambda x, source: x[source])(x, source)

    state, score = jax.tree.map(old, (beam.scorer_state, beam.scorer_score))
    after, gained = jax.vmap(jax.vmap(scorer.extend))(state, jnp.maximum(label, 0))
    after = jax.tree.map(lambda x, y: _where(stays, x, y), state, after)
    return after, jnp.where(stays, score, score + gained.astype(score.dtype))


def _where(mask: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """`jnp.where` with a mask of the first axes."""
    return jnp.where(mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, y)
