"""Deposit streams that say nothing: their connection is ended, for a stream that waits for its client holds a thread.

Nothing in Flight ends a call that is being read from; the connection it came by can be, and others of it end with it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread

from qis_connectors.errors import QisError


class IdleError(QisError):
    """The stream was silent for longer than it may be."""


@dataclass
class Pulse:
    """Of one stream: when it was last heard of, and whether it was cut off."""

    peer: str
    at: float
    is_cut: bool = False

    def beat(self) -> None:
        self.at = time.monotonic()


class Idle:
    """Cuts off, by `cut(peer)`, the streams that are silent for `seconds`; none where that is None."""

    def __init__(self, seconds: float | None, cut: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._cut = cut
        self._lock = Lock()
        self._pulses: dict[int, Pulse] = {}
        self._stopped = Event()
        if seconds is not None:
            Thread(target=self._run, args=(seconds,), name="qis-idle", daemon=True).start()

    @contextmanager
    def watching(self, peer: str) -> Iterator[Pulse]:
        """While a stream is read; IdleError at its end where it was cut off."""
        pulse = Pulse(peer, time.monotonic())
        with self._lock:
            self._pulses[id(pulse)] = pulse
        try:
            yield pulse
        finally:
            with self._lock:
                del self._pulses[id(pulse)]
            if pulse.is_cut:
                raise IdleError(f"the stream was silent for {self._seconds:g} s and was ended")

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, seconds: float) -> None:
        while not self._stopped.wait(min(1.0, seconds / 4)):
            with self._lock:
                silent = [one for one in self._pulses.values() if time.monotonic() - one.at > seconds]
            for pulse in silent:
                if not pulse.is_cut:
                    pulse.is_cut = True
                    self._cut(pulse.peer)
