"""Checks of the arguments of transducers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxctc.core import checks
from jaxctc.transducer.lattice import Emission


def durations(name: str, value: Any) -> tuple[int, ...]:
    """`value` as a tuple of different ints from 0 up, not all of them 0."""
    if isinstance(value, (str, bytes)) or not np.iterable(value):
        raise TypeError(f"{name} is {value!r}; it must be a sequence of ints.")
    numbers = tuple(checks.static_int(f"{name}[{i}]", x) for i, x in enumerate(value))
    if any(x < 0 for x in numbers) or len(set(numbers)) < len(numbers) or not any(numbers):
        raise ValueError(f"{name} is {numbers}; it must be different ints from 0 up, one above 0.")
    return numbers


def big_blanks(
    name: str, value: Any, classes: int | None, blank_id: int
) -> tuple[tuple[int, int], ...]:
    """`value` as pairs of a class, which is not the blank, and its frames, at least 2.

    None means that the number of classes is not known.
    """
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise TypeError(f"{name} has type {kind}; it must be a dict from classes to frames.")
    pairs = []
    for c in value:
        key = f"a class of {name}"
        known = checks.at_least(key, c, 0) if classes is None else checks.class_id(key, c, classes)
        pairs.append((known, checks.at_least(f"{name}[{c}]", value[c], 2)))
    frames = [n for _, n in pairs]
    if blank_id in value or len(set(frames)) < len(frames):
        raise ValueError(
            f"{name} is {dict(value)}; it must map classes other than the blank, which is "
            f"{blank_id}, to different numbers of frames."
        )
    return tuple(pairs)


def not_both(known: Any, big: Any) -> None:
    """Checks that not both `durations` and `big_blanks` are given."""
    if known is not None and big is not None:
        raise ValueError(f"big_blanks is {big}, with durations; it must be None with them.")


def not_monotonic(monotonic: bool, **others: Any) -> None:
    """Checks that a transducer is not monotonic if one of the others is given."""
    for name, value in others.items():
        if monotonic and value is not None:
            raise ValueError(f"monotonic is True, with {name}; it must be False with them.")


def most_symbols(max_symbols: Any) -> int | None:
    """The most labels at one frame of a loss; None means any number."""
    return None if max_symbols is None else checks.positive("max_symbols", max_symbols)


def emission(monotonic: Any, max_symbols: Any) -> Emission:
    """The arguments of a loss that say how many symbols a frame has."""
    monotonic, most = checks.flag("monotonic", monotonic), most_symbols(max_symbols)
    return Emission(monotonic, None if monotonic else most)


def positions(
    name: str, value: checks.ArrayLike, leading: tuple[int, ...], spaces: int
) -> jax.Array:
    """`value` as an int32 array of shape ``[*leading, s_range]``, in ``0…spaces - 1``."""
    array = checks.integer_array(name, value)
    if array.ndim != len(leading) + 1 or array.shape[:-1] != leading or array.shape[-1] == 0:
        shape = ", ".join([*map(str, leading), "s_range"])
        raise ValueError(f"{name} has shape {array.shape}; it must be [{shape}].")
    known = checks.concrete(value)
    if known is not None and known.size and (known.min() < 0 or known.max() >= spaces):
        worst = known.max() if known.max() >= spaces else known.min()
        raise ValueError(f"{name} has the value {worst}; it must be in 0…{spaces - 1}.")
    return array


def pair(
    logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None,
    label_lengths: checks.ArrayLike | None,
    blank_id: Any,
    name: str = "logits",
) -> checks.SequencePair:
    """Checks the arguments of `rnnt_loss` and of functions with the same arguments."""
    logits = checks.logits_array(name, logits, ("T", "U + 1", "C"))
    *own, frames, spaces, classes = logits.shape
    given = labels, logit_lengths, label_lengths
    labels, ends, spoken = checks.labels_and_lengths(tuple(own), frames, *given)
    if labels.shape[-1] + 1 != spaces:
        raise ValueError(
            f"{name} has shape {logits.shape}; its last axis but one must have "
            f"{labels.shape[-1] + 1} elements, one more than there are labels."
        )
    logits = checks.broadcast(logits, labels.shape[:-1], 3)
    blank_id = checks.class_id("blank_id", blank_id, classes)
    return checks.SequencePair(logits, labels, ends, spoken, blank_id)


class Timed(NamedTuple):
    """The checked arguments of `tdt_loss`, and of functions with the same ones."""

    duration_logits: jax.Array  # with all batch axes
    pair: checks.SequencePair
    durations: tuple[int, ...]


def timed_pair(
    token_logits: checks.ArrayLike,
    duration_logits: checks.ArrayLike,
    labels: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None,
    label_lengths: checks.ArrayLike | None,
    frames: Any,
    blank_id: Any,
) -> Timed:
    """Checks the arguments of `tdt_loss`; `frames` are its durations."""
    found = pair(token_logits, labels, logit_lengths, label_lengths, blank_id, "token_logits")
    array = checks.logits_array("duration_logits", duration_logits, ("T", "U + 1", "D"))
    known = durations("durations", frames)
    expected = (*jnp.shape(token_logits)[:-1], len(known))
    if array.shape != expected:
        raise ValueError(f"duration_logits has shape {array.shape}; it must be {expected}.")
    return Timed(checks.broadcast(array, found.labels.shape[:-1], 3), found, known)


class Arcs(NamedTuple):
    """Checked numbers on the arcs of a transducer's lattice, and checked lengths."""

    blank: jax.Array
    label: jax.Array
    logit_lengths: jax.Array
    label_lengths: jax.Array


