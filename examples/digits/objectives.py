"""Losses of digit recognisers. Each is a function of model, batch and key."""

from collections.abc import Callable, Sequence

import jax

import jaxctc
from digits import models
from digits.data import DigitString

PRIOR_WEIGHT = 0.3
OBJECTIVES = ("ctc", "prior", "mwer", "mmi", "rnnt", "pruned-rnnt")
Loss = Callable[..., jax.Array]  # (model, batch, key) -> losses [batch]


def model_name(objective: str) -> str:
    return "transducer" if objective.endswith("rnnt") else "encoder"


def make_loss(objective: str, strings: Sequence[DigitString]) -> Loss:
    """Returns the loss of one of `OBJECTIVES`, for training on `strings`."""
    if objective == "mmi":
        return _mmi(strings)
    return {"ctc": _ctc, "prior": _prior, "mwer": _mwer, "rnnt": _rnnt, "pruned-rnnt": _pruned}[
        objective
    ]


def _ctc(model, batch, key) -> jax.Array:
    logits, lengths = model(batch["features"], batch["frames"], key)
    return jaxctc.ctc_loss(logits, batch["labels"], lengths, batch["label_lengths"])


def _prior(model, batch, key) -> jax.Array:
    """CTC with probabilities divided by the classes' priors, estimated from the batch."""
    logits, lengths = model(batch["features"], batch["frames"], key)
    return jaxctc.ctc_prior_loss(
        logits,
        batch["labels"],
        lengths,
        batch["label_lengths"],
        log_priors=jaxctc.ctc_label_priors(logits, lengths),
        prior_weight=PRIOR_WEIGHT,
    )


def _mwer(model, batch, key) -> jax.Array:
    """The expected number of wrong digits over the four best hypotheses."""
    logits, lengths = model(batch["features"], batch["frames"], key)
    return jaxctc.ctc_mwer_loss(
        logits, batch["labels"], lengths, batch["label_lengths"], beam_width=4, ctc_weight=0.05
    )


def _mmi(strings: Sequence[DigitString]) -> Loss:
    """The labels against all strings of digits, weighted by a bigram of the training set."""
    sequences = [(string.digits + 1).tolist() for string in strings]
    language = jaxctc.ngram_fsa(sequences, order=2)
    denominator = jaxctc.compose(jaxctc.topologies.CTC(0), language)
    numerators = jaxctc.Fsa.stack(
        [jaxctc.ctc_fsa(s, weight=language.score_sequence(s)) for s in sequences]
    )

    def loss(model, batch, key) -> jax.Array:
        logits, lengths = model(batch["features"], batch["frames"], key)
        numerator = jax.tree.map(lambda x: jax.numpy.asarray(x)[batch["index"]], numerators)
        return jaxctc.lfmmi_loss(logits, numerator, denominator, lengths, ctc_weight=0.1)

    return loss


def _rnnt(model, batch, key) -> jax.Array:
    """The monotonic transducer loss.

    The predictor knows only the last label. Within a frame it can't tell whether that label was
    emitted at this frame or before; if a label ends its frame, this does not matter.
    """
    logits, lengths = model(batch["features"], batch["frames"], batch["labels"], key)
    return jaxctc.rnnt_loss(
        logits, batch["labels"], lengths, batch["label_lengths"], monotonic=True
    )


def _pruned(model, batch, key) -> jax.Array:
    """The joint network runs at four label positions per frame, chosen by a simple joint."""
    labels, label_lengths = batch["labels"], batch["label_lengths"]
    x, lengths = model.encoder.encode(batch["features"], batch["frames"], key)
    before = models.before_labels(labels)
    simple = model.simple_encoder(x), model.simple_predictor(before)
    arcs = jaxctc.rnnt_simple_log_probs(*simple, labels, lengths, label_lengths)
    lengths = lengths, label_lengths
    posteriors = jaxctc.rnnt_posteriors(*arcs, *lengths, monotonic=True)
    ranges = jaxctc.rnnt_prune_ranges(*posteriors, *lengths, s_range=4, monotonic=True)
    kept = jaxctc.rnnt_prune(model.project(x), model.predictor(before), ranges, *lengths)
    logits = model.join(kept.encoder, kept.predictor)
    pruned = jaxctc.rnnt_loss_pruned(logits, labels, ranges, *lengths, monotonic=True)
    return pruned + 0.5 * jaxctc.rnnt_loss_from_log_probs(*arcs, *lengths, monotonic=True)
