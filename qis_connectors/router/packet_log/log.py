"""The durable packet log: what it has acknowledged is on the disk.

One thread writes. Whatever has queued up while it committed is its next commit, so clients share an fsync under load
and nobody waits for a timer. Every stored packet has a cursor, an int64 that grows in the order of storing.

A commit is one record in the journal, and in memory the log's tail. Behind the depositors' backs the tail goes into
packs, by address: see store.py.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, compress
from pathlib import Path
from threading import Condition, Lock, Thread
from time import monotonic

import apsw
import numpy as np
import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.packet import PacketError
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log.admission import Check, Deposit, admit
from qis_connectors.router.packet_log.bell import Bell
from qis_connectors.router.packet_log.chains import Chains, remembered
from qis_connectors.router.packet_log.chunk import Chunk, place
from qis_connectors.router.packet_log.feed import Feed
from qis_connectors.router.packet_log.journal import FILE_BYTES
from qis_connectors.router.packet_log.packet_index import packed_ids, selected
from qis_connectors.router.packet_log.packing import Packer, Parts
from qis_connectors.router.packet_log.record import Runs, joined
from qis_connectors.router.packet_log.retention import KEEP_ALL, Retention
from qis_connectors.router.packet_log.store import Store, StoreError, refusal
from qis_connectors.router.packet_log.tail import Tail

MAX_QUEUED_BYTES = 64 << 20
GROUP_ROWS = 16_384
GROUP_SIGNED_ROWS = 512
"""The same of packets whose signature is to be checked, so that nobody waits long for others'."""

FLUSH_SECONDS = 3600.0
"""Nothing waits longer than this, or so, for its pack: from then on its retention can be told."""

MAX_TAIL_BYTES = 64 << 20
"""Deposits wait for the packing from here on."""

