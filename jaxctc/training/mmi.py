"""Discriminative training: the score of the labels against that of all label sequences."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.automata import checks as automata_checks
from jaxctc.automata.arcs import Fsa
from jaxctc.automata.graphs import ngram_fsa
from jaxctc.automata.score import fsa_score
from jaxctc.automata.topologies import CTC, compose
from jaxctc.core import checks, meshes
from jaxctc.core.emissions import widen


def lfmmi_loss(
    logits: checks.ArrayLike,
    numerator: Fsa,
    denominator: Fsa,
    logit_lengths: checks.ArrayLike | None = None,
    *,
    boost: float | jax.Array = 0.0,
    ctc_weight: float | jax.Array = 0.0,
) -> jax.Array:
    r"""Lattice-free maximum mutual information: minus the log of the labels' share of all paths.

    $$ L = \log \sum_{\pi \in \mathrm{denominator}} w(\pi) e^{x(\pi)}
       - \log \sum_{\pi \in \mathrm{numerator}} w(\pi) e^{x(\pi)} $$

    The numerator has the paths of the labels (`ctc_fsa`), the denominator those of all label
    sequences, weighted by a language model (`ctc_denominator`). Adding a constant to all classes
    of a frame, as normalising the logits does, changes nothing.

    With the CTC topology this is the loss of CTC-CRF: that of the conditional random
    field, plus `ctc_weight` times the CTC loss. Its gradient is exact in float32 at any length.

    Args:
      logits: float ``[*batch, T, C]``, unnormalised.
      numerator: The automaton of each sequence's labels, a batch (`Fsa.stack`). If its paths have
        the score of the labels in the language model (``ctc_fsa(..., weight=...)``), the
        loss is never negative, except for rounding.
      denominator: One automaton for all sequences, or a batch.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      boost: Makes paths of the denominator more probable the more they differ from the numerator:
        at each frame, a path's score is reduced by `boost` times the numerator's posterior of
        its class.
      ctc_weight: The factor of the CTC loss that is added: the numerator's negative score with
        normalised logits.

    Returns:
      float ``[*batch]``. If numerator or denominator has no path of that many frames, it is
      ``inf`` with gradient 0. If a sequence's own logits contain NaN or ``+inf``, it is NaN.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete values are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> labels = [[1, 2], [2]]
      >>> numerator = jaxctc.Fsa.stack([jaxctc.ctc_fsa(y) for y in labels])
      >>> denominator = jaxctc.ctc_denominator(labels, order=2)
      >>> loss = jaxctc.lfmmi_loss(jnp.zeros((2, 5, 3)), numerator, denominator)
      >>> loss.shape
      (2,)

    References:
      Povey et al. 2016, "Purely sequence-trained neural networks for ASR based on lattice-free
      MMI".
      Povey et al. 2008, "Boosted MMI for model and feature-space discriminative training".
      Zhang et al. 2021, "Lattice-free boosted MMI training of HMM and CTC-based attention-free
      ASR models".
      Xiang, Ou 2019, "CRF-based single-stage acoustic modeling with CTC topology".
    """
    logits = checks.logits_array("logits", logits)
    *batch, frames, classes = logits.shape
    automata_checks.automaton("numerator", numerator, tuple(batch), classes)
    automata_checks.automaton("denominator", denominator, tuple(batch), classes)
    lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)
    boost = checks.real_from_zero("boost", boost)
    ctc_weight = checks.real_from_zero("ctc_weight", ctc_weight)
    # A factor known to be 0 is left out. Any other is traced, so that a new value compiles nothing.
    used = (None if checks.concrete(x) == 0 else x for x in (boost, ctc_weight))
    return _lfmmi_loss(numerator, denominator, logits, lengths, *used)


@meshes.jit(trailing=(None, None, 2, 0))
def _lfmmi_loss(numerator, denominator, logits, lengths, boost, ctc_weight):
    frame = lax.broadcasted_iota(jnp.int32, logits.shape[:-1], logits.ndim - 2)
    inside = frame < lengths[..., None]
    x = jnp.where(inside[..., None], widen(logits), 0)
    # Both scores change alike, and only their difference counts: smaller scores round less.
    top = lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    x = x - jnp.where(jnp.isfinite(top), top, 0)
    if boost is not None:
        boost = lax.convert_element_type(boost, x.dtype)
        correct, pullback = jax.vjp(lambda x: fsa_score(numerator, x, lengths), x)
        (posteriors,) = pullback(jnp.ones_like(correct))
        everything = fsa_score(denominator, x - boost * lax.stop_gradient(posteriors), lengths)
    else:
        correct = fsa_score(numerator, x, lengths)
        everything = fsa_score(denominator, x, lengths)
    possible = (correct != -jnp.inf) & (everything != -jnp.inf)
    loss = everything - correct
    if ctc_weight is not None:
        # If a path exists, every frame has a possible class.
        finite = jnp.where(possible[..., None, None], x, 0)
        normaliser = jnp.where(inside, jax.nn.logsumexp(finite, axis=-1), 0)
        own = jnp.where(possible, correct, 0)
        ctc_weight = lax.convert_element_type(ctc_weight, x.dtype)
        loss += ctc_weight * (jnp.sum(normaliser, axis=-1) - own)
    return jnp.where(possible, loss, jnp.inf)


def ctc_denominator(
    sequences: Iterable[Sequence[int]], *, order: int = 2, discount: float = 0.5, blank_id: int = 0
) -> Fsa:
    """All alignments of all label sequences, weighted by an n-gram model of those given.

    Args:
      sequences: Label sequences to count, such as those of the training set.
      order: See `ngram_fsa`.
      discount: See `ngram_fsa`.
      blank_id: The class that is the blank.

    Examples:
      >>> import jaxctc
      >>> denominator = jaxctc.ctc_denominator([[1, 2, 2], [2, 1]], order=2)
      >>> denominator.final.shape, denominator.weight.shape
      ((5,), (15,))
    """
    return compose(CTC(blank_id), ngram_fsa(sequences, order=order, discount=discount))
