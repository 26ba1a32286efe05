"""Weights in one file, to be published: safetensors, with the model's description and characters.

Unlike a checkpoint, it has no optimiser and no data, and is read by other programs too. Tensors are
float16, half the size; they are read as float32.
"""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

SUFFIX = ".safetensors"


def is_weights(path: str | Path) -> bool:
    """Whether this is the path of such a file, rather than a run's directory."""
    return str(path).endswith(SUFFIX)


def save_weights(path: str | Path, model: nnx.Module, config: dict[str, Any]) -> None:
    """Writes a model's weights and `config`, JSON values by name."""
    found = {name: np.asarray(x, np.float32) for name, x in _named(model).items()}
    for name, values in found.items():
        if not (np.abs(values) <= np.finfo(np.float16).max).all():
            raise ValueError(f"{name} has values that float16 can't hold")
    tensors = {name: values.astype(np.float16) for name, values in found.items()}
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in config.items()}
    Path(path).write_bytes(save(tensors, metadata))


def load_config(path: str | Path) -> dict[str, Any]:
    """Returns what was given as `config`. Raises SystemExit if there is no such file."""
    with _opened(path) as file:
        try:
            return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        except json.JSONDecodeError as error:
            raise SystemExit(f"{path}: its metadata is no JSON: {error}") from error


def load_weights(path: str | Path, model: nnx.Module) -> None:
    """Fills `model` with the weights of a file. Raises SystemExit if they are of another model."""
    expected = _named(model)
    with _opened(path) as file:
        if missing := sorted(expected.keys() ^ set(file.keys())):
            raise SystemExit(f"{path}: the weights are of another model: {missing[0]}")
        found = {name: file.get_tensor(name) for name in expected}
    for name, x in expected.items():
        if found[name].shape != x.shape:
            shapes = f"{found[name].shape}; it must be {x.shape}"
            raise SystemExit(f"{path}: the shape of {name} is {shapes}")
    state = nnx.state(model)
    for keys, variable in nnx.to_flat_state(state):
        variable[...] = jnp.asarray(found[_name(keys)], variable[...].dtype)
    nnx.update(model, state)


def _opened(path: str | Path):
    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise SystemExit(f"{path}: is no file of weights: {error}") from error


def _name(keys) -> str:
    return ".".join(map(str, keys))


def _named(model: nnx.Module) -> dict[str, Any]:
    return {_name(keys): x[...] for keys, x in nnx.to_flat_state(nnx.state(model))}