PATIENCE_SECONDS = 30.0
GAP_SECONDS = 1.0
"""Gaps are logged at most so often."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Transaction:
    parts: Parts
    record: Callable[[apsw.Connection, Receipt], None]
    done: Callable[[Receipt | QisError], None]
    size: int = 0


class PacketLog:
    """The log in the folder `path`, recovered by opening it; StoreError where that cannot be.

    With a `check` of signatures, what fails it or contradicts its node's chain is refused.
    """

    def __init__(self, path: Path, retention: Retention = KEEP_ALL, check: Check | None = None) -> None:
        self.store = Store(path)
        flushed = self.store.catalogue.flushed()
        chunks = self.store.journal.replay(flushed)
        for chunk in chunks:
            self.store.index.add(packed_ids(chunk.packets["packet_id"]) + remembered(chunk.packets))
        self.tail = Tail(chunks)
        self.head = self._frozen = chunks[-1].last if chunks else flushed
        self._frozen_at = monotonic()
        self.feed = Feed(self.head)
        self.gaps = 0
        self._check = check
        self._gap_told_at = 0.0
        self._packer = Packer(self.store, self.tail, retention)
        self._packer.freeze(self.store.journal.adopt(), self.head)
        self._queue: deque[Deposit | _Transaction] = deque()
        self._queued_bytes = 0
        self._is_stopped = False
        self._queueing = Lock()
        self._bell = Bell()
        self._room = Condition()
        self._thread = Thread(target=self._run, name="qis-log")
        self._thread.start()

    def append(self, address: str, packets: pa.RecordBatch, done: Callable[[Receipt | QisError], None]) -> None:
        """`put` of complete packets."""
        self.put(Deposit(address, packets, packets.get_total_buffer_size(), done))

    def commit(
        self,
        parts: Parts,
        record: Callable[[apsw.Connection, Receipt], None],
        done: Callable[[Receipt | QisError], None],
    ) -> None:
        """Queue complete packets that become durable and visible all at once or not at all: in the log's thread `parts`
        are read one by one, `record` writes into the same commit, `done` hears the outcome.
        """
        self.put(_Transaction(parts, record, done))

    def put(self, deposit: Deposit | _Transaction) -> None:
        """Queue a deposit; its `done` hears, from the log's thread, when it is on the disk or why it is not.

        Where the queue is full this waits until it is not.
        """
        with self._queueing:
            is_late = self._is_stopped
            if not is_late:
                self._queue.append(deposit)
                self._queued_bytes += deposit.size
        if is_late:
            deposit.done(StoreError("the router is shutting down"))
            return
        self._bell.ring()
        if self._queued_bytes >= MAX_QUEUED_BYTES:
            with self._room:
                self._room.wait_for(lambda: self._queued_bytes < MAX_QUEUED_BYTES)

    def stop(self) -> bool:
        """Commit what is queued and take no more; reading goes on. False where that has been done before."""
        with self._queueing:
            was_stopped, self._is_stopped = self._is_stopped, True
        self._bell.ring()
        self._thread.join()
        self.feed.close()
        return not was_stopped

    def close(self) -> None:
        """Stop, pack what is left, and let go of the store."""
        self.stop()
        self._packer.stop()
        try:
            self._flush()
        except Exception:
            logger.exception("the end of the log could not be packed; it stays in the journal")
        self.store.journal.close(is_packed=not self._packer.is_behind)
        self.store.close()

    def _run(self) -> None:
        while (group := self._next_group()) is not None:
            if isinstance(group, _Transaction):
                self._commit_transaction(group)
            elif group:
                self._commit(group)
            size, age = self.store.journal.bytes, monotonic() - self._frozen_at
            if (size >= FILE_BYTES or (size and age > FLUSH_SECONDS)) and not self._packer.is_behind:
                self._freeze()

    def _next_group(self) -> "list[Deposit] | _Transaction | None":
        """What is committed next: a transaction by itself, or the deposits before one, so many rows at most.

        Empty where nothing came for a while, None where nothing will.
        """
        while not self._queue:
            # In this order: nothing is queued any more once it is stopped, but something may have been just before.
            if self._is_stopped and not self._queue:
                return None
            if not self._bell.wait(FLUSH_SECONDS / 60):
                return []
        if isinstance(transaction := self._queue[0], _Transaction):
            self._queue.popleft()
            return transaction
        group: list[Deposit] = []
        rows = unchecked = size = 0
        while self._queue and isinstance(following := self._queue[0], Deposit):
            rows += following.packets.num_rows
            unchecked += following.packets.num_rows if self._check and following.places is None else 0
            if group and (rows > GROUP_ROWS or unchecked > GROUP_SIGNED_ROWS):
                break
            group.append(following)
            size += following.size
            self._queue.popleft()
        with self._queueing:
            was_full = self._queued_bytes >= MAX_QUEUED_BYTES
            self._queued_bytes -= size
        if was_full:
            with self._room:
                self._room.notify_all()
        return group

    def _commit(self, group: list[Deposit]) -> None:
        answers: list[Receipt | QisError]
        stored: list[tuple[str, pa.RecordBatch]] = []
        try:
            self._wait_for_room()
            chains = Chains(self.store.index.holds, is_strict=self._check is not None)
            packets, chain_ids, refusals = admit(group, chains, self._check)
            deposits = [deposit for deposit, refusal in zip(group, refusals, strict=True) if not refusal]
            receipts, stored = self._store(deposits, packets, chain_ids)
            self._tell_gaps(chains.gaps)
            told = iter(receipts)
            answers = [refusal or next(told) for refusal in refusals]
        except Exception as error:  # one thread serves everybody: it answers and goes on, whatever happened
            logger.exception("a commit failed")
            answers = [_failure(error)] * len(group)
        for deposit, answer in zip(group, answers, strict=True):
            deposit.done(answer)
        if stored:  # after the acknowledgements: a depositor does not wait until a hundred readers are awake
            self.feed.publish(stored, self.head)
            self.tail.merge(self._frozen)

    def _store(
        self, deposits: list[Deposit], packets: pa.RecordBatch, chain_ids: list[bytes]
    ) -> tuple[list[Receipt], list[tuple[str, pa.RecordBatch]]]:
        """Store what is new of the packets, those of the deposits one after the other: a receipt for each deposit, and
        what was new with its addresses.
        """
        sizes = [deposit.packets.num_rows for deposit in deposits]
        stored, ids = sizes, packed_ids(packets["packet_id"])
        is_new = self.store.index.new(ids)
        if is_new is not None:
            upto = np.concatenate([[0], is_new.cumsum()])
            stored = np.diff(upto[[0, *accumulate(sizes)]]).tolist()
            packets, ids = packets.filter(pa.array(is_new)), selected(ids, is_new)
            chain_ids = list(compress(chain_ids, is_new))
        if not packets.num_rows:
            return [Receipt(0, rows, self.head) for rows in sizes], []
        runs = joined([(deposit.address, rows) for deposit, rows in zip(deposits, stored, strict=True)])
        first = place(self.head, packets.num_rows)
        self.store.journal.append(packets, runs, first)
        self.store.index.add(ids + b"".join(chain_ids))
        chunk = Chunk(packets, runs, first, first + packets.num_rows - 1)
        self.tail.append(chunk)
        self.head = chunk.last
        ends = accumulate(stored, initial=first - 1)
        next(ends)
        receipts = [Receipt(new, rows - new, end) for new, rows, end in zip(stored, sizes, ends, strict=True)]
        return receipts, _parts(packets, runs)

    def _commit_transaction(self, transaction: _Transaction) -> None:
        try:
            self._flush()
            chains = partial(Chains, is_strict=self._check is not None)
            receipt, gaps = self._packer.commit(transaction.parts, self.head, transaction.record, chains)
            self._tell_gaps(gaps)
        except PacketError as error:
            transaction.done(error)
            return
        except Exception as error:
            logger.exception("a commit failed")
            transaction.done(_failure(error))
            return
        self.head = self._frozen = receipt.cursor
        transaction.done(receipt)
        self.feed.pass_over(self.head)  # it may be larger than memory: who waits reads it from the store

    def _tell_gaps(self, gaps: int) -> None:
        """Of packets whose previous one is not here: it may be late, or kept from us."""
        self.gaps += gaps
        if gaps and monotonic() > self._gap_told_at + GAP_SECONDS:
            self._gap_told_at = monotonic()
            logger.warning("gap in the chain of a node", extra={"gaps": self.gaps})

    def _freeze(self) -> None:
        self._packer.freeze(self.store.journal.freeze(), self.head)
        self._frozen, self._frozen_at = self.head, monotonic()

    def _flush(self) -> None:
        """Pack all of the tail, now."""
        self._packer.flush()
        self._freeze()
        self._packer.flush()

    def _wait_for_room(self) -> None:
        if self.store.journal.bytes < MAX_TAIL_BYTES:
            return
        if failure := self._packer.failure:
            raise failure
        if not self._packer.wait(PATIENCE_SECONDS):
            raise StoreError("the router cannot store packets: its disk does not keep up")


def _parts(packets: pa.RecordBatch, runs: Runs) -> list[tuple[str, pa.RecordBatch]]:
    ends = accumulate((rows for _, rows in runs), initial=0)
    return [(address, packets.slice(at, rows)) for (address, rows), at in zip(runs, ends, strict=False)]


def _failure(error: Exception) -> QisError:
    return error if isinstance(error, StoreError) else refusal("store packets", error)
