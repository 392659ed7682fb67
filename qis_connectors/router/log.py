"""The durable packet log: what it has acknowledged is on the disk.

One thread writes. Whatever has queued up while it committed is its next commit, so clients share an fsync under load
and nobody waits for a timer. Every stored packet has a cursor, an int64 that grows in the order of storing.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

import apsw
import pyarrow as pa

from qis_connectors.receipt import Receipt
from qis_connectors.router import segment
from qis_connectors.router.feed import Feed
from qis_connectors.router.segment import MERGE, SPAN
from qis_connectors.router.store import Store, StoreError

MAX_QUEUED_BYTES = 64 << 20
logger = logging.getLogger(__name__)
_Done = Callable[[Receipt | StoreError], None]
_Record = Callable[[apsw.Connection, Receipt], None]


@dataclass(frozen=True)
class _Deposit:
    address: str
    packets: pa.RecordBatch
    size: int
    done: _Done


@dataclass(frozen=True)
class _Transaction:
    parts: Iterable[tuple[str, pa.RecordBatch]]
    record: _Record
    done: _Done
    size: int = 0


class PacketLog:
    """The log in the folder `path`, recovered by opening it; StoreError where that cannot be."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.head: int = self.store.writer.execute("SELECT coalesce(max(last), 0) FROM segment").get
        self.feed = Feed(self.head)
        self._addresses: dict[str, int] = {}
        self._small: Counter[tuple[int, int]] = Counter()  # segments stored since the last merge, by address and span
        self._due: set[tuple[int, int]] = set()
        self._queue: list[_Deposit | _Transaction] = []
        self._queued_bytes = 0
        self._is_stopped = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="qis-log")
        self._thread.start()

    def append(self, address: str, packets: pa.RecordBatch, done: _Done) -> None:
        """Queue complete packets; `done` hears, from the log's thread, when they are on the disk or why they are not.

        Blocks while the queue is full.
        """
        self._enqueue(_Deposit(address, packets, packets.get_total_buffer_size(), done))

    def commit(self, parts: Iterable[tuple[str, pa.RecordBatch]], record: _Record, done: _Done) -> None:
        """Queue complete packets, each part for its address, that become durable and visible all at once or not at all:
        in the log's thread `parts` are read one by one, `record` writes into the same commit, `done` hears the outcome.
        """
        self._enqueue(_Transaction(parts, record, done))

    def _enqueue(self, deposit: _Deposit | _Transaction) -> None:
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
            self._commit([queued for queued in group if isinstance(queued, _Deposit)])
            for queued in group:
                if isinstance(queued, _Transaction):
                    self._commit_transaction(queued)
            while self._due:
                self._coalesce(*self._due.pop())

    def _next_group(self) -> list[_Deposit | _Transaction]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_stopped)
            group, self._queue, self._queued_bytes = self._queue, [], 0
            self._changed.notify_all()
        return group

    def _commit(self, group: list[_Deposit]) -> None:
        answers: list[Receipt | StoreError]
        stored: list[tuple[str, pa.RecordBatch]] = []
        try:
            with self.store.writing():
                receipts, head = self._write(group, self.head, stored)
            if head // SPAN > self.head // SPAN:
                self._small.clear()
            answers, self.head = [*receipts], head
        except Exception as error:  # one thread serves everybody: it answers and goes on, whatever happened
            logger.exception("commit of %d deposits failed", len(group))
            answers = [self._failure(error)] * len(group)
            stored.clear()
        for deposit, answer in zip(group, answers, strict=True):
            deposit.done(answer)
        if stored:  # after the acknowledgements: a depositor does not wait until a hundred readers are awake
            self.feed.publish(stored, self.head)

    def _commit_transaction(self, transaction: _Transaction) -> None:
        head, receipt = self.head, Receipt(cursor=self.head)
        try:
            with self.store.writing() as writer:
                for address, packets in transaction.parts:
                    (stored,), head = self._write([_Deposit(address, packets, 0, transaction.done)], head)
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
        self, group: list[_Deposit], head: int, stored: list[tuple[str, pa.RecordBatch]] | None = None
    ) -> tuple[list[Receipt], int]:
        """The receipts and the log's new head, where it was `head`; what is new goes to `stored` as well."""
        receipts = []
        gathered: dict[tuple[int, int], list[pa.RecordBatch]] = defaultdict(list)
        for deposit in group:
            new = self._unseen(deposit.packets)
            if new.num_rows:
                first = _place(head, new.num_rows)
                head = first + new.num_rows - 1
                gathered[self._address(deposit.address), first // SPAN].append(segment.number(new, first))
                if stored is not None:
                    stored.append((deposit.address, new))
            receipts.append(Receipt(new.num_rows, deposit.packets.num_rows - new.num_rows, head))
        for (address, span), batches in gathered.items():
            segment.insert(self.store.writer, address, batches)
            self._small[address, span] += 1
            if self._small[address, span] >= MERGE:
                self._due.add((address, span))
        return receipts, head

    def _unseen(self, packets: pa.RecordBatch) -> pa.RecordBatch:
        """The packets that are new, each once; from here on they are seen."""
        ids = [bytes.fromhex(packet_id) for packet_id in packets["packet_id"].to_pylist()]
        new = {
            packet_id
            for (packet_id,) in self.store.writer.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?) RETURNING packet_id", [(packet_id,) for packet_id in ids]
            )
        }
        if len(new) == len(ids):
            return packets
        # Backwards, so that of equal packets in one batch the first is the one that stays.
        first_row = {packet_id: row for row, packet_id in reversed([*enumerate(ids)])}
        return packets.take(pa.array(sorted(first_row[packet_id] for packet_id in new), pa.int64()))

    def _address(self, name: str) -> int:
        if name not in self._addresses:
            self._addresses[name] = self.store.writer.execute(
                "INSERT INTO address(name) VALUES (?) ON CONFLICT DO UPDATE SET name = name RETURNING id", (name,)
            ).get
        return self._addresses[name]

    def _coalesce(self, address: int, span: int) -> None:
        try:
            with self.store.writing() as writer:
                segment.coalesce(writer, address, span)
        except Exception:
            logger.exception("segments could not be merged; they stay as they are")
        self._small.pop((address, span), None)


def _place(head: int, rows: int) -> int:
    """The first cursor for that many packets: the next one, or the next span's first where they would not fit."""
    first = head + 1
    return first if first // SPAN == (first + rows - 1) // SPAN else (first // SPAN + 1) * SPAN
