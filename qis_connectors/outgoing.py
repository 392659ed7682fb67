"""Packets on their way out: checked whole before anything is sent, then sorted by where they go."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import pyarrow as pa

from qis_connectors import address, packet
from qis_connectors.packet import PacketError

CHUNK_ROWS = 8192
"""Rows of a batch that is sent."""


def checked(packets: pa.Table | pa.RecordBatch) -> pa.Table:
    """What `packet.conform` takes, as `packet.check` has it; PacketError names field and row of the table."""
    return _each(packets, packet.check)


def complete(packets: pa.Table | pa.RecordBatch) -> pa.Table:
    """The same with packet_ids, as `packet.complete` has it."""
    return _each(packets, packet.complete)


def _each(packets: pa.Table | pa.RecordBatch, look: Callable[[pa.RecordBatch], pa.RecordBatch]) -> pa.Table:
    table = packet.conform(packets if isinstance(packets, pa.Table) else pa.Table.from_batches([packets]))
    batches = []
    rows = 0
    for batch in table.to_batches(max_chunksize=CHUNK_ROWS):
        try:
            batches.append(look(batch))
        except PacketError as error:
            if error.row is None or not rows:
                raise
            raise PacketError(error.field, error.reason, rows + error.row) from None
        rows += batch.num_rows
    return pa.Table.from_batches(batches, schema=packet.OUTCOME_PACKET_SCHEMA)


def by_address(packets: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each address that rows of a table that is checked name, with those rows in their order."""
    domain, problem_type = (packets[name].combine_chunks() for name in ("domain", "problem_type"))
    rows = defaultdict(list)
    for row, name in enumerate(address.column(domain, problem_type).to_pylist()):
        rows[name].append(row)
    for name, chosen in rows.items():
        yield name, packets if len(rows) == 1 else packets.take(chosen)
