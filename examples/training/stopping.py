"""Stopping between two steps, at the same step in all processes."""

import os
import signal

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """A context that records the first SIGINT or SIGTERM; the second SIGINT acts as usual.

    With several processes, a signal to one of them stops all. JAX handles SIGTERM, which clusters
    send before they take a machine away, and chooses the step. SIGINT is passed on as SIGTERM.
    """

    def __init__(self):
        self._alone = jax.process_count() == 1
        self._noted = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM) if self._alone else (signal.SIGINT,):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self._noted = True
        signal.signal(number, self._previous[number])
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if not self._alone:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # instead of JAX's handler

    def after(self, step: int) -> bool:
        """Whether to stop after this step. Every process must call this after every step."""
        return self._noted if self._alone else multihost_utils.reached_preemption_sync_point(step)
