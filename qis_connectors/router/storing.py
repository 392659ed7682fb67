"""Storing: the packets that are new go into segments, each once. For the log's thread, within one commit of its own."""

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, groupby

import numpy as np
import pyarrow as pa

from qis_connectors.receipt import Receipt
from qis_connectors.router import segment
from qis_connectors.router.admission import Deposit
from qis_connectors.router.segment import MERGE, SPAN
from qis_connectors.router.store import Store

logger = logging.getLogger(__name__)


class Storing:
    """What is known of a store while it is written: its addresses, and where small segments have gathered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._addresses: dict[str, int] = {}
        self._small: Counter[tuple[int, int]] = Counter()  # segments stored since the last merge, by address and span
        self._due: set[tuple[int, int]] = set()

    def put(
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
        if first // SPAN > head // SPAN:
            self._small.clear()
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
        segment.insert(self._store.writer, address, [packets])
        self._small[address, span] += 1
        if self._small[address, span] >= MERGE:
            self._due.add((address, span))

    def _unseen(self, packet_ids: list[str]) -> "np.typing.NDArray[np.bool_] | None":
        """Which packets are new, each once; None: all. From here on they are seen."""
        ids = [bytes.fromhex(packet_id) for packet_id in packet_ids]
        writer = self._store.writer
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
            self._addresses[name] = self._store.writer.execute(
                "INSERT INTO address(name) VALUES (?) ON CONFLICT DO UPDATE SET name = name RETURNING id", (name,)
            ).get
        return self._addresses[name]

    def forget(self) -> None:
        """After a rollback: what was rolled back must not stay known."""
        self._addresses.clear()

    def merge_due(self) -> None:
        """Merge the small segments of the addresses where enough have gathered; each in a commit of its own."""
        while self._due:
            self._coalesce(*self._due.pop())

    def _coalesce(self, address: int, span: int) -> None:
        try:
            with self._store.writing() as writer:
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
