"""torchaudio's transducer loss and forced alignment. Both are batch-major.

Lengths may all be less than the arrays have room for, where torchaudio demands that the longest
sequence fills them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxctc import ctc, transducer
from jaxctc.compat import checks as compat_checks
from jaxctc.core import checks, meshes
from jaxctc.ctc.explain import too_few_frames
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer.lattice import readable_labels


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

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import torch
      >>> loss = torch.rnnt_loss(jnp.zeros((1, 2, 3, 5)), jnp.array([[1, 2]]), [2], [2])
      >>> print(f"{loss:.4f}")
      5.3391
    """
    checks.one_of("reduction", reduction, compat_checks.TORCH_REDUCTIONS)
    logits = checks.logits_array("logits", logits, ("T", "U + 1", "C"))
    compat_checks.axes("logits", logits, "N", "T", "U + 1", "C")
    compat_checks.not_empty("logits", logits)
    blank = checks.class_from_either_end("blank", blank, logits.shape[-1])
    clamp = float(checks.finite("clamp", checks.static_real("clamp", clamp)))
    fused_log_softmax = checks.flag("fused_log_softmax", fused_log_softmax)
    # Checked here, since inside the custom derivative of a clamped loss values are traced.
    batch = len(logits)
    targets = checks.labels_array("targets", targets, (batch,))
    logit_lengths = compat_checks.lengths("logit_lengths", logit_lengths, batch)
    target_lengths = compat_checks.lengths("target_lengths", target_lengths, batch)
    checks.lengths_array("target_lengths", target_lengths, (batch,), targets.shape[1])
    pair = transducer_checks.pair(logits, targets, logit_lengths, target_lengths, blank)

    def loss(logits, targets, logit_lengths, target_lengths):
        pair = checks.SequencePair(logits, targets, logit_lengths, target_lengths, blank)
        if fused_log_softmax:
            return transducer.rnnt_loss(*pair[:4], blank_id=blank)
        return transducer.rnnt_loss_from_log_probs(*_arcs(pair), *pair[2:4])

    losses = (_clamped(loss, clamp) if clamp > 0 else loss)(*meshes.alike(pair[:4]))
    return {"none": lambda x: x, "sum": jnp.sum, "mean": jnp.mean}[reduction](losses)


@dataclasses.dataclass(frozen=True)
class RNNTLoss:
    """`torchaudio.transforms.RNNTLoss`: ``(logits, targets, logit_lengths, target_lengths)``.

    Attributes:
      blank: The class that is the blank; -1 is the last one.
      clamp: As in `rnnt_loss`: each number of the gradient is kept in -clamp…clamp, if it is
        above 0.
      reduction: "none", "sum" or "mean".
      fused_log_softmax: Whether logits are normalised.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxctc.compat import torch
      >>> loss = torch.RNNTLoss(blank=0)
      >>> print(f"{loss(jnp.zeros((1, 2, 3, 5)), jnp.array([[1, 2]]), [2], [2]):.4f}")
      5.3391
    """

    blank: int = -1
    clamp: float = -1.0
    reduction: str = "mean"
    fused_log_softmax: bool = True

    def __post_init__(self):
        checks.one_of("reduction", self.reduction, compat_checks.TORCH_REDUCTIONS)
        checks.finite("clamp", checks.static_real("clamp", self.clamp))
        checks.flag("fused_log_softmax", self.fused_log_softmax)

    def __call__(
        self,
        logits: checks.ArrayLike,
        targets: checks.ArrayLike,
        logit_lengths: checks.ArrayLike,
        target_lengths: checks.ArrayLike,
    ) -> jax.Array:
        return rnnt_loss(
            logits,
            targets,
            logit_lengths,
            target_lengths,
            self.blank,
            self.clamp,
            self.reduction,
            self.fused_log_softmax,
        )


def forced_align(
    log_probs: checks.ArrayLike,
    targets: checks.ArrayLike,
    input_lengths: checks.ArrayLike | None = None,
    target_lengths: checks.ArrayLike | None = None,
    blank: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """`torchaudio.functional.forced_align`: the best path of one sequence, and its scores.

    As in torchaudio the batch size must be 1; `jaxctc.forced_align` takes batches, and gives
    the spans of the labels too. Paths are those of torchaudio except where advancing and
    skipping tie and both beat staying: torchaudio then stays, which is not the best path.

    Args:
      log_probs: float ``(1, T, C)``. Scores are these numbers, which are not normalised.
      targets: integer ``(1, L)``, without blanks.
      input_lengths: integer ``(1,)``: T, or None.
      target_lengths: integer ``(1,)``: L, or None.
      blank: The class that is the blank.

    Returns:
      A tuple ``(path, scores)`` of int32 ``(1, T)``, the class at each frame, and float ``(1, T)``,
      its element of `log_probs`. If ``-inf`` or NaN in `log_probs` leaves no alignment, or, under
      `jit`, if targets are wrong or too long, the path is -1 and scores are ``-inf``.

    Raises:
      TypeError: If a dtype is of the wrong kind.
      ValueError: If a shape, a length, `blank` or a concrete target is not as described, or if
        concrete targets need more frames than there are.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxctc.compat import torch
      >>> log_probs = jax.nn.log_softmax(5 * jax.nn.one_hot(jnp.array([[0, 1, 1, 0, 1, 2]]), 3))
      >>> path, scores = torch.forced_align(log_probs, jnp.array([[1, 1, 2]]))
      >>> print(path)
      [[0 1 1 0 1 2]]
    """
    log_probs = checks.logits_array("log_probs", log_probs)
    if log_probs.ndim != 3 or len(log_probs) != 1:
        raise ValueError(
            f"log_probs has shape {log_probs.shape}; it must be (1, T, C). For a batch, use "
            "jaxctc.forced_align."
        )
    _, frames, classes = log_probs.shape
    given = checks.concrete(targets)
    targets = checks.labels_array("targets", targets, (1,))
    blank = checks.class_id("blank", blank, classes)
    for name, value, size in (
        ("input_lengths", input_lengths, frames),
        ("target_lengths", target_lengths, targets.shape[1]),
    ):
        known = None if value is None else checks.concrete(compat_checks.lengths(name, value, 1))
        if known is not None and known[0] != size:
            raise ValueError(f"{name} has the value {known[0]}; it must be {size}.")
    if given is not None:
        _check_targets(given[0], frames, classes, blank)

    found = ctc.forced_align(log_probs, targets, label_lengths=targets.shape[1], blank_id=blank)
    aligned = found.path >= 0
    read = jnp.maximum(found.path, 0)
    scores = jnp.take_along_axis(log_probs, read[:, :, None], axis=2)[:, :, 0]
    return found.path, jnp.where(aligned, scores, -jnp.inf)


def _check_targets(targets: np.ndarray, frames: int, classes: int, blank: int) -> None:
    for target in targets.tolist():
        if target == blank:
            raise ValueError(f"targets has the value {target}; it must not be the blank.")
        if not 0 <= target < classes:
            raise ValueError(
                f"targets has the value {target}; it must be a class, in 0…{classes - 1}."
            )
    if reason := too_few_frames(targets, frames, "targets"):
        raise ValueError(f"{reason} (jaxctc.explain looks at each sequence of a batch.)")


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
