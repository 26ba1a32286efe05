"""Whether confidence means something: reliability, temperature scaling, and what may be accepted.

A reader is calibrated if of all plates that it reads with confidence 0.9, nine in ten are right.
Networks that saw few plates are too sure. Temperature scaling (Guo et al., ICML 2017) divides all
logits by one number, fitted on plates that were not trained on: the best path stays the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.optimize import minimize_scalar

import jaxctc
from plates import models

Array = jax.Array | np.ndarray
TEMPERATURES = 0.2, 10.0  # the least and the highest that is tried
# Of the prior of log temperatures, which is normal with mean 0. Where all texts are read right, the
# loss alone would be least at temperature 0.
DEVIATION = 0.5


class Bin(NamedTuple):
    """Plates of similar confidence: their mean confidence, the share read right, how many."""

    confidence: float
    right: float
    count: int


class Accepted(NamedTuple):
    """Plates whose confidence is at least `threshold`: which share of all, which share right."""

    threshold: float
    share: float
    right: float


@jax.jit
def text_losses(logits: Array, labels: Array, lengths: Array, temperature) -> jax.Array:
    """Returns minus the log-probability of each text, the mean over all views, [N].

    Args:
      logits: of each view, [views, N, T, C]; the last class is the blank.
      labels, lengths: the texts, [N, S] and [N].
      temperature: what logits are divided by.
    """
    one_view = lambda view: jaxctc.ctc_loss(  # noqa: E731
        view / temperature, labels, label_lengths=lengths, blank_id=logits.shape[-1] - 1
    )
    return jax.vmap(one_view)(logits).mean(0)


def fit_temperature(
    logits: Array, labels: Array, lengths: Array, used: np.ndarray | None = None
) -> float:
    """Returns the most probable temperature, given the true texts.

    Arguments are as above; `used`, bool[N], leaves out plates, without another compilation.
    """
    used = np.ones(len(lengths), bool) if used is None else used

    def loss(log_temperature):
        losses = text_losses(logits, labels, lengths, np.float32(np.exp(log_temperature)))
        return float(np.asarray(losses)[used].sum() + 0.5 * (log_temperature / DEVIATION) ** 2)

    found = minimize_scalar(
        loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x))


def cross_validated(
    logits: np.ndarray,
    truth: tuple[np.ndarray, np.ndarray],
    read: tuple[np.ndarray, np.ndarray],
    folds: int = 5,
) -> np.ndarray:
    """Returns the confidence of each reading, with a temperature fitted on the other folds, [N].

    Args:
      logits: of each view, [views, N, T, C].
      truth, read: labels [N, S] and lengths [N] of the true texts, and of those that were read.
      folds: in how many parts the plates are divided; plate i is in part i modulo `folds`.
    """
    confidences = np.zeros(logits.shape[1])
    for fold in range(folds):
        held = np.arange(logits.shape[1]) % folds == fold
        temperature = fit_temperature(logits, *truth, ~held)
        losses = text_losses(logits, *read, np.float32(temperature))
        confidences[held] = np.exp(-np.asarray(losses))[held]
    return confidences


def soften(model: nnx.Module, name: str, temperature: float) -> None:
    """Divides the logits of a model by `temperature`, by changing its last layer.

    So everything that uses the model has calibrated confidences.

    Args:
      model: what `models.build` returns.
      name: of the model, in `models.MODELS`.
      temperature: a positive number.
    """
    head = getattr(model, models.HEADS[name])
    for parameter in (head.kernel, head.bias):
        parameter[...] = parameter[...] / jnp.float32(temperature)


def reliability(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> list[Bin]:
    """Returns plates in order of confidence, in bins of equally many, give or take one.

    Bins of equal width would be almost empty, since most confidences are near 1.
    """
    order = np.argsort(confidences, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [
        Bin(float(confidences[part].mean()), float(right[part].mean()), len(part)) for part in parts
    ]


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Returns the expected calibration error: how far confidence and share right differ on average.

    With bins of equally many plates (Nguyen and O'Connor, EMNLP 2015).
    """
    found = reliability(confidences, right, bins)
    return sum(b.count * abs(b.confidence - b.right) for b in found) / len(confidences)


def acceptance(confidences: np.ndarray, right: np.ndarray, target: float = 0.995) -> Accepted:
    """Returns the least threshold from which on at least `target` of what is accepted is right.

    If there is none, nothing is accepted, and the threshold is infinite.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_confidences = confidences[order]
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.append(sorted_confidences[1:] < sorted_confidences[:-1], True)  # of equal ones
    fits = np.flatnonzero((shares >= target) & last)
    if not len(fits):
        return Accepted(np.inf, 0.0, 1.0)
    count = fits[-1] + 1
    return Accepted(
        float(sorted_confidences[count - 1]), count / len(order), float(shares[count - 1])
    )


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson, 1927)."""
    share, square = right / count, z * z / count
    centre = (share + square / 2) / (1 + square)
    half = z / (1 + square) * np.sqrt(share * (1 - share) / count + square / (4 * count))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
