"""What a router has taken in and given out, counted where it happens and added up when somebody asks.

Every stream counts in a tally of its own, each number of it written by one thread only, so that counting takes no lock
and no depositor waits for it; a tally is folded into the sum when its stream ends.
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from threading import Lock

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets, in seconds; one more bucket has no bound."""


class Histogram:
    """Durations in seconds, by bucket."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def __iadd__(self, other: "Histogram") -> "Histogram":
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        return self


@dataclass
class Tally:
    """Of one stream, or of all. Bytes are those of Arrow's buffers."""

    batches: int = 0
    bytes_in: int = 0
    answered_batches: int = 0
    answered_bytes: int = 0
    stored: int = 0
    duplicates: int = 0
    staged: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    acknowledged: Histogram = field(default_factory=Histogram)
    """From a batch's arrival until it is safe on the disk; refused batches are not in it."""

    def __iadd__(self, other: "Tally") -> "Tally":
        for name in _COUNTS:
            total = getattr(self, name)
            total += getattr(other, name)
            setattr(self, name, total)
        return self

    def decision(self) -> str:
        """What became of the packets, in words; empty where there were none."""
        told = {"stored": self.stored, "duplicates": self.duplicates, "staged": self.staged}
        return ", ".join(f"{name} {count}" for name, count in told.items() if count)


_COUNTS = [one.name for one in fields(Tally)]


class Traffic:
    """Of all streams since the router began."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ended = Tally()
        self._running: dict[int, Tally] = {}

    @contextmanager
    def counting(self) -> Iterator[Tally]:
        """The tally of one stream, for as long as it runs."""
        tally = Tally()
        with self._lock:
            self._running[id(tally)] = tally
        try:
            yield tally
        finally:
            with self._lock:
                del self._running[id(tally)]
                self._ended += tally

    def total(self) -> Tally:
        total = Tally()
        with self._lock:
            for tally in (self._ended, *self._running.values()):
                total += tally
        return total
