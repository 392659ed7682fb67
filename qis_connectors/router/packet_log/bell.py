"""A bell: one thread waits for it, any other rings it."""

from threading import Lock


class Bell:
    """Rung once or often before it is waited for, it ends one wait.

    A Condition would have every ringer and the one who wakes take turns at its lock; of dozens of threads on one
    interpreter that is what most of their time goes into.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it has been rung already
            return

    def wait(self, seconds: float = -1) -> bool:
        """For so long at most, without an end if negative; whether it was rung."""
        return self._lock.acquire(timeout=seconds)
