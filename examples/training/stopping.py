"""Stopping between two steps."""

import signal


class StopRequest:
    """A context that records the first SIGINT or SIGTERM; the second one acts as usual."""

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.requested = True
        signal.signal(number, self._previous[number])

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