def arcs(
    blank_log_probs: checks.ArrayLike,
    label_log_probs: checks.ArrayLike,
    logit_lengths: checks.ArrayLike | None,
    label_lengths: checks.ArrayLike | None,
    what: str = "log_probs",
) -> Arcs:
    """Checks the arguments of `rnnt_loss_from_log_probs`, and of functions with the same ones."""
    blank = checks.logits_array(f"blank_{what}", blank_log_probs, ("T", "U + 1"))
    label = checks.logits_array(f"label_{what}", label_log_probs, ("T", "U"))
    *batch, frames, spaces = blank.shape
    if spaces == 0:
        raise ValueError(f"blank_{what} has shape {blank.shape}; its last axis must not be empty.")
    expected = (*batch, frames, spaces - 1)
    if label.shape != expected:
        raise ValueError(f"label_{what} has shape {label.shape}; it must be {expected}.")
    return Arcs(
        blank,
        label,
        checks.lengths_array("logit_lengths", logit_lengths, tuple(batch), frames),
        checks.lengths_array("label_lengths", label_lengths, tuple(batch), spaces - 1),
    )


def state(name: str, value: Any) -> Any:
    """`value` as a pytree of arrays: numbers, such as 0.0, become arrays, as after a step."""
    try:
        return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.result_type(x)), value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be a pytree of arrays.") from None


def functions(
    joint: Any,
    predictor: Any,
    initial_state: Any,
    frame: jax.ShapeDtypeStruct,
    durations: tuple[int, ...] | None = None,
) -> tuple[jax.ShapeDtypeStruct, Any]:
    """Checks the functions of a transducer; shapes and dtypes of logits ``[C]`` and of an output.

    With `durations`, the joint network returns a pair, the second of which are logits of these.
    """
    checks.function("joint", joint)
    output = state_function("predictor", predictor, initial_state)
    logits = jax.eval_shape(joint, frame, output)
    if durations is not None:
        if not isinstance(logits, (tuple, list)) or len(logits) != 2:
            kind = type(logits).__name__
            raise TypeError(
                f"joint returns type {kind}; it must be a pair (token logits, duration logits)."
            )
        logits, second = logits
        _scores("joint", second, f"[{len(durations)}]", "duration logits of ")
        if second.shape != (len(durations),):
            raise ValueError(
                f"joint returns duration logits of shape {second.shape}; it must be "
                f"{(len(durations),)}, one for each of durations."
            )
    _scores("joint", logits, "[C]")
    if logits.ndim != 1 or logits.shape[0] == 0:
        raise ValueError(f"joint returns shape {logits.shape}; it must be [C], C at least 1.")
    return logits, output


def state_function(name: str, predictor: Any, state: Any) -> Any:
    """Checks a predictor by tracing it, and returns shapes and dtypes of its output."""
    checks.function(name, predictor)
    found = jax.eval_shape(predictor, state, jax.ShapeDtypeStruct((), jnp.int32))
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        kind = type(found).__name__
        raise TypeError(f"{name} returns type {kind}; it must be a pair (output, state).")
    output, after = found
    was, must = described(after), described(state)
    if was != must:
        raise ValueError(f"{name} returns the state {was}; it must be {must}, like initial_state.")
    return output


def _scores(name: str, value: Any, shape: str, what: str = "") -> None:
    if not hasattr(value, "dtype"):
        kind = type(value).__name__
        raise TypeError(f"{name} returns {what}type {kind}; it must be an array {shape}.")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name} returns {what}dtype {value.dtype}; it must be floating-point.")


def returned(name: str, value: Any, kind: type) -> Any:
    """`value`, which the function `name` returned, if it is of type `kind`."""
    if not isinstance(value, kind):
        what = type(value).__name__
        raise TypeError(f"{name} returned type {what}; it must be {kind.__name__}.")
    return value


def described(tree: Any) -> str:
    """A pytree of arrays as text, with the dtype and shape of each array."""
    return str(jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)).replace("'", "")
