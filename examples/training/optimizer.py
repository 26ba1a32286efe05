"""The optimiser of the examples."""

import jax
import optax
from flax import nnx


def make_optimizer(
    model: nnx.Module, *, learning_rate: float, weight_decay: float, steps: int
) -> nnx.Optimizer:
    """Returns AdamW; its rate warms up for a tenth of the steps, then falls to 0 as a cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps=steps // 10, decay_steps=steps
    )
    matrices = lambda parameters: jax.tree.map(lambda p: p.ndim > 1, parameters)  # noqa: E731
    adamw = optax.adamw(schedule, weight_decay=weight_decay, mask=matrices)
    return nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), adamw), wrt=nnx.Param)
