"""Why a CTC loss is infinite or NaN, in words: computed on the host, with numpy."""

from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxctc.core import checks

SHOWN = 3  # labels that are out of range; of more only the number is given


def explain(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    blank_id: int = 0,
) -> list[str]:
    """Why the loss of a sequence is ``inf`` or NaN, or why the input looks wrong though it is not.

    For people, not for programs: call it outside `jax.jit` with the arguments of a `ctc_loss`
    that surprises. What it finds, with places and values:

    * a label that is not a class, or is the blank;
    * fewer frames than labels and the blanks between equal neighbours;
    * NaN or ``+inf`` among the logits;
    * logits of ``-inf`` wherever a label could stand, or at some frame for all that could;
    * as a hint, where the loss is finite: probabilities in the place of logits.

    Arguments and errors are those of `ctc_loss`; batch axes are broadcast.

    Returns:
      One string for each sequence, in the order of the batch with its axes made one; empty where
      nothing is wrong, several sentences where several things are.

    Raises:
      TypeError: If a dtype is of the wrong kind, or an array is traced or in several processes.
      ValueError: If shapes do not fit, or lengths or `blank_id` are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> reasons = jaxctc.explain(jnp.zeros((2, 3, 5)), [[1, 2], [4, 4]], [3, 2])
      >>> print(reasons)
      ['', 'labels need 3 frames, 1 of them for blanks between equal labels; there are 2.']
    """
    lengths = {"logit_lengths": logit_lengths, "label_lengths": label_lengths}
    for name, value in {"logits": logits, "labels": labels, **lengths}.items():
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(value)):
            raise TypeError(f"{name} is traced; it must be concrete: call explain outside jax.jit.")
        if not getattr(value, "is_fully_addressable", True):
            raise TypeError(
                f"{name} is sharded over several processes; it must be all in this one: call "
                "explain with the sequences of one process."
            )
    # Concrete arrays stay so inside someone else's `jit`, and reading them is what this is for.
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        with np.errstate(over="ignore"):  # of float64, which the loss reads as float32
            pair = checks.sequence_pair(logits, labels, logit_lengths, label_lengths, blank_id)
        frames, lengths = (np.asarray(jax.device_get(x)) for x in pair[2:4])
        used = np.asarray(jax.device_get(pair.logits)), np.asarray(jax.device_get(pair.labels))
        # As they were given: integers and numbers may be larger than those of the loss.
        given = np.asarray(jax.device_get(logits)), np.asarray(jax.device_get(labels))
    shape = pair.labels.shape[:-1]
    read, written = (np.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (used[0], given[0]))
    labels = np.broadcast_to(given[1], used[1].shape)

    def sequence(i) -> _Sequence:
        t = frames[i]
        return _Sequence(read[i][:t], written[i][:t], labels[i][: lengths[i]], pair.blank_id)

    return [_explain(sequence(i)) for i in np.ndindex(*shape)]


class _Sequence(NamedTuple):
    """A sequence without its padding."""

    logits: np.ndarray  # [T, C], as the loss reads them
    given: np.ndarray  # [T, C], as they were given
    labels: np.ndarray  # [S]
    blank_id: int


def _explain(sequence: _Sequence) -> str:
    logits = sequence.logits.astype(np.promote_types(sequence.logits.dtype, np.float32))
    sequence = sequence._replace(logits=logits)
    reasons = [*_wrong_labels(sequence), *_too_few_frames(sequence), *_wrong_logits(sequence)]
    for look in (_masked, _underflow, _probabilities):
        reasons = reasons or [*look(sequence)]
    return " ".join(reasons)


def _wrong_labels(sequence: _Sequence):
    classes = sequence.logits.shape[1]
    outside = (sequence.labels < 0) | (sequence.labels >= classes)
    blank = sequence.labels == sequence.blank_id
    for wrong, sentence in (
        (outside, f"labels[{{}}] is {{}}; it must be a class, in 0…{classes - 1}."),
        (blank, "labels[{}] is {}, the blank; it must be another class."),
    ):
        places = np.flatnonzero(wrong)
        for place in places[:SHOWN]:
            yield sentence.format(place, sequence.labels[place])
        if len(places) > SHOWN:
            yield f"It is so with {len(places) - SHOWN} more."


def _repeats(labels: np.ndarray) -> np.ndarray:
    """For each label, whether a blank must stand before it, as it is equal to the one before."""
    return np.concatenate([[False], labels[1:] == labels[:-1]])[: len(labels)]


def frames_needed(labels: np.ndarray) -> tuple[int, int]:
    """The fewest frames that labels fit into, and how many of these are for blanks."""
    blanks = int(_repeats(labels).sum())
    return len(labels) + blanks, blanks


def too_few_frames(labels: np.ndarray, frames: int, name: str = "labels") -> str:
    """A sentence if labels do not fit into so many frames, else empty."""
    needed, blanks = frames_needed(labels)
    if needed <= frames:
        return ""
    what = f", {blanks} of them for blanks between equal labels" if blanks else ""
    plural = "s" if needed != 1 else ""
    return f"{name} need {needed} frame{plural}{what}; there are {frames}."


