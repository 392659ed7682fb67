"""Acknowledgements of one DoPut stream, sent beside the reading so that neither waits for the other.

A client that never reads them fills its window (64 kB, megabytes where gRPC has enlarged it), and from then on every
write blocks until it does: at its close, where it drains them, but only if the router has gone on reading meanwhile.
"""

import logging
from collections import deque
from threading import Event, Thread
from time import perf_counter

import pyarrow as pa
from pyarrow import flight

from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt, encode_failure
from qis_connectors.router.packet_log.bell import Bell
from qis_connectors.router.traffic import Tally

MAX_UNSENT = 4096
"""Beyond this many, the newest acknowledgements become one with their sum: a silent client costs no memory."""

logger = logging.getLogger(__name__)


class Acks:
    """Receipts in, app_metadata messages out, from a thread of its own that ends with `finish`."""

    def __init__(self, writer: flight.FlightMetadataWriter, tally: Tally) -> None:
        self.failure: QisError | None = None
        self._writer = writer
        self._tally = tally
        self._unsent: deque[Receipt] = deque()
        self._awaited: deque[tuple[float, int]] = deque()
        self._is_failure_told = False
        self._is_finished = False
        self._bell = Bell()
        self._is_through = Event()  # not Thread.join: in gRPC's threads that leaves an entry in `threading` for ever
        Thread(target=self._run, name="qis-acks", daemon=True).start()

    def expect(self, arrived: float, size: int) -> None:
        """One more batch, that came at `perf_counter` time `arrived`, is on its way to the log."""
        self._tally.batches += 1
        self._tally.bytes_in += size
        self._awaited.append((arrived, size))

    def put(self, answer: Receipt | QisError) -> None:
        """What the log says of the next batch that is expected. For one thread at a time."""
        self._count(answer, *self._awaited[0])
        if isinstance(answer, QisError):
            self.failure = self.failure or answer
        elif len(self._unsent) < MAX_UNSENT:
            self._unsent.append(answer)
        else:
            self._unsent[-1] += answer
        self._awaited.popleft()  # only now: without any, and finished, is the end
        self._bell.ring()

    def fail(self, failure: QisError) -> None:
        """Tell the failure among the acknowledgements, to a client that waits for one before it closes the stream."""
        self.failure = self.failure or failure
        self._bell.ring()

    def finish(self, seconds: float | None = None) -> bool:
        """Wait, for so long at most, until all is sent or the client is gone; whether that is so.

        The handler must not return before: gRPC frees what a blocked write still uses.
        """
        self._is_finished = True
        self._bell.ring()
        return self._is_through.wait(seconds)

    def _count(self, answer: Receipt | QisError, arrived: float, size: int) -> None:
        tally = self._tally
        tally.answered_batches += 1
        tally.answered_bytes += size
        if isinstance(answer, Receipt):
            tally.stored += answer.stored
            tally.duplicates += answer.duplicates
            tally.staged += answer.staged
            tally.acknowledged.observe(perf_counter() - arrived)

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._bell.wait()
                self._send()
        except (pa.ArrowException, flight.FlightError, OSError) as error:
            logger.info("a depositor went away before its acknowledgements: %s", error)
        finally:
            self._is_through.set()

    def _send(self) -> None:
        while self._unsent:
            self._writer.write(self._unsent.popleft().encode())
        if self.failure and not self._is_failure_told:
            self._is_failure_told = True
            self._writer.write(encode_failure(str(self.failure)))

    def _is_over(self) -> bool:
        is_untold = self.failure is not None and not self._is_failure_told
        return self._is_finished and not self._awaited and not self._unsent and not is_untold
