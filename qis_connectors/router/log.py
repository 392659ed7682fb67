"""The durable packet log: what it has acknowledged is on the disk.

One thread writes. Whatever has queued up while it committed is its next commit, so clients share an fsync under load
and nobody waits for a timer. Every stored packet has a cursor, an int64 that grows in the order of storing.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from threading import Condition, Thread

import apsw
import numpy as np
import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt
from qis_connectors.router import segment
from qis_connectors.router.admission import Deposit, admit
from qis_connectors.router.feed import Feed
from qis_connectors.router.segment import MERGE, SPAN
from qis_connectors.router.store import Store, StoreError

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
        self._addresses: dict[str, int] = {}
        self._small: Counter[tuple[int, int]] = Counter()  # segments stored since the last merge, by address and span
        self._due: set[tuple[int, int]] = set()
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
            while self._due:
                self._coalesce(*self._due.pop())
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
                receipts, head, stored = self._write(deposits, packets, self.head)
            if head // SPAN > self.head // SPAN:
                self._small.clear()
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
                    (stored,), head, _ = self._write([part], packets, head)
                    receipt += stored
                transaction.record(writer, receipt)
            if head // SPAN > self.head // SPAN:
                self._small.clear()
            self.head = head
            transaction.done(receipt)
            self.feed.pass_over(head)  # it may be larger than memory: who waits reads it from the store
        except Exception as error:
            logger.exception("commit of a transaction failed")
            transaction.done(self._failure(error))

    def _failure(self, error: Exception) -> StoreError:
        self._addresses.clear()  # what was rolled back must not stay known
        reason = "the disk is full" if isinstance(error, apsw.FullError) else "its log has the details"
        return StoreError(f"the router cannot store packets: {reason}")

    def _write(
        self, deposits: Sequence[Deposit], packets: pa.RecordBatch, head: int
    ) -> tuple[list[Receipt], int, list[tuple[str, pa.RecordBatch]]]:
        """Store what is new of `packets`, those of the deposits one after the other, behind the cursor `head`.

        Returns a receipt for each, the new head, and what was new with its addresses, in the order of its cursors.
        """
        sizes = [deposit.packets.num_rows for deposit in deposits]
        stored, packets = self._new(sizes, packets)
        if not packets.num_rows:
            return [Receipt(0, rows, head) for rows in sizes], head, []
        first = segment.place(head, packets.num_rows)
        numbered = segment.number(packets, first)
        names = {deposit.address for deposit in deposits}
        if len(names) == 1:
            (name,) = names
            self._insert(self._address(name), first // SPAN, numbered)
            parts = [(name, packets)]
        else:
            parts = _runs(deposits, stored, packets)
            of_row = np.repeat([self._address(deposit.address) for deposit in deposits], stored)
            for address in dict.fromkeys(of_row.tolist()):
                self._insert(address, first // SPAN, numbered.filter(pa.array(of_row == address)))
        ends = accumulate(stored, initial=first - 1)
        next(ends)
        receipts = [Receipt(new, rows - new, end) for new, rows, end in zip(stored, sizes, ends, strict=True)]
        return receipts, first + packets.num_rows - 1, parts

    def _new(self, sizes: list[int], packets: pa.RecordBatch) -> tuple[list[int], pa.RecordBatch]:
        """The packets that are new, and how many of them are in each of the deposits of these sizes."""
        is_new = self._unseen(packets["packet_id"].to_pylist())
        if is_new is None:
            return sizes, packets
        upto = np.concatenate([[0], is_new.cumsum()])
        return np.diff(upto[[0, *accumulate(sizes)]]).tolist(), packets.filter(pa.array(is_new))

    def _insert(self, address: int, span: int, packets: pa.RecordBatch) -> None:
        segment.insert(self.store.writer, address, [packets])
        self._small[address, span] += 1
        if self._small[address, span] >= MERGE:
            self._due.add((address, span))

    def _unseen(self, packet_ids: list[str]) -> "np.typing.NDArray[np.bool_] | None":
        """Which packets are new, each once; None: all. From here on they are seen."""
        ids = [bytes.fromhex(packet_id) for packet_id in packet_ids]
        writer = self.store.writer
        writer.execute("SAVEPOINT seen")
        before = writer.total_changes()
        # Sorted, neighbours go to the same page.
        writer.executemany("INSERT OR IGNORE INTO seen VALUES (?)", [(packet_id,) for packet_id in sorted(ids)])
        if writer.total_changes() - before == len(ids):
            writer.execute("RELEASE seen")
            return None
        # Asking at once which of them were new would cost those that all are as much again.
        writer.execute("ROLLBACK TO seen")
        insert = "INSERT OR IGNORE INTO seen VALUES (?) RETURNING packet_id"
        new = {packet_id for (packet_id,) in writer.executemany(insert, [(packet_id,) for packet_id in ids])}
        writer.execute("RELEASE seen")
        is_new = np.zeros(len(ids), np.bool_)
        for row, packet_id in enumerate(ids):
            if packet_id in new:  # of equal packets the first is the one that stays
                new.remove(packet_id)
                is_new[row] = True
        return is_new

    def _address(self, name: str) -> int:
        if name not in self._addresses:
            self._addresses[name] = self.store.writer.execute(
                "INSERT INTO address(name) VALUES (?) ON CONFLICT DO UPDATE SET name = name RETURNING id", (name,)
            ).get
        return self._addresses[name]

    def _note_wal(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Behind the answers, so that no deposit waits for it."""
        try:
            self.store.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            logger.exception("the write-ahead log could not be checkpointed; it goes on growing")

    def _coalesce(self, address: int, span: int) -> None:
        try:
            with self.store.writing() as writer:
                segment.coalesce(writer, address, span)
        except Exception:
            logger.exception("segments could not be merged; they stay as they are")
        self._small.pop((address, span), None)


def _runs(
    deposits: Sequence[Deposit], stored: Sequence[int], packets: pa.RecordBatch
) -> list[tuple[str, pa.RecordBatch]]:
    """`packets`, of which so many are of each deposit, cut where the address changes."""
    runs, at = [], 0
    for name, same in groupby(zip(deposits, stored, strict=True), lambda one: one[0].address):
        rows = sum(count for _, count in same)
        if rows:
            runs.append((name, packets.slice(at, rows)))
        at += rows
    return runs
