"""Reading plates with a trained model."""

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxctc
from plates import models, provinces
from plates.charset import DIGITS, LETTERS, PROVINCES
from recognition.charsets import decode
from recognition.checkpoints import load_config, load_into
from recognition.weights import SUFFIX

CHECKPOINT_HELP = (
    "directory of a run or an import, or a file of weights; default: the published ones"
)
PUBLISHED = Path(__file__).parents[1] / "weights" / f"plates{SUFFIX}"


def load_description(checkpoint: str | Path) -> dict[str, Any]:
    """Returns the settings of a run of plate_train.py, of an import, or of a file of weights.

    They have at least the model and its characters.

    Raises:
      SystemExit: If there is no such checkpoint or file.
    """
    config = load_config(checkpoint)
    model = config.get("model")
    if not isinstance(model, dict) or model.get("name") not in models.MODELS:
        raise SystemExit(f"{checkpoint}: is not a run of plate_train.py")
    return config


def load_reader(run: str | Path, **options: Any) -> tuple[nnx.Module, str]:
    """Returns the model of a run's latest checkpoint, for reading, and its characters.

    Args:
      run: the directory of a run of plate_train.py or of an import, or a file of weights.
      options: replace those of the model's description, such as `dtype="float32"`.

    Raises:
      SystemExit: If there is no such checkpoint.
    """
    config = load_description(run)
    charset = config["charset"]
    model = models.build({**config["model"], **options}, len(charset) + 1)
    load_into(run, model)
    model.eval()
    return model, charset


def exact_matches(read: jaxctc.Hypotheses, labels, label_lengths) -> jax.Array:
    """Returns for each row whether it was read exactly, bool[B]."""
    width = min(read.labels.shape[1], labels.shape[1])
    counts = jnp.arange(width) < label_lengths[:, None]
    same = jnp.where(counts, read.labels[:, :width] == labels[:, :width], True).all(-1)
    return same & (read.lengths == label_lengths)


DECODERS = ("greedy", "beam", "grammar")


def plate_grammar(charset: str) -> jaxctc.Automaton:
    """Returns the possible texts of plates: a province, a letter, and a number.

    That of a blue plate has five letters or digits. That of a green one has six: with a letter or
    two first on small cars, or a letter last on large ones.
    """
    head = [PROVINCES, LETTERS]
    blue = [*head, *[DIGITS + LETTERS] * 5]
    small = [*head, LETTERS, DIGITS + LETTERS, *[DIGITS] * 4]
    large = [*head, *[DIGITS] * 5, LETTERS]
    templates = [
        [{charset.index(c) for c in place if c in charset} for place in places]
        for places in (blue, small, large)
    ]
    return jaxctc.Grammar(templates, len(charset) + 1, blank_id=len(charset)).scorer()


# How many pixels the views of an image are moved to the right, the image itself first. A model
# has a stride of a few columns (the light one four), so it sees some edges more sharply than
# others: in four views, every column is in the best position once.
SHIFTS = (0, 1, -1, 2)


def _moved(images: jax.Array, pixels: int) -> jax.Array:
    """Returns images moved to the right; the column at the edge is repeated."""
    width = images.shape[2]
    return images[:, :, np.clip(np.arange(width) - pixels, 0, width - 1)]


def _logits(model, images, views):
    """Returns the logits of each view, [views, batch, T, C]."""
    return jnp.stack([model(_moved(images, pixels)) for pixels in SHIFTS[:views]])


def _hypotheses(logits, decoder="greedy", scorer=None, frequent=None):
    """Returns what is read of each view, and its loss over all views, [views, batch].

    The loss is the mean over the views: minus the logarithm of the geometric mean of their
    probabilities. With `frequent`, `Provinces`, there are two readings of each view.
    """
    blank = logits.shape[-1] - 1
    if decoder == "greedy":
        read = jaxctc.ctc_greedy_decode(logits, blank_id=blank)
    else:
        best = jaxctc.ctc_beam_search(logits, blank_id=blank, scorer=scorer)
        read = jax.tree.map(lambda x: x[:, :, 0], best)
        # What the grammar does not let end is no plate: nothing is read.
        read = read._replace(
            labels=jnp.where(read.complete[..., None], read.labels, -1),
            lengths=jnp.where(read.complete, read.lengths, 0),
        )

    change = 0.0
    if frequent is not None:
        labels, change = provinces.reweighted(frequent, logits, read.labels)
        read = read._replace(labels=labels, lengths=jnp.tile(read.lengths, (2, 1)))

    def loss(labels, lengths):
        # The probability of a text is the sum over all its alignments: exp(-CTC loss).
        one_view = lambda view: jaxctc.ctc_loss(  # noqa: E731
            view, labels, label_lengths=lengths, blank_id=blank
        )
        return jax.vmap(one_view)(logits).mean(0)

    return read, jax.vmap(loss)(read.labels, read.lengths) + change


