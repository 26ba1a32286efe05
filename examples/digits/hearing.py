"""Decoding digit strings with a trained model, and scores of the results."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxctc
from digits import models
from digits.data import DigitString, stack
from digits.objectives import PRIOR_WEIGHT

MOST_HEARD = 20  # the most digits of a hypothesis
BATCH, BEAM_WIDTH = 100, 8


@nnx.jit(static_argnames="divide")
def _hear(model, batch, divide):
    """Returns the labels decoded, and the start and end of each true label, in frames."""
    labels, label_lengths = batch["labels"], batch["label_lengths"]
    if isinstance(model, models.Transducer):
        return _hear_transducer(model, batch)
    logits, lengths = model(batch["features"], batch["frames"])
    if divide:
        logits -= PRIOR_WEIGHT * jaxctc.ctc_label_priors(logits, lengths)
    heard = jaxctc.ctc_beam_search(logits, lengths, beam_width=BEAM_WIDTH, max_labels=MOST_HEARD)
    aligned = jaxctc.forced_align(logits, labels, lengths, label_lengths)
    return heard.labels[:, 0], aligned.starts, aligned.ends


def _hear_transducer(model, batch):
    labels, label_lengths = batch["labels"], batch["label_lengths"]
    x, lengths = model.encoder.encode(batch["features"], batch["frames"])
    heard = jaxctc.rnnt_beam_search(
        model.join,
        lambda state, label: (model.predictor(label), state),
        (),
        model.project(x),
        lengths,
        beam_width=BEAM_WIDTH,
        max_labels=MOST_HEARD,
        monotonic=True,
    )
    logits, lengths = model(batch["features"], batch["frames"], labels)
    arcs = jaxctc.rnnt_log_probs(logits, labels, lengths, label_lengths)
    # A transducer emits a label at one frame, which is taken as its start and end.
    starts = jaxctc.rnnt_align(*arcs, lengths, label_lengths, monotonic=True).frames
    return heard.labels[:, 0], starts, starts + 1


def scores(
    model: nnx.Module, strings: Sequence[DigitString], frames: int, *, divide: bool = False
) -> dict[str, float]:
    """Returns the digit error rate, and the mean error of aligned boundaries in milliseconds.

    Args:
      model: one of `models.MODELS`.
      strings: the test strings.
      frames: the number of frames to pad to.
      divide: whether probabilities are divided by the classes' priors.
    """
    edits, off = 0, []
    for start in range(0, len(strings), BATCH):
        rows = strings[start : start + BATCH]
        batch = jax.tree.map(jnp.asarray, stack(rows, frames))
        labels, starts, ends = _hear(model, batch, divide)
        wrong = jaxctc.edit_distance(labels, batch["labels"], None, batch["label_lengths"])
        edits += int(wrong.sum())
        found = np.stack([starts, ends], -1) * models.SECONDS_A_FRAME
        for times, row in zip(found, rows, strict=True):
            off.append(np.abs(times[: len(row.bounds)] - row.bounds).reshape(-1))
    digits = sum(len(string.digits) for string in strings)
    return {
        "digit_error_rate": round(edits / digits, 6),
        "boundary_error_ms": round(1000 * float(np.concatenate(off).mean()), 1),
    }
