"""The durable packet log: what it has acknowledged is on the disk.

One thread writes. Whatever has queued up while it committed is its next commit, so clients share an fsync under load
and nobody waits for a timer. Every stored packet has a cursor, an int64 that grows in the order of storing.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Condition, Thread

import apsw
import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt
from qis_connectors.router.admission import Deposit, admit
from qis_connectors.router.feed import Feed
from qis_connectors.router.segment import SPAN
from qis_connectors.router.store import Store, StoreError
from qis_connectors.router.storing import Storing

MAX_QUEUED_BYTES = 64 << 20
CACHE_KIB = 64 << 10
"""Ids come in no order: without their pages at hand, each new one costs a read and a write of one."""

CHECKPOINT_PAGES = 8192
"""Ids come in no order: a longer log writes a page of them fewer times."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Transaction:
    parts: Iterable[tuple[str, pa.RecordBatch]]
    record: Callable[[apsw.Connection, Receipt], None]
    done: Callable[[Receipt | QisError], None]
    size: int = 0


class PacketLog:
    """The log in the folder `path`, recovered by opening it; StoreError where that cannot be."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.store.writer.pragma("cache_size", -CACHE_KIB)
        self._wal_pages = 0
        self.store.writer.set_wal_hook(self._note_wal)
        self.head: int = self.store.writer.execute("SELECT coalesce(max(last), 0) FROM segment").get
        self.feed = Feed(self.head)
        self._storing = Storing(self.store)
        self._queue: list[Deposit | _Transaction] = []
        self._queued_bytes = 0
        self._is_stopped = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="qis-log")
        self._thread.start()

    def append(self, address: str, packets: pa.RecordBatch, done: Callable[[Receipt | QisError], None]) -> None:
        """`put` of complete packets."""
        self.put(Deposit(address, packets, packets.get_total_buffer_size(), done))

    def put(self, deposit: Deposit) -> None:
        """Queue a deposit; its `done` hears, from the log's thread, when it is on the disk or why it is not.

        Blocks while the queue is full.
        """
        self._enqueue(deposit)

    def commit(
        self,
        parts: Iterable[tuple[str, pa.RecordBatch]],
        record: Callable[[apsw.Connection, Receipt], None],
        done: Callable[[Receipt | QisError], None],
    ) -> None:
        """Queue complete packets, each part for its address, that become durable and visible all at once or not at all:
        in the log's thread `parts` are read one by one, `record` writes into the same commit, `done` hears the outcome.
        """
        self._enqueue(_Transaction(parts, record, done))

    def _enqueue(self, deposit: Deposit | _Transaction) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._queued_bytes < MAX_QUEUED_BYTES or self._is_stopped)
            if not self._is_stopped:
                self._queue.append(deposit)
                self._queued_bytes += deposit.size
                self._changed.notify_all()
                return
        deposit.done(StoreError("the router is shutting down"))

    def stop(self) -> bool:
        """Commit what is queued and take no more; reading goes on. False where that has been done before."""
        with self._changed:
            was_stopped, self._is_stopped = self._is_stopped, True
            self._changed.notify_all()
        self._thread.join()
        self.feed.close()
        return not was_stopped

    def close(self) -> None:
        """Stop, and let go of the store."""
        self.stop()
        self.store.close()

    def _run(self) -> None:
        while group := self._next_group():
            if isinstance(group, _Transaction):
                self._commit_transaction(group)
            else:
                self._commit(group)
            self._storing.merge_due()
            if self._wal_pages > CHECKPOINT_PAGES:
                self._checkpoint()

    def _next_group(self) -> "list[Deposit] | _Transaction":
        """What is committed next: a transaction by itself, or the deposits before one, a span of rows at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_stopped)
            deposits: list[Deposit] = []
            for queued in self._queue:
                if isinstance(queued, _Transaction):
                    if deposits:
                        break
                    del self._queue[0]
                    return queued
                deposits.append(queued)
            rows = accumulate(deposit.packets.num_rows for deposit in deposits)
            count = max(1, sum(1 for total in rows if total <= SPAN))
            group, self._queue = deposits[:count], self._queue[count:]
            self._queued_bytes -= sum(deposit.size for deposit in group)
            self._changed.notify_all()
        return group

    def _commit(self, group: list[Deposit]) -> None:
        answers: list[Receipt | QisError]
        stored: list[tuple[str, pa.RecordBatch]] = []
        try:
            packets, refusals = admit(group)
            deposits = [deposit for deposit, refusal in zip(group, refusals, strict=True) if not refusal]
            with self.store.writing():
                receipts, head, stored = self._storing.put(deposits, packets, self.head)
            told = iter(receipts)
            answers, self.head = [refusal or next(told) for refusal in refusals], head
        except Exception as error:  # one thread serves everybody: it answers and goes on, whatever happened
            logger.exception("commit of %d deposits failed", len(group))
            answers = [self._failure(error)] * len(group)
        for deposit, answer in zip(group, answers, strict=True):
            deposit.done(answer)
        if stored:  # after the acknowledgements: a depositor does not wait until a hundred readers are awake
            self.feed.publish(stored, self.head)

    def _commit_transaction(self, transaction: _Transaction) -> None:
        head, receipt = self.head, Receipt(cursor=self.head)
        try:
            with self.store.writing() as writer:
                for address, packets in transaction.parts:
                    part = Deposit(address, packets, 0, transaction.done)
                    (stored,), head, _ = self._storing.put([part], packets, head)
                    receipt += stored
                transaction.record(writer, receipt)
        except Exception as error:
            logger.exception("commit of a transaction failed")
            transaction.done(self._failure(error))
            return
        self.head = head
        transaction.done(receipt)
        self.feed.pass_over(head)  # it may be larger than memory: who waits reads it from the store

    def _failure(self, error: Exception) -> StoreError:
        self._storing.forget()
        reason = "the disk is full" if isinstance(error, apsw.FullError) else "its log has the details"
        return StoreError(f"the router cannot store packets: {reason}")

    def _note_wal(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Behind the answers, so that no deposit waits for it."""
        try:
            self.store.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            logger.exception("the write-ahead log could not be checkpointed; it goes on growing")