def _too_few_frames(sequence: _Sequence):
    if reason := too_few_frames(sequence.labels, len(sequence.logits)):
        yield reason


def _wrong_logits(sequence: _Sequence):
    places = np.argwhere(np.isnan(sequence.logits) | (sequence.logits == np.inf))
    if len(places):
        t, c = places[0]
        what = f"{sequence.given[t, c]:.3g}"
        if np.isfinite(sequence.given[t, c]):
            what += f", which {sequence.logits.dtype} does not have"
        more = f" It is the first of {len(places)} such numbers." if len(places) > 1 else ""
        yield f"logits[{t}, {c}] is {what}; it must be finite or -inf.{more}"


def _masked(sequence: _Sequence):
    """Whether ``-inf`` leaves no alignment, and the first reason for it."""
    logits, _, labels, blank_id = sequence
    possible = logits > -np.inf
    if possible.all():
        return
    empty = np.flatnonzero(~possible.any(axis=1))
    if empty.size:
        read = "" if np.isneginf(sequence.given[empty[0]]).all() else f" in {logits.dtype}"
        yield f"logits[{empty[0]}] is -inf{read} at all classes; one must be possible."
        return
    frames, size = len(logits), len(labels)
    # Of the frames before and after a label some are taken by the others and their blanks.
    before = np.arange(size) + np.cumsum(_repeats(labels))
    last = int(before[-1]) if size else -1
    first, final = before, frames - 1 - (last - before)
    found = False
    for place, label in enumerate(labels):
        start, end = first[place], final[place]
        if not possible[start : end + 1, label].any():
            found = True
            where = f"frame {start}" if start == end else f"frames {start} to {end}"
            yield (
                f"labels[{place}] is {label}; it can stand only at {where}, and there its logits "
                "are -inf."
            )
    if not found:
        yield from _dead_end(possible, labels, blank_id, first, final)


def _dead_end(possible, labels, blank_id, first, final):
    """The first frame that no alignment gets past.

    States are blanks (even) and labels (odd) in turn, and only those which the frames that are
    left allow: each of them could still end well.
    """
    frames, size = len(possible), len(labels)
    classes = np.full(2 * size + 1, blank_id)
    classes[1::2] = labels
    earliest, latest = np.zeros(2 * size + 1, int), np.full(2 * size + 1, frames - 1)
    earliest[1::2], latest[1::2] = first, final
    # A blank comes after the label before it and before the label after it.
    earliest[2::2] = first + 1
    latest[:-1:2] = final - 1
    skip = np.zeros(2 * size + 1, bool)  # from the label before the blank before
    skip[3::2] = labels[1:] != labels[:-1]
    alive = np.zeros(2 * size + 1, bool)
    for t in range(frames):
        if t == 0:
            alive[:2] = True
        else:
            one, two = np.pad(alive, (1, 0))[:-1], np.pad(alive, (2, 0))[:-2]
            alive = alive | one | (two & skip)
        alive &= (earliest <= t) & (t <= latest)
        wanted = sorted({int(c) for c in classes[alive]})
        alive &= possible[t, classes]
        if not alive.any():
            names = ", ".join(map(str, wanted))
            which = "class" if len(wanted) == 1 else "classes"
            need = "it" if len(wanted) == 1 else "one of these"
            yield f"logits[{t}] is -inf at {which} {names}; the labels need {need} at this frame."
            return


def _underflow(sequence: _Sequence):
    """Whether all alignments are less probable than any number of the loss's dtype."""
    logits, _, labels, blank_id = sequence
    least = float(np.finfo(logits.dtype).min)
    if len(logits) == 0 or logits.min() > least / (2 * len(logits)):
        return  # no sum of that many can be below
    # The best path, in a dtype of wider range.
    top = logits.max(axis=1, keepdims=True).astype(np.longdouble)
    log_probs = logits - top
    classes = np.full(2 * len(labels) + 1, blank_id)
    classes[1::2] = labels
    skip = np.zeros(len(classes), bool)
    skip[3::2] = labels[1:] != labels[:-1]
    best = np.where(np.arange(len(classes)) < 2, log_probs[0, classes], -np.inf)
    for row in log_probs[1:, classes]:
        one = np.append(-np.inf, best[:-1])
        two = np.where(skip, np.append([-np.inf] * 2, best)[: len(classes)], -np.inf)
        best = np.maximum(np.maximum(best, one), two) + row
    score = best[-2:].max()
    if score < least * np.log(2):
        yield (
            f"The best alignment has the log-probability {score:.3g}, too low for "
            f"{logits.dtype}. If logits are masked, mask them with -inf."
        )


def _probabilities(sequence: _Sequence):
    logits = sequence.logits
    if logits.shape[0] == 0 or logits.shape[1] < 2 or logits.min() < 0:
        return
    rounding = float(jnp.finfo(sequence.given.dtype).eps)
    if np.abs(logits.sum(axis=1) - 1).max() <= max(1e-3, rounding):
        yield (
            f"Hint: logits[0] sums to {logits[0].sum():.3g} and is nowhere negative, as all frames "
            "are. If these are probabilities, take their logarithms."
        )
