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
    encoder: jax.Array  # [*batch, T, D], and [B, T, D] for a search
    lengths: jax.Array  # int32 [*batch], and [B]
    bounds: Bounds
    fusion: Fusion
    batch: tuple[int, ...]  # the axes that become B


def checked(
    functions: tuple[Any, Any, Any],
    encoder: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None,
    *,
    blank_id: int,
    bounds: tuple[Any, Any],
    monotonic: bool = False,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    scorer: Scorer | None,
    scorer_weight: checks.ArrayLike,
) -> Arguments:
    """The arguments of a decoder: its functions, and the most symbols and labels, among them."""
    encoder = checks.logits_array("encoder", encoder, ("T", "D"))
    *batch, frames, size = encoder.shape
    lengths = checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames)

    symbols = checks.positive("max_symbols", bounds[0])
    monotonic = checks.flag("monotonic", monotonic)
    known = None if durations is None else transducer_checks.durations("durations", durations)
    stays = not monotonic if known is None else 0 in known
    labels = frames * symbols if stays else frames
    if bounds[1] is not None:
        labels = checks.positive("max_labels", bounds[1])

    joint, predictor, state = functions
    state = transducer_checks.state("initial_state", state)
    frame = jax.ShapeDtypeStruct((size,), encoder.dtype)
    logits = transducer_checks.functions(joint, predictor, state, frame, known)
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
        encoder,
        lengths,
        Bounds(symbols, labels),
        Fusion(scorer, weight),
        tuple(batch),
    )


def searched(search: Callable[..., Tree], given: Arguments, *stream: Tree) -> Tree:
    """What ``search(given, *stream)`` returns, with one batch axis, with the axes that became B."""

    def run(functions, arrays):
        encoder, lengths, state, sum_of, stream = arrays
        size = math.prod(given.batch)
        flat = given._replace(
            model=given.model._replace(joint=functions[0], predictor=functions[1]),
            initial_state=state,
            encoder=encoder.reshape(size, *encoder.shape[-2:]),
            lengths=lengths.reshape(size),
            fusion=sum_of,
        )
        return with_axes(search(flat, *stream), given.batch)

    functions = given.model.joint, given.model.predictor
    arrays = given.encoder, given.lengths, given.initial_state, given.fusion, stream
    return meshes.with_functions(run, functions, arrays, (2, 0, None, None, 0 if stream else None))


def with_axes(tree: Any, batch: tuple[int, ...]) -> Any:
    """Arrays ``[B, ...]`` with the axes that became B."""
    return jax.tree.map(lambda x: jnp.reshape(x, (*batch, *x.shape[1:])), tree)
