"""The checked arguments of the decoders, with one batch axis."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxctc.core import checks, meshes
from jaxctc.core.emissions import wide
from jaxctc.decoding import fusion
from jaxctc.decoding.fusion import Fusion
from jaxctc.language import checks as language_checks
from jaxctc.language.scorer import Scorer
from jaxctc.transducer import checks as transducer_checks
from jaxctc.transducer.model import Bounds, Transducer, Tree


class Arguments(NamedTuple):
    """What every decoder is given."""

    model: Transducer
    initial_state: Tree
    output: Any  # of the predictor: shapes and dtypes
    encoder: jax.Array  # [*batch, T, D], and [B, T, D] for a search
    lengths: jax.Array  # int32 [*batch], and [B]
    bounds: Bounds
    fusion: Fusion
    batch: tuple[int, ...]  # the axes that become B


def checked(
    functions: tuple[Any, Any, Any],
    sequences: tuple[checks.ArrayLike, checks.ArrayLike | None],
    bounds: tuple[Any, Any],
    fused: tuple[Scorer | None, checks.ArrayLike],
    *,
    blank_id: int,
    monotonic: bool = False,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
) -> Arguments:
    """The arguments of a decoder.

    Args:
      functions: Joint network, predictor, and its initial state.
      sequences: The encoder's output and its lengths.
      bounds: `max_symbols` and `max_labels`.
      fused: The scorer and its weight.
      blank_id, monotonic, durations, big_blanks: As in the decoders.
    """
    (encoder, logit_lengths), (scorer, scorer_weight) = sequences, fused
    encoder = checks.logits_array("encoder", encoder, ("T", "D"))
    *batch, frames, size = encoder.shape
    lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)

    symbols = checks.positive("max_symbols", bounds[0])
    monotonic = checks.flag("monotonic", monotonic)
    transducer_checks.not_both(durations, big_blanks)
    transducer_checks.not_monotonic(monotonic, durations=durations, big_blanks=big_blanks)
    known = None if durations is None else transducer_checks.durations("durations", durations)
    stays = not monotonic if known is None else 0 in known
    labels = frames * symbols if stays else frames
    if bounds[1] is not None:
        labels = checks.positive("max_labels", bounds[1])

    joint, predictor, state = functions
    state = transducer_checks.state("initial_state", state)
    frame = jax.ShapeDtypeStruct((size,), encoder.dtype)
    logits, output = transducer_checks.functions(joint, predictor, state, frame, known)
    blank_id = checks.class_id("blank_id", blank_id, logits.shape[0])
    big = ()
    if big_blanks is not None:
        big = transducer_checks.big_blanks("big_blanks", big_blanks, logits.shape[0], blank_id)
    model = Transducer(joint, predictor, blank_id, wide(logits.dtype), monotonic, known, big)

    weight = fusion.weight(scorer, scorer_weight, logits.shape[0]).astype(model.dtype)
    if scorer is not None:
        language_checks.readable("scorer", scorer, blank_id)
    return Arguments(
        model,
        state,
        output,
        encoder,
        lengths,
        Bounds(symbols, labels),
        Fusion(scorer, weight),
        tuple(batch),
    )


def searched(search: Callable[..., Tree], given: Arguments, *more: Tree) -> Tree:
    """What ``search(given, *more)`` returns, with the axes that became B.

    The arguments have one batch axis there, and so has `more`, whose first array is ``[*batch]``.
    """

    def run(functions, arrays):
        encoder, lengths, state, sum_of, more = arrays
        encoder, lengths, more = flat((encoder, lengths, more), given.batch)
        inside = given._replace(
            model=given.model._replace(joint=functions[0], predictor=functions[1]),
            initial_state=state,
            encoder=encoder,
            lengths=lengths,
            fusion=sum_of,
        )
        return with_axes(search(inside, *more), given.batch)

    functions = given.model.joint, given.model.predictor
    arrays = given.encoder, given.lengths, given.initial_state, given.fusion, more
    return meshes.with_functions(run, functions, arrays, (2, 0, None, None, 0))


def flat(tree: Any, batch: tuple[int, ...]) -> Any:
    """Arrays ``[*batch, ...]`` with one axis B in place of the batch's."""
    size = math.prod(batch)
    return jax.tree.map(lambda x: jnp.reshape(x, (size, *x.shape[len(batch) :])), tree)


def with_axes(tree: Any, batch: tuple[int, ...]) -> Any:
    """Arrays ``[B, ...]`` with the axes that became B."""
    return jax.tree.map(lambda x: jnp.reshape(x, (*batch, *x.shape[1:])), tree)
