"""Reading the log: packets in the order they were stored, in large batches, each with a cursor to go on from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors.address import Pattern
from qis_connectors.router.log import PacketLog
from qis_connectors.router.segment import CURSOR, SEGMENT_ROWS, SPAN, STORED_SCHEMA, decode
from qis_connectors.router.store import Store

BATCH_ROWS = 2 * SEGMENT_ROWS
_NOTHING = pa.RecordBatch.from_pylist([], schema=STORED_SCHEMA)


@dataclass(frozen=True)
class Summary:
    """What an address holds; times are the packets' own, ms since the epoch."""

    address: str
    packets: int
    bytes: int
    first_time: int
    last_time: int


def summaries(store: Store, pattern: Pattern) -> list[Summary]:
    """The addresses that match, by name."""
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT name, sum(packets), sum(bytes), min(first_time), max(last_time) "
            "FROM address JOIN segment ON segment.address = address.id "
            "WHERE address.id IN (SELECT value FROM json_each(?)) GROUP BY address.id ORDER BY name",
            (json.dumps(_matching(store, pattern)),),
        ).fetchall()
    return [Summary(*row) for row in cast(list[tuple[str, int, int, int, int]], rows)]


def read(
    log: PacketLog, pattern: Pattern, columns: Sequence[str], since: int = 0, limit: int | None = None
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of `columns` with the packets stored after the cursor `since` and before this call, at most `limit`.

    With each batch comes the cursor to go on from: everything that matches up to there has been handed out. The last
    one (there is always one, without rows where nothing is new) has reached the log's end unless `limit` cut it short.
    """
    head = log.head
    left, held = limit, _NOTHING
    for batch in _in_order(log.store, _matching(log.store, pattern), [*columns, CURSOR], since, head):
        if held.num_rows:
            yield held.select(columns), held[CURSOR][-1].as_py()
        held = batch if left is None else batch.slice(0, left)
        if left is not None and (left := left - held.num_rows) == 0:
            yield held.select(columns), held[CURSOR][-1].as_py()
            return
    yield held.select(columns), max(head, since)


def _in_order(
    store: Store, addresses: list[int], columns: list[str], since: int, head: int
) -> Iterator[pa.RecordBatch]:
    """Every packet after `since` up to `head`, by cursor. No statement stays open while the reader takes its time:
    each step asks anew for what comes after the last one, so segments may be merged in between.
    """
    position = since
    while position < head:
        if len(addresses) == 1:
            pieces = _next_segments(store, addresses[0], columns, position)
        else:
            pieces = _next_span(store, addresses, columns, position)
        if not pieces:
            return
        whole = pa.concat_batches(pieces) if len(pieces) > 1 else pieces[0]
        if len(addresses) > 1:
            whole = whole.take(pc.sort_indices(whole[CURSOR]))
        cursors = whole[CURSOR].to_numpy()
        start, stop = cursors.searchsorted([position, head], side="right")
        for at in range(start, stop, BATCH_ROWS):
            yield whole.slice(at, min(BATCH_ROWS, stop - at))
        position = int(cursors[-1])


def _next_segments(store: Store, address: int, columns: list[str], position: int) -> list[pa.RecordBatch]:
    """Segments of one address until they make a large batch."""
    pieces: list[pa.RecordBatch] = []
    rows = 0
    with store.reading() as connection:
        cursor = connection.execute(
            "SELECT payload FROM segment WHERE address = ? AND first >= ? AND last > ? ORDER BY first",
            (address, _span_start(position), position),
        )
        for (payload,) in cursor:
            pieces.append(decode(payload).select(columns))
            rows += pieces[-1].num_rows
            if rows >= SEGMENT_ROWS:
                break
        cursor.close()
    return pieces


def _next_span(store: Store, addresses: list[int], columns: list[str], position: int) -> list[pa.RecordBatch]:
    """What the addresses have in the next span in which they have anything."""
    wanted = "last > ? AND address IN (SELECT value FROM json_each(?))"
    after = (position, json.dumps(addresses))
    with store.reading() as connection:
        first = connection.execute(
            f"SELECT first FROM segment WHERE first >= ? AND {wanted} ORDER BY first LIMIT 1",
            (_span_start(position), *after),
        ).get
        if first is None:
            return []
        start = first // SPAN * SPAN
        rows = connection.execute(
            f"SELECT payload FROM segment WHERE first >= ? AND first < ? AND {wanted}", (start, start + SPAN, *after)
        )
        return [decode(payload).select(columns) for (payload,) in rows]


def _span_start(position: int) -> int:
    return (position + 1) // SPAN * SPAN


def _matching(store: Store, pattern: Pattern) -> list[int]:
    with store.reading() as connection:
        if pattern.is_exact:
            found = connection.execute("SELECT id, name FROM address WHERE name = ?", (pattern.text,)).fetchall()
        else:
            found = connection.execute("SELECT id, name FROM address").fetchall()
    return [address for address, name in cast(list[tuple[int, str]], found) if pattern.matches(name)]