@functools.partial(jax.jit, static_argnames=("decoder",))
def _read(logits, decoder, scorer, frequent):
    """Returns the labels read, and their probability.

    Each view gives a hypothesis; the one with the highest probability over all views is taken.
    """
    read, losses = _hypotheses(logits, decoder, scorer, frequent)
    return read.labels[losses.argmin(0), jnp.arange(logits.shape[1])], jnp.exp(-losses.min(0))


_compiled_logits = nnx.jit(_logits, static_argnames=("views",))


def _batches_of_logits(model, images, views, batch_size) -> Iterator[jax.Array]:
    """Yields the logits of batches. The last one is smaller, not padded.

    The result of a model may depend on the other images in a batch.
    """
    for start in range(0, len(images), batch_size):
        yield _compiled_logits(model, images[start : start + batch_size], views)


def _joined(batches: Iterable[jax.Array]) -> np.ndarray:
    return np.concatenate([np.asarray(batch, np.float32) for batch in batches], axis=1)


def view_logits(
    model: nnx.Module, images: np.ndarray, views: int, batch_size: int = 256
) -> np.ndarray:
    """Returns the logits of each view of images uint8[N, 24, 94, 3], float32[views, N, T, C]."""
    return _joined(_batches_of_logits(model, images, views, batch_size))


class Details(NamedTuple):
    """What is read of images, and how sure it is: arrays of `read_in_detail`.

    Attributes:
      labels: the classes read, int32[N, T], padded with -1.
      confidence: the model's probability of the text, float32[N].
      scores: the probability of each label at the frame where it is highest, float32[N, T].
      posteriors: that of each label at each frame, given the text, float32[N, T, T].
      blank: that of the blank, float32[N, T].
    """

    labels: jax.Array
    confidence: jax.Array
    scores: jax.Array
    posteriors: jax.Array
    blank: jax.Array


def read_in_detail(model: nnx.Module, images: jax.Array, views: int) -> Details:
    """Reads images uint8[N, 24, 94, 3] greedily, as `read_images` does, with all details.

    Scores and posteriors are those of the view whose text is taken.
    """
    logits = _logits(model, images, views)
    read, losses = _hypotheses(logits)
    chosen = losses.argmin(0), jnp.arange(len(images))
    labels = read.labels[chosen]
    posteriors = jaxctc.ctc_posteriors(
        logits[chosen],
        labels,
        label_lengths=read.lengths[chosen],
        blank_id=logits.shape[-1] - 1,
    )
    return Details(
        labels,
        jnp.exp(-losses.min(0)),
        jnp.exp(read.label_scores[chosen]),
        posteriors.labels,
        posteriors.blank,
    )


def read_images(
    model: nnx.Module,
    images: np.ndarray,
    charset: str,
    batch_size: int = 256,
    decoder: str = "greedy",
    views: int = 1,
    adapt: bool = False,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reads images uint8[N, 24, 94, 3] with one of `DECODERS`, in up to len(SHIFTS) views each.

    With `adapt`, how frequent each province is is first estimated from all images.
    Returns the texts, the model's probability of each (float32[N]), and the logits of the images
    themselves (float32[N, T, classes]).
    """
    scorer = plate_grammar(charset) if decoder == "grammar" else None
    model.eval()
    batches, frequent = _batches_of_logits(model, images, views, batch_size), None
    if adapt:
        batches = list(batches)
        frequent = provinces.estimate(_joined(batches), charset)
    texts, confidences, logits = [], [], []
    for batch in batches:
        labels, confidence = _read(batch, decoder, scorer, frequent)
        texts += [decode(row, charset) for row in np.asarray(labels)]
        confidences.append(np.asarray(confidence))
        logits.append(np.asarray(batch[0]))
    model.train()
    return texts, np.concatenate(confidences), np.concatenate(logits)
