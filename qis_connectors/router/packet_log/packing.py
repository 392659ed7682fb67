"""Packing: what is in the journal goes into packs, and small packs into large ones, behind the depositors' backs."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import compress, groupby
from threading import Condition, RLock, Thread

import apsw
import pyarrow as pa

from qis_connectors import chain
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log.chains import Chains
from qis_connectors.router.packet_log.chunk import SPAN, Chunk, concatenated, place
from qis_connectors.router.packet_log.journal import JournalFile
from qis_connectors.router.packet_log.packet_index import IdRun, Trial, packed_ids
from qis_connectors.router.packet_log.retention import KEEP_ALL, Retention, expire
from qis_connectors.router.packet_log.store import Store
from qis_connectors.router.packet_log.tail import Tail

MERGE = 8
"""So many packs of one span become one, and all of them once it is over: a packet is written some four times."""

RETRY_SECONDS = 5.0
EXPIRE_SECONDS = 600.0
"""So often what is over its time is let go."""

logger = logging.getLogger(__name__)

Parts = Iterable[tuple[str, pa.RecordBatch]]
"""Complete packets, address by address."""


class Packer:
    """A thread of its own, from construction to `stop`. `failure` is why the last attempt to pack did not succeed."""

    def __init__(self, store: Store, tail: Tail, retention: Retention) -> None:
        self.failure: Exception | None = None
        self._retention = retention
        self._expires_at = 0.0
        self._store = store
        self._tail = tail
        self._frozen: list[JournalFile] = []
        self._upto = 0
        self._working = RLock()
        self._changed = Condition()
        self._is_due = True
        self._is_stopped = False
        self._thread = Thread(target=self._run, name="qis-packer")
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether what was frozen last is not in a pack yet."""
        return bool(self._frozen)

    def freeze(self, files: list[JournalFile], upto: int) -> None:
        """Have the tail up to this cursor packed, which these files of the journal hold. Not while `is_behind`."""
        self._store.index.freeze()
        with self._changed:
            self._frozen, self._upto, self._is_due = files, upto, True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Until nothing is frozen, for so long at most; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._frozen, seconds)

    def flush(self) -> None:
        """Pack what is frozen, now. OSError or apsw.Error where the disk refuses: it all stays where it is."""
        with self._working:
            if not self._frozen:
                return
            chunks = [chunk for chunk in self._tail.chunks if chunk.first <= self._upto]
            with self._writing() as (writer, new):
                for _, of_span in groupby(chunks, lambda chunk: chunk.first // SPAN):
                    self._write(writer, [concatenated([chunk.numbered() for chunk in of_span]).by_address()], new)
                run = self._store.index.write_frozen(self._store.next_number())
                _record_flush(writer, self._upto, run)
            self._store.index.use(run)
            self._store.index.forget_frozen()
            self._tail.drop(self._upto)
            self._store.journal.release(self._frozen)
            with self._changed:
                self._frozen = []
                self._changed.notify_all()

    def commit(
        self,
        parts: Parts,
        head: int,
        record: Callable[[apsw.Connection, Receipt], None],
        chains_over: Callable[[Callable[[bytes], list[bool]]], Chains],
    ) -> tuple[Receipt, int]:
        """Store everything in packs of its own behind the cursor `head`, at once. The tail must be empty.

        `record` writes into the same commit. Beside the receipt: how many gaps there are in the nodes' chains. Raises
        ChainError, and nothing is stored, where a packet contradicts one that is stored.
        """
        receipt = Receipt(cursor=head)
        trial, gaps = Trial(self._store.index), 0

        def chunks() -> Iterator[Chunk]:
            nonlocal receipt, gaps
            for address, packets in parts:
                chains = chains_over(trial.holds)
                chain_ids = chains.ids(packets, chain.places(packets))
                gaps += chains.gaps
                ids = packed_ids(packets["packet_id"])
                is_new = trial.add(ids)
                new = packets if is_new is None else packets.filter(pa.array(is_new))
                if told := b"".join(chain_ids if is_new is None else compress(chain_ids, is_new)):
                    trial.add(told)
                if new.num_rows:
                    first = place(receipt.cursor, new.num_rows)
                    receipt += Receipt(new.num_rows, 0, first + new.num_rows - 1)
                    yield Chunk(new, ((address, new.num_rows),), first, receipt.cursor).numbered()
                receipt += Receipt(0, packets.num_rows - new.num_rows)

        with self._working:
            with self._writing() as (writer, new):
                for _, of_span in groupby(chunks(), lambda chunk: chunk.first // SPAN):
                    self._write(writer, of_span, new)
                run = self._store.index.write(self._store.next_number(), trial.runs) if trial.runs else None
                _record_flush(writer, receipt.cursor, run)
                record(writer, receipt)
            self._store.index.use(run)
        return receipt, gaps

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def _writing(self) -> Iterator[tuple[apsw.Connection, list[int]]]:
        """A commit of the catalogue and the numbers of the packs that are written for it; where it fails, these and the
        ids are gone again: a full disk would be filled anew with each attempt.
        """
        new: list[int] = []
        try:
            with self._store.catalogue.writing() as writer:
                yield writer, new
        except BaseException:
            self._store.packs.drop(new)
            self._store.index.drop_unused()
            raise

    def _write(self, writer: apsw.Connection, chunks: Iterable[Chunk], new: list[int]) -> None:
        """A pack of chunks of one span."""
        pack = self._store.next_number()
        runs = self._store.packs.write(pack, chunks)
        new.append(pack)
        self._store.catalogue.add(writer, pack, runs)

    def _run(self) -> None:
        while self._next():
            try:
                self.flush()
                self._expire()
                while not self._is_stopped and not self.is_behind and (self._merge_packs() or self._merge_ids()):
                    pass
                self.failure = None
            except Exception as error:  # it goes on, whatever happened: nothing is lost meanwhile
                logger.exception("packing failed and is tried again in %g s", RETRY_SECONDS)
                self.failure = error
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopped, RETRY_SECONDS)
                    self._is_due = True

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_due or self._is_stopped, EXPIRE_SECONDS)
            self._is_due = False
            return not self._is_stopped

    def _expire(self) -> None:
        """It looks at every run there is, so not after each flush."""
        if self._retention == KEEP_ALL or time.monotonic() < self._expires_at:
            return
        self._expires_at = time.monotonic() + EXPIRE_SECONDS
        with self._working:
            with self._store.catalogue.writing() as writer:
                expire(writer, self._store.packs, self._retention, time.time())
                gone = self._store.catalogue.drop_empty(writer)
            self._store.packs.drop(gone)
            for span, packs in self._store.catalogue.hollow():
                self._write_anew(span, packs)

    def _merge_packs(self) -> bool:
        """Of one span, where enough have gathered; whether there was one."""
        with self._working:
            due = self._store.catalogue.due_for_merge(MERGE)
            if due is not None:
                self._write_anew(*due)
        return due is not None

    def _write_anew(self, span: int, packs: list[int]) -> None:
        """What is left in the packs of a span, as one."""
        chunks = self._store.live_chunks(span)
        with self._writing() as (writer, new):
            self._store.catalogue.remove(writer, span, packs)
            if chunks:
                self._write(writer, [concatenated(chunks).by_address()], new)
        self._store.packs.drop(packs)

    def _merge_ids(self) -> bool:
        with self._working:
            due = self._store.index.due()
            if not due:
                return False
            with self._writing() as (writer, _):
                run = self._store.index.write(self._store.next_number(), due)
                writer.executemany("DELETE FROM id_run WHERE id = ?", [(one.number,) for one in due])
                writer.execute("INSERT INTO id_run VALUES (?, ?)", (run.number, run.checksum))
            self._store.index.use(run, due)
        return True


def _record_flush(writer: apsw.Connection, upto: int, run: IdRun | None) -> None:
    writer.execute("UPDATE state SET flushed = max(flushed, ?)", (upto,))
    writer.execute("INSERT OR REPLACE INTO flush VALUES (?, ?)", (upto, time.time()))
    if run:
        writer.execute("INSERT INTO id_run VALUES (?, ?)", (run.number, run.checksum))
