"""A chunk: packets with their addresses and cursors, in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router.packet_log.record import Runs, joined

CURSOR = "cursor"
STORED_SCHEMA = pa.schema([*OUTCOME_PACKET_SCHEMA, pa.field(CURSOR, pa.int64())])

SPAN = 1 << 17
"""No chunk crosses a multiple of this many cursors, so a read across addresses sorts one span at a time."""


@dataclass(frozen=True)
class Chunk:
    """Packets with cursors from `first` to `last`; `runs` says at which address each row is stored.

    `packets` has the fields of STORED_SCHEMA, or not yet the cursors: then they count up from `first`, one by one.
    """

    packets: pa.RecordBatch
    runs: Runs
    first: int
    last: int

    def numbered(self) -> "Chunk":
        """With the cursors as a column."""
        if len(self.packets.schema) == len(STORED_SCHEMA):
            return self
        cursors = pa.array(np.arange(self.first, self.last + 1, dtype=np.int64))
        columns = [*self.packets.columns, cursors]
        return replace(self, packets=pa.RecordBatch.from_arrays(columns, schema=STORED_SCHEMA))

    def of(self, wanted: Callable[[str], bool]) -> pa.RecordBatch:
        """The packets of these addresses."""
        kept = [wanted(address) for address, _ in self.runs]
        if all(kept):
            return self.packets
        rows = [count for _, count in self.runs]
        return self.packets.filter(pa.array(np.repeat(kept, rows))) if any(kept) else self.packets.slice(0, 0)

    def by_address(self) -> "Chunk":
        """The same packets, those of one address together and in the order of their cursors.

        They must come in the order of their cursors within each address.
        """
        names = sorted({address for address, _ in self.runs})
        if len(names) == len(self.runs):
            return self
        code = {name: at for at, name in enumerate(names)}
        of_row = np.repeat([code[address] for address, _ in self.runs], [rows for _, rows in self.runs])
        order = of_row.argsort(kind="stable")
        runs = tuple(zip(names, np.bincount(of_row).tolist(), strict=True))
        return Chunk(self.packets.take(pa.array(order)), runs, self.first, self.last)


def place(head: int, rows: int) -> int:
    """The first cursor for that many packets: the next one, or the next span's first where they would not fit."""
    first = head + 1
    return first if first // SPAN == (first + rows - 1) // SPAN else (first // SPAN + 1) * SPAN


def concatenated(chunks: Sequence[Chunk]) -> Chunk:
    """One of several, given in the order of their cursors; without a column of them they must follow one another."""
    if len(chunks) == 1:
        return chunks[0]
    packets = pa.concat_batches([chunk.packets for chunk in chunks])
    return Chunk(packets, joined([run for chunk in chunks for run in chunk.runs]), chunks[0].first, chunks[-1].last)
