"""Batches that have arrived and wait to be checked and queued: how many bytes of them there may be.

gRPC has received a batch whole before anybody knows its size, and pyarrow cannot cap that. So streams stop reading
while there is much to check, which holds their clients up, and what arrives beyond the bound all the same is refused.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Condition

from qis_connectors.router.refusals import BusyError

PAUSE_BYTES = 64 << 20
MAX_BYTES = 192 << 20
SMALL_BYTES = 64 << 10
"""Batches up to here are not counted: a thousand streams have 64 MB of them at most, and they take no lock."""

_UNCOUNTED = nullcontext()


class InFlight:
    """Of one router."""

    def __init__(self) -> None:
        self.bytes = 0
        self._changed = Condition()

    def wait_for_room(self) -> None:
        """Before a stream reads on."""
        if self.bytes >= PAUSE_BYTES:
            with self._changed:
                self._changed.wait_for(lambda: self.bytes < PAUSE_BYTES)

    def holding(self, size: int) -> AbstractContextManager[None]:
        """While a batch of this many bytes is checked and queued; BusyError where it is one too many."""
        return _UNCOUNTED if size <= SMALL_BYTES else self._counted(size)

    @contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        with self._changed:
            if self.bytes + size > MAX_BYTES:
                raise BusyError(f"{self.bytes >> 20} MiB of batches are being checked at this router; try again later")
            self.bytes += size
        try:
            yield
        finally:
            with self._changed:
                self.bytes -= size
                self._changed.notify_all()
