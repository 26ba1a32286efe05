"""One step of training: gradients, optimiser, and averaged weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax import nnx

from training.devices import Devices

OPTIMIZERS = ("adamw", "muon")
TrainStep = Callable[..., dict[str, jax.Array]]  # (model, optimizer, batch) -> values by name


class State(NamedTuple):
    """The states of Flax NNX that a step updates. `average` is empty without averaging."""

    model: Any
    optimizer: Any
    average: Any


def make_optimizer(
    model: nnx.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    steps: int,
    name: str = "adamw",
) -> nnx.Optimizer:
    """Returns an optimiser. Its rate rises for a tenth of the steps, then falls to 0 as a cosine.

    Args:
      model: what is trained.
      learning_rate: the highest rate.
      weight_decay: of matrices and kernels; other parameters have none.
      steps: of the whole run.
      name: one of `OPTIMIZERS`. With "muon" (Jordan et al. 2024) the updates of matrices and
        kernels are made orthogonal, and have about the size that they have with "adamw", which is
        used for other parameters.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps=steps // 10, decay_steps=steps
    )
    matrices = lambda parameters: jax.tree.map(lambda p: p.ndim > 1, parameters)  # noqa: E731
    if name == "muon":
        rule = optax.contrib.muon(
            schedule,
            weight_decay=weight_decay,
            weight_decay_mask=matrices,
            muon_weight_dimension_numbers=_sides,
            consistent_rms=0.2,
        )
    else:
        rule = optax.adamw(schedule, weight_decay=weight_decay, mask=matrices)
    return nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), rule), wrt=nnx.Param)


def _sides(parameters):
    """Which axes of a kernel are the inputs of a matrix, and which one the outputs."""

    def sides(x):
        axes = tuple(range(x.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(axes, x.ndim - 1) if axes else None

    return jax.tree.map(sides, parameters)


def value_and_gradients(
    loss: Callable[..., tuple[jax.Array, Any]],
    model: nnx.Module,
    batch: Any,
    key: jax.Array,
    microbatches: int = 1,
) -> tuple[jax.Array, Any, Any]:
    """Returns a loss, its auxiliary values, and its gradients, computed in microbatches.

    Args:
      loss: `loss(model, batch, key)` returns the mean over the batch, and a tree of other means.
      model: the model; the running means of its batch norms are updated.
      batch: a tree of arrays [B, ...].
      key: for dropout; each microbatch gets its own.
      microbatches: the number of parts of B / microbatches rows. All results are means over the
        parts: the same as for the whole batch, except that batch norms see one part at a time and
        that dropout differs.
    """
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    def pure(parameters, rest, rows, key):
        # New variables, since nnx only allows updates in the transformation that created them.
        part = nnx.merge(graph, *jax.tree.map(lambda x: x, (parameters, rest)))
        value, more = loss(part, rows, key)
        return value, (more, nnx.state(part, nnx.Not(nnx.Param)))

    def one(rest, rows, key):
        gradient = jax.value_and_grad(pure, has_aux=True)
        (value, (more, rest)), gradients = gradient(parameters, rest, rows, key)
        return rest, (value, more, gradients)

    if microbatches == 1:
        rest, result = one(rest, batch, key)
        nnx.update(model, rest)
        return result

    def add(carry, numbered):
        (rest, total), (number, rows) = carry, numbered
        rest, found = one(rest, rows, jax.random.fold_in(key, number))
        return (rest, jax.tree.map(jnp.add, total, found)), None

    # Microbatch i has the rows i, i + N, …, so that it has equally many on each device.
    def divided(x: jax.Array) -> jax.Array:
        return x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)

    rows = jax.tree.map(divided, batch)
    shapes = jax.eval_shape(one, rest, jax.tree.map(lambda x: x[0], rows), key)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    numbered = jnp.arange(microbatches), rows
    (rest, total), _ = jax.lax.scan(add, (rest, zeros), numbered)
    nnx.update(model, rest)
    return jax.tree.map(lambda x: x / microbatches, total)


def start(model: nnx.Module, optimizer: nnx.Optimizer, devices: Devices, ema: float) -> State:
    """Returns the initial state of a run, on its devices."""
    weights = nnx.state(model)
    average = jax.tree.map(jnp.zeros_like, weights) if ema else {}
    return devices.place(State(weights, nnx.state(optimizer), average))


def compile_step(
    train_step: TrainStep,
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    devices: Devices,
    ema: float,
    state: State,
    batch: Any,
) -> jax.stages.Compiled:
    """Returns the compiled step, which maps (state, batch) to the next state and the values.

    The old state is donated. The new state has the same shardings.
    """
    graphs = nnx.graphdef(model), nnx.graphdef(optimizer)

    def step(state: State, batch) -> tuple[State, dict[str, jax.Array]]:
        model, optimizer = nnx.merge(graphs[0], state.model), nnx.merge(graphs[1], state.optimizer)
        values = train_step(model, optimizer, batch)
        weights = nnx.state(model)
        average = _averaged(state.average, weights, optimizer.step[...], ema) if ema else {}
        return State(weights, nnx.state(optimizer), average), values

    layout = jax.tree.map(lambda x: x.sharding, state), devices.everywhere
    return jax.jit(step, donate_argnums=0, out_shardings=layout).lower(state, batch).compile()


def _averaged(average, weights, step: jax.Array, decay: float):
    """Returns the mean of the weights after each step, where those n steps ago count decay^n.

    The initial weights are not part of it: this is the bias correction of Adam (Kingma and Ba,
    2015, section 3).
    """
    rate = (1 - decay) / -jnp.expm1(step.astype(jnp.float32) * jnp.log(decay))
    return jax.tree.map(lambda a, w: a + jnp.minimum(rate, 1) * (w - a), average, weights)
