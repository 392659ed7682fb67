"""A segment: packets of one address with their cursors, as the bytes of one Arrow record batch."""

from collections.abc import Sequence
from typing import cast

import apsw
import numpy as np
import pyarrow as pa

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

CURSOR = "cursor"
STORED_SCHEMA = pa.schema([*OUTCOME_PACKET_SCHEMA, pa.field(CURSOR, pa.int64())])
SEGMENT_ROWS = 8192
"""What a segment is filled up to; also the rows of a batch that is read."""

SPAN = 1 << 17
"""No segment crosses a multiple of this many cursors, so a read across addresses sorts one span at a time."""

MERGE = 16
"""This many small neighbours become one, sixteen of those one again: a packet is rewritten three times in all."""
_TIERS = (16, 256, 4096)


def place(head: int, rows: int) -> int:
    """The first cursor for that many packets: the next one, or the next span's first where they would not fit."""
    first = head + 1
    return first if first // SPAN == (first + rows - 1) // SPAN else (first // SPAN + 1) * SPAN


def number(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """The packets of `batch` with the cursors `first`, `first` + 1, ..."""
    cursors = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
    return batch.append_column(STORED_SCHEMA.field(CURSOR), cursors)


def decode(payload: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(payload), STORED_SCHEMA)


def insert(writer: apsw.Connection, address: int, batches: Sequence[pa.RecordBatch]) -> None:
    """Numbered packets of one address and span, in order, as few segments."""
    whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    for start in range(0, whole.num_rows, SEGMENT_ROWS):
        batch = whole.slice(start, SEGMENT_ROWS)
        payload = memoryview(batch.serialize())
        cursors, times = batch[CURSOR].to_numpy(), batch["timestamp_utc"].to_numpy()
        writer.execute(
            "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                int(cursors[0]),
                int(cursors[-1]),
                address,
                batch.num_rows,
                len(payload),
                int(times.min()),
                int(times.max()),
                payload,
            ),
        )


def coalesce(writer: apsw.Connection, address: int, span: int) -> None:
    """Merge the newest segments of an address where enough small ones have gathered, then what these have become."""
    while newest := _due(writer, address, span):
        first, last = newest[-1], newest[0]
        chosen = (address, first, last)
        rows = writer.execute(
            "SELECT payload FROM segment WHERE address = ? AND first BETWEEN ? AND ? ORDER BY first", chosen
        )
        batches = [decode(payload) for (payload,) in rows]
        writer.execute("DELETE FROM segment WHERE address = ? AND first BETWEEN ? AND ?", chosen)
        insert(writer, address, batches)


def due_for_merge(newest_first: Sequence[int]) -> int:
    """How many of the newest segments to make one, given their row counts: neighbours only, so that order is kept."""
    below = 0
    for limit in _TIERS:
        small = next((at for at, rows in enumerate(newest_first) if rows >= limit), len(newest_first))
        if small - below >= MERGE:
            return small
        below = small
    return 0


def _due(writer: apsw.Connection, address: int, span: int) -> list[int]:
    """The first cursors of the segments to merge, newest first."""
    newest = writer.execute(
        "SELECT first, packets FROM segment WHERE address = ? AND first >= ? AND first < ? "
        "ORDER BY first DESC LIMIT 256",
        (address, span * SPAN, (span + 1) * SPAN),
    ).fetchall()
    firsts, sizes = zip(*cast(list[tuple[int, int]], newest), strict=True)
    return list(firsts[: due_for_merge(sizes)])
