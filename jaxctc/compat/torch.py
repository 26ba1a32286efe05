"""torch's `CTCLoss` and torchaudio's `rnnt_loss` for JAX arrays.

`CTCLoss` and `ctc_loss` are time-major, with any blank, padded or concatenated targets.

Differences from torch:

* An infeasible pair has loss ``inf`` and gradient 0, where torch's gradient is NaN.
* `log_probs` are normalised again, which changes nothing if they are log-probabilities.
* A target that is not a class, or is the blank, makes its pair infeasible.
* With ``reduction="none"`` unbatched input gives a scalar, and half precision gives float32.

`rnnt_loss` is batch-major, with a gradient that may be clamped.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc import ctc, transducer
from jaxctc.core import checks, meshes
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer.lattice import readable_labels

_REDUCTIONS = ("none", "mean", "sum")


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
    whichever is shorter, so prefer concrete lengths.

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

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import torch
      >>> log_probs = jnp.log(jnp.full((4, 2, 3), 1 / 3))
      >>> losses = torch.ctc_loss(log_probs, jnp.array([1, 2, 2]), (4, 4), (2, 1), reduction="none")
      >>> print([f"{loss:.4f}" for loss in losses])
      ['1.6864', '2.0919']
    """
    checks.one_of("reduction", reduction, _REDUCTIONS)
    zero_infinity = checks.flag("zero_infinity", zero_infinity)
    log_probs = checks.logits_array("log_probs", log_probs)
    if log_probs.ndim > 3:
        raise ValueError(f"log_probs has shape {log_probs.shape}; it must be (T, N, C) or (T, C).")
    batched = log_probs.ndim == 3
    if not batched:
        log_probs = log_probs[:, None]
    frames, batch, classes = log_probs.shape
    blank = checks.class_id("blank", blank, classes)
    input_lengths = _lengths("input_lengths", input_lengths, batch)
    target_lengths = _lengths("target_lengths", target_lengths, batch)
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


def _lengths(name: str, value: checks.ArrayLike, batch: int) -> checks.ArrayLike:
    """Lengths with the shape (N,), a numpy array if they are concrete."""
    known = checks.concrete(value)
    lengths = checks.integer_array(name, value) if known is None else known
    checks.integer_array(name, lengths)
    if lengths.shape != (batch,) and not (batch == 1 and lengths.shape == ()):
        raise ValueError(f"{name} has shape {lengths.shape}; it must be ({batch},).")
    return lengths.reshape(batch)


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
    fits = (ends == targets.size)[-1] & (lengths >= 0).all()
    return jnp.where(fits, jnp.take(targets, index, mode="clip"), -1)


@dataclasses.dataclass(frozen=True)
class CTCLoss:
    """`torch.nn.CTCLoss`: call it with ``(log_probs, targets, input_lengths, target_lengths)``.

    See `ctc_loss` of this module for the arguments.

    Example:
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
        checks.one_of("reduction", self.reduction, _REDUCTIONS)
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


def rnnt_loss(
    logits: checks.ArrayLike,
    targets: checks.ArrayLike,
    logit_lengths: checks.ArrayLike,
    target_lengths: checks.ArrayLike,
    blank: int = -1,
    clamp: float = -1,
    reduction: str = "mean",
    fused_log_softmax: bool = True,
) -> jax.Array:
    """`torchaudio.functional.rnnt_loss`: the same arguments, values and gradients.

    Args:
      logits: float ``(N, T, U + 1, C)``.
      targets: integer ``(N, U)``, padded.
      logit_lengths: integer ``(N,)``.
      target_lengths: integer ``(N,)``.
      blank: The class that is the blank; negative ones count from the end.
      clamp: If above 0, every element of the gradient of each sequence's loss is clipped to
        ``-clamp…clamp``. There is then no forward-mode or second derivative.
      reduction: ``"none"``, ``"sum"`` or ``"mean"``, which here divides by N only.
      fused_log_softmax: Whether to normalise `logits`; if not, they must be log-probabilities.

    Returns:
      float ``(N,)``, or a scalar when reduced. An infeasible pair has loss ``inf`` and
      gradient 0.

    Raises:
      TypeError, ValueError: If an argument is not as described.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import torch
      >>> loss = torch.rnnt_loss(jnp.zeros((1, 2, 3, 5)), jnp.array([[1, 2]]), [2], [2])
      >>> print(f"{loss:.4f}")
      5.3391
    """
    checks.one_of("reduction", reduction, _REDUCTIONS)
    logits = checks.logits_array("logits", logits, ("T", "U + 1", "C"))
    if logits.ndim != 4:
        raise ValueError(f"logits has shape {logits.shape}; it must be (N, T, U + 1, C).")
    blank = checks.class_from_either_end("blank", blank, logits.shape[-1])
    clamp = float(checks.finite("clamp", checks.static_real("clamp", clamp)))
    fused_log_softmax = checks.flag("fused_log_softmax", fused_log_softmax)
    # Checked here, since inside the custom derivative of a clamped loss values are traced.
    targets = checks.labels_array("targets", targets, logits.shape[:1])
    checks.lengths_array("target_lengths", target_lengths, logits.shape[:1], targets.shape[1])
    pair = transducer_checks.pair(logits, targets, logit_lengths, target_lengths, blank)

    def loss(logits, targets, logit_lengths, target_lengths):
        pair = checks.SequencePair(logits, targets, logit_lengths, target_lengths, blank)
        if fused_log_softmax:
            return transducer.rnnt_loss(*pair[:4], blank_id=blank)
        return transducer.rnnt_loss_from_log_probs(*_arcs(pair), *pair[2:4])

    losses = (_clamped(loss, clamp) if clamp > 0 else loss)(*meshes.alike(pair[:4]))
    return {"none": lambda x: x, "sum": jnp.sum, "mean": jnp.mean}[reduction](losses)


def _arcs(pair: checks.SequencePair) -> transducer.TransducerArcs:
    """The log-probabilities of the blank and of each label, picked from the pair's `logits`."""
    log_probs = pair.logits
    read, valid = readable_labels(pair.labels, log_probs.shape[-1], pair.blank_id)
    labels = jnp.take_along_axis(log_probs[:, :, :-1], read[:, None, :-1, None], axis=3)[..., 0]
    return transducer.TransducerArcs(
        log_probs[..., pair.blank_id], jnp.where(valid[:, None, :], labels, -jnp.inf)
    )


def _clamped(loss, clamp: float):
    """The same function of logits and more, with the gradient of each sequence's loss clipped."""

    @jax.custom_vjp
    def clamped(logits, *rest):  # not closed over: what is would be lost under `jax.vmap`
        return loss(logits, *rest)

    def forward(logits, *rest):
        values, pullback = jax.vjp(lambda logits: loss(logits, *rest), logits)
        (gradient,) = pullback(jnp.ones_like(values))
        return values, jnp.clip(gradient, -clamp, clamp)

    def backward(gradient, cotangent):
        return gradient * cotangent[:, None, None, None].astype(gradient.dtype), None, None, None

    clamped.defvjp(forward, backward)
    return clamped
