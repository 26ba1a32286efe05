"""The CTC losses that are compared: ours, optax's and torch's, with and without gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxctc
from benchmarks.common import Batch, finished


def ours(logits, labels, logit_lengths, label_lengths):
    """Losses [B] from lengths."""
    return jaxctc.ctc_loss(logits, labels, logit_lengths, label_lengths)


def optax_loss(logits, labels, logit_lengths, label_lengths):
    """Losses [B] from optax, with paddings made from lengths."""
    frames, spaces = jnp.arange(logits.shape[1]), jnp.arange(labels.shape[1])
    return optax.ctc_loss(
        logits,
        (frames[None] >= logit_lengths[:, None]).astype(jnp.float32),
        labels,
        (spaces[None] >= label_lengths[:, None]).astype(jnp.float32),
    )


JAX_LOSSES = {"jaxctc": ours, "optax": optax_loss}


def jax_functions(loss: Callable[..., Any]) -> tuple[Any, Any]:
    """Jitted: the summed loss, and the loss with its gradient with respect to the logits."""

    def total(*arguments):
        return loss(*arguments).sum()

    return jax.jit(total), jax.jit(jax.value_and_grad(total))


def contestants(batch: Batch) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """By name, functions without arguments: the loss alone, and loss and gradient."""
    arguments = [jnp.asarray(x) for x in batch]
    alone, both = {}, {}
    for name, loss in JAX_LOSSES.items():
        forward, gradient = jax_functions(loss)
        alone[name] = lambda f=forward: finished(f(*arguments))
        both[name] = lambda f=gradient: finished(f(*arguments))
    alone["torch"], both["torch"] = _torch_functions(batch)
    return alone, both


def _torch_functions(batch: Batch) -> tuple[Callable, Callable]:
    import torch

    torch.set_num_threads(2)
    logits = torch.tensor(batch.logits.transpose(1, 0, 2).copy(), requires_grad=True)
    labels = torch.tensor(batch.labels, dtype=torch.int64)
    frames, lengths = (torch.tensor(x, dtype=torch.int64) for x in batch[2:])

    def total():
        log_probs = torch.nn.functional.log_softmax(logits, dim=-1)
        return torch.nn.functional.ctc_loss(log_probs, labels, frames, lengths, reduction="sum")

    def alone():
        with torch.no_grad():
            return total()

    def both():
        logits.grad = None
        total().backward()

    return alone, both
