"""A token bucket whose cost may be millions and whose waits milliseconds.

The libraries that limit rates do not fit that: limits and pyrate-limiter count in windows or keep an entry a unit, and
throttled-py fills its bucket up once a second.
"""

import time
from dataclasses import dataclass


@dataclass
class Bucket:
    """A token bucket of `rate` tokens a second and `burst` at most. It may be overdrawn, by one batch of each stream:
    what comes next waits until it is not.
    """

    rate: float
    burst: float
    _level: float = 0.0
    _at: float = 0.0

    def take(self, amount: float) -> None:
        self._level, self._at = self.level() - amount, time.monotonic()

    def level(self) -> float:
        if not self._at:
            return self.burst
        return min(self.burst, self._level + self.rate * (time.monotonic() - self._at))

    def wait(self) -> float:
        """Seconds until it is not overdrawn."""
        return max(0.0, -self.level() / self.rate)
