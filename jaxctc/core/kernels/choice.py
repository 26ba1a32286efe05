"""The choice between scan and kernel for a recursion.

JAX caches traced and compiled functions under a key. The choice is part of that key, so a program
compiled under one choice is never reused under another.
"""

from contextlib import AbstractContextManager
from typing import NamedTuple

import jax

from jaxctc.core import checks


class Choice(NamedTuple):
    """The choice in force."""

    platforms: frozenset[str]  # where a program runs the kernel; elsewhere it runs the scan
    interpreter: str | None = None  # "tpu" or "gpu": interpret that kernel, for tests


PLATFORMS = frozenset({"tpu", "gpu"})  # those that have a kernel
# Platforms on which the kernel was tested on a real chip. There `"auto"` means the kernel.
PROVEN: frozenset[str] = frozenset()

_context = jax.make_user_context(default_value="auto")


def use(which: str) -> AbstractContextManager[None]:
    """Chooses scan or kernel for the recursion of the losses, inside a `with` block.

    A kernel runs all frames in one launch. There are kernels for TPUs and, with jax 0.11 or later,
    for GPUs from Hopper on. They compute the same as the scan, in the same extended-range floats,
    with posteriors as the derivative of the same step. The scan runs if no kernel applies: on
    other platforms and older GPUs, for float64, for other lattices and sizes, for second
    derivatives, and on TPUs if the compiler splits a program over several devices. See
    `docs/accelerators.md`.

    The choice holds for functions that are traced inside the block; a function that was jitted
    outside is traced again. The platform is the one for which a program is compiled.

    Args:
      which: ``"scan"``; ``"kernel"``, which falls back to the scan; or ``"auto"``, the default: the
        kernel on platforms where it was tested on a real chip, so far none.

    Returns:
      A context manager.

    Raises:
      ValueError: If `which` is not one of the three.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxctc
      >>> with jaxctc.kernels.use("kernel"):
      ...     loss = jax.jit(jaxctc.ctc_loss)(jnp.zeros((4, 3)), jnp.array([1, 2]))
      >>> print(jnp.round(jnp.exp(-loss) * 81))
      15.0
    """
    return _context(checks.one_of("which", which, ("auto", "scan", "kernel")))


def interpreted(platform: str) -> AbstractContextManager[None]:
    """Chooses the interpreted kernel of a platform, ``"tpu"`` or ``"gpu"``, for tests on CPUs."""
    return _context(Choice(PLATFORMS, platform))


def current() -> Choice:
    """The choice in force."""
    value = _context.value
    if isinstance(value, Choice):
        return value
    return Choice({"kernel": PLATFORMS, "auto": PROVEN, "scan": frozenset()}[value])
