"""torch's CTC loss, as a function and as a class.

They are time-major, with any blank, padded or concatenated targets.

Differences from torch:

* An infeasible pair has loss ``inf`` and gradient 0, where torch's gradient is NaN.
  `jaxctc.explain` says why a pair is infeasible.
* `log_probs` are normalised again, which changes nothing if they are log-probabilities.
* A target that is not a class, or is the blank, makes its pair infeasible.
* With ``reduction="none"`` unbatched input gives a scalar, and half precision gives float32.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc import ctc
from jaxctc.compat import checks as compat_checks
from jaxctc.core import checks


def ctc_loss(
    log_probs: checks.ArrayLike,
    targets: checks.ArrayLike,
    input_lengths: checks.ArrayLike,
    target_lengths: checks.ArrayLike,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> jax.Array:
    """`torch.nn.functional.ctc_loss`: the same arguments, values and gradients.

    Works under `jax.jit`. Concatenated targets are split by `target_lengths`. If these
    are traced, each target is padded to the length of the input or of all targets together,
    whichever is shorter, so prefer concrete lengths. After the last target there may then be
    padding, which must be negative; if anything else is left, all losses are ``inf``.

    Args:
      log_probs: float ``(T, N, C)``, or ``(T, C)`` for one sequence.
      targets: integer ``(N, S)``, or concatenated ``(sum(target_lengths),)``; ``(S,)`` for one
        sequence.
      input_lengths: integer ``(N,)``, an array, tuple or list; a scalar for one sequence.
      target_lengths: integer ``(N,)``, like `input_lengths`.
      blank: The class that is the blank.
      reduction: ``"none"``: one loss per sequence. ``"sum"``: their sum. ``"mean"``: each
        loss is divided by its target length (at least 1), then their mean.
      zero_infinity: Whether infinite losses become 0.

    Returns:
      float ``(N,)``, a scalar for one sequence; always a scalar when reduced.

    Raises:
      TypeError, ValueError: If an argument is not as described.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import torch
      >>> log_probs = jnp.log(jnp.full((4, 2, 3), 1 / 3))
      >>> losses = torch.ctc_loss(log_probs, jnp.array([1, 2, 2]), (4, 4), (2, 1), reduction="none")
      >>> print([f"{loss:.4f}" for loss in losses])
      ['1.6864', '2.0919']
    """
    checks.one_of("reduction", reduction, compat_checks.TORCH_REDUCTIONS)
    zero_infinity = checks.flag("zero_infinity", zero_infinity)
    log_probs = checks.logits_array("log_probs", log_probs)
    if log_probs.ndim > 3:
        raise ValueError(f"log_probs has shape {log_probs.shape}; it must be (T, N, C) or (T, C).")
    compat_checks.not_empty("log_probs", log_probs)
    batched = log_probs.ndim == 3
    if not batched:
        log_probs = log_probs[:, None]
    frames, batch, classes = log_probs.shape
    blank = checks.class_id("blank", blank, classes)
    input_lengths = compat_checks.lengths("input_lengths", input_lengths, batch)
    target_lengths = compat_checks.lengths("target_lengths", target_lengths, batch)
    checks.lengths_array("input_lengths", input_lengths, (batch,), frames)
    padded = _padded_targets(targets, target_lengths, batch, frames, batched)

    losses = ctc.ctc_loss(
        jnp.swapaxes(log_probs, 0, 1), padded, input_lengths, target_lengths, blank_id=blank
    )
    if zero_infinity:
        losses = jnp.where(jnp.isinf(losses), 0, losses)
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return (losses / jnp.maximum(jnp.asarray(target_lengths), 1).astype(losses.dtype)).mean()
    return losses if batched else losses[0]


def _padded_targets(
    targets: checks.ArrayLike, lengths: checks.ArrayLike, batch: int, frames: int, batched: bool
) -> jax.Array:
    """Padded or concatenated targets as int32 (N, S)."""
    targets = checks.integer_array("targets", targets)
    known = checks.concrete(lengths)
    if targets.ndim == 2 and targets.shape[0] == batch:
        checks.lengths_array("target_lengths", lengths, (batch,), targets.shape[1])
        return targets
    if targets.ndim != 1:
        shapes = f"({batch}, S) or (sum of target_lengths,)" if batched else "(S,)"
        raise ValueError(f"targets has shape {targets.shape}; it must be {shapes}.")
    if known is None:
        longest = min(frames, targets.size)
    else:
        if known.size and known.min() < 0:
            raise ValueError(f"target_lengths has the value {known.min()}; it must be at least 0.")
        if known.sum() != targets.size and (batched or known.sum() > targets.size):
            raise ValueError(
                f"targets has {targets.size} elements; "
                f"it must have {known.sum()}, the sum of target_lengths."
            )
        longest = int(known.max(initial=0))
    if targets.size == 0:
        return jnp.zeros((batch, 0), jnp.int32)
    lengths = checks.integer_array("target_lengths", lengths)
    ends = jnp.cumsum(jnp.maximum(lengths, 0))
    index = (ends - lengths)[:, None] + np.arange(longest)[None, :]
    # The sum of traced lengths may be wrong; -1 is not a class, so such pairs are infeasible.
    padding = (targets < 0) & (np.arange(targets.size) >= ends[-1])
    fits = (ends[-1] + padding.sum() == targets.size) & (lengths >= 0).all()
    return jnp.where(fits, jnp.take(targets, index, mode="clip"), -1)


@dataclasses.dataclass(frozen=True)
class CTCLoss:
    """`torch.nn.CTCLoss`: call it with ``(log_probs, targets, input_lengths, target_lengths)``.

    Attributes:
      blank: The class that is the blank.
      reduction: "none", "sum", or "mean": each loss is divided by its target's length, then they
        are averaged.
      zero_infinity: Whether infinite losses become 0. It hides pairs that are infeasible, which
        `jaxctc.explain` names.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> ctc_loss = jaxctc.CTCLoss(blank=67)
      >>> log_probs = jax.nn.log_softmax(jnp.zeros((18, 1, 68)))
      >>> targets = jnp.array([[18, 45, 33, 37, 40, 49, 63]])
      >>> print(f"{ctc_loss(log_probs, targets, (18,), (7,)):.3f}")
      8.663
    """

    blank: int = 0
    reduction: str = "mean"
    zero_infinity: bool = False

    def __post_init__(self):
        checks.one_of("reduction", self.reduction, compat_checks.TORCH_REDUCTIONS)
        checks.flag("zero_infinity", self.zero_infinity)

    def __call__(
        self,
        log_probs: checks.ArrayLike,
        targets: checks.ArrayLike,
        input_lengths: checks.ArrayLike,
        target_lengths: checks.ArrayLike,
    ) -> jax.Array:
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )
