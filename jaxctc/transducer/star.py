"""Stars: frames of words that a transcript lacks, anywhere in it.

A star is an arc beside a blank. It reads a frame in which something is said that is not in the
transcript, and leaves the labels as they are. Since it leads where the blank leads, the two are
one arc with the sum of their probabilities, and no lattice changes.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxctc.core import checks, meshes
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer.lattice import TransducerArcs, cells, flat_arcs, unflatten


def rnnt_with_star(
    blank_log_probs: checks.ArrayLike,
    label_log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None = None,
    label_lengths: checks.ArrayLike | None = None,
    *,
    star_weight: float = 0.0,
    star_excludes_next: bool = False,
    star_log_probs: checks.ArrayLike | None = None,
) -> TransducerArcs:
    r"""Arcs with stars beside the blanks, for transcripts that lack labels anywhere.

    A star matches any label but not the blank, as that of `with_star` does for CTC, and takes the
    frame. What the predictor would have said after the missing label is not known, so it goes on
    as if there were none. Blank and star become one arc of the probability

    $$ p(\text{blank}) + e^w \, p(\text{star}), \qquad p(\text{star}) = 1 - p(\text{blank}) $$

    except at the last frame, where a path ends with the blank itself. With ``star_weight = 0``
    their sum is 1, whatever is said, and blanks are not learnt: choose it below 0.

    Args:
      blank_log_probs: float ``[*batch, T, U + 1]``, from `rnnt_log_probs`, `hat_log_probs`,
        `rnnt_simple_log_probs` or `rnnt_pruned_log_probs`.
      label_log_probs: float ``[*batch, T, U]``, likewise.
      logit_lengths: integer ``[*batch]``, the frames of each sequence; None means T.
      label_lengths: integer ``[*batch]``, the labels of each sequence; None means U.
      star_weight: Added to the log-probability of each star, w; a negative weight makes stars less
        likely. At -100 there are none.
      star_excludes_next: Whether a star matches any label but the next one, so that it can not take
        that label's place. Its probability is then ``1 - p(blank) - p(label)``.
      star_log_probs: Log-probabilities of the stars in place of these, with a shape that broadcasts
        to ``[*batch, T, U + 1]``: of other classes, or 0 for arcs that skip any frame for the same
        price (Bataev 2025, Star-Transducer, with `star_weight` as its "skip frame penalty").

    Returns:
      `TransducerArcs` for `rnnt_loss_from_log_probs`, `w_transducer_loss`, `rnnt_posteriors` or
      `rnnt_align`; nothing changes past a length. They must be of all frames, not of the chunks of
      `rnnt_loss_from_joint`, which have last frames of their own. With a `star_weight` above 0, or
      with `star_log_probs`, they may be above 0, and a loss negative.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If shapes do not fit, or concrete lengths or `star_weight` are out of range.

    Examples:
      >>> import jax.numpy as jnp, jaxctc
      >>> spoken = 9.0 * jnp.eye(4)[jnp.array([1, 0, 3, 2, 0])]  # 1 3 2; the transcript is 1 2
      >>> position = jnp.array([0, 1, 1, 1, 2])  # labels of the transcript before each frame
      >>> logits = jnp.broadcast_to(jnp.array([9.0, 0, 0, 0]), (5, 3, 4))
      >>> logits = logits.at[jnp.arange(5), position].set(spoken)
      >>> arcs = jaxctc.rnnt_log_probs(logits, jnp.array([1, 2]))
      >>> print(jaxctc.rnnt_loss_from_log_probs(*arcs) > 7)
      True
      >>> lenient = jaxctc.rnnt_with_star(*arcs, star_weight=-1.0)
      >>> print(jaxctc.rnnt_loss_from_log_probs(*lenient) < 1.1)
      True

    References:
      Pratap, Hannun, Synnaeve, Collobert 2022, "Star temporal classification", for the star.
      Bataev 2025, "RNN-Transducer-based losses for speech recognition on noisy targets",
      arXiv 2504.06963: stars beside the blanks of a transducer.
    """
    arcs = transducer_checks.arcs(blank_log_probs, label_log_probs, logit_lengths, label_lengths)
    excludes = checks.flag("star_excludes_next", star_excludes_next)
    weight = checks.finite("star_weight", star_weight)
    if star_log_probs is not None:
        star_log_probs = _broadcast(star_log_probs, arcs.blank.shape)
    return _with_star(*arcs, star_log_probs, excludes, weight)


def _broadcast(value: checks.ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"star_log_probs has dtype {array.dtype}; it must be floating-point.")
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"star_log_probs has shape {array.shape}; it must broadcast to {shape}."
        ) from None


@meshes.jit(trailing=(2, 2, 0, 0, 2), static_argnums=5)
def _with_star(blank, label, logit_lengths, label_lengths, star, excludes, weight):
    batch = blank.shape[:-2]
    arcs = flat_arcs(blank, label)
    _, frames, spaces = arcs.blank.shape
    # The last frame ends with the blank itself.
    lengths = logit_lengths.reshape(-1) - 1, label_lengths.reshape(-1)
    inside = cells(frames, spaces, *lengths)
    # Set to 0 elsewhere, or NaN in padding would have a gradient.
    before = jnp.where(inside, arcs.blank, 0)
    if star is None:
        share = -jnp.expm1(before)
        if excludes:
            following = jnp.pad(arcs.label, ((0, 0), (0, 0), (0, 1)), constant_values=-jnp.inf)
            has_next = cells(frames, spaces, lengths[0], lengths[1] - 1)
            # In this order both terms are exact where the label is almost sure.
            share = -jnp.expm1(jnp.where(has_next, following, -jnp.inf)) - jnp.exp(before)
        share, score = jnp.where(share < 0, 0, share), jnp.asarray(weight, before.dtype)
    else:
        star = star.reshape(before.shape).astype(before.dtype)
        share, score = 1, jnp.where(inside, star, 0) + jnp.asarray(weight, before.dtype)
    top = lax.stop_gradient(jnp.maximum(before, score))
    top = jnp.where(top > -jnp.inf, top, 0)
    both = jnp.exp(before - top) + share * jnp.exp(score - top)
    nothing = both <= 0
    both = jnp.where(nothing, -jnp.inf, top + jnp.log(jnp.where(nothing, 1, both)))
    return unflatten(arcs._replace(blank=jnp.where(inside, both, arcs.blank)), batch)
