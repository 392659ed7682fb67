"""Reading the log: packets in the order they were stored, in large batches, each with a cursor to go on from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors import filters
from qis_connectors.address import Pattern
from qis_connectors.filters import Filter
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
            (json.dumps(matching(store, pattern)),),
        ).fetchall()
    return [Summary(*row) for row in cast(list[tuple[str, int, int, int, int]], rows)]


def read(
    log: PacketLog,
    pattern: Pattern,
    columns: Sequence[str],
    since: int = 0,
    limit: int | None = None,
    until: int | None = None,
    where: Filter | None = None,
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of `columns` with the packets stored after the cursor `since` and before this call, up to the cursor
    `until`, that `where` keeps; at most `limit`.

    With each batch comes the cursor to go on from: everything that matches up to there has been handed out. The last
    one (there is always one, without rows where nothing is new) has reached `until` or the log's end unless `limit` cut
    it short. Others are without rows where a long stretch had nothing to keep: the reader can tell and may go away.
    """
    head = log.head if until is None else min(log.head, until)
    left, held = limit, None
    steps = _Steps(log.store, matching(log.store, pattern), columns, where, head)
    for batch, position in _in_order(steps, since):
        if held:
            yield held
        if left is not None:
            if batch.num_rows >= left:
                yield batch.slice(0, left).select(columns), batch[CURSOR][left - 1].as_py()
                return
            left -= batch.num_rows
        held = batch.select(columns), position
    yield held[0] if held else _NOTHING.select(columns), max(head, since)


@dataclass(frozen=True)
class _Steps:
    """Reads of the store that each take what comes after a position, so many rows that the next is worth its query."""

    store: Store
    addresses: list[int]
    columns: Sequence[str]
    where: Filter | None
    head: int

    def next(self, position: int) -> tuple[list[pa.RecordBatch], int]:
        """What is kept of the next segments, and the last cursor looked at; 0 where there are no more."""
        return self._next_segments(position) if len(self.addresses) == 1 else self._next_span(position)

    def _next_segments(self, position: int) -> tuple[list[pa.RecordBatch], int]:
        """Of one address, until they make a large batch or a span's worth of rows was looked at."""
        pieces: list[pa.RecordBatch] = []
        kept = seen = reached = 0
        with self.store.reading() as connection:
            cursor = connection.execute(
                "SELECT payload, packets, last FROM segment WHERE address = ? AND first BETWEEN ? AND ? AND last > ? "
                "ORDER BY first",
                (self.addresses[0], span_start(position), self.head, position),
            )
            for payload, packets, reached in cursor:  # noqa: B007
                pieces.append(self._kept(payload))
                kept, seen = kept + pieces[-1].num_rows, seen + packets
                if kept >= SEGMENT_ROWS or seen >= SPAN:
                    break
            cursor.close()
        return pieces, reached

    def _next_span(self, position: int) -> tuple[list[pa.RecordBatch], int]:
        """Of several addresses, all they have in the next span in which they have anything."""
        wanted = "last > ? AND address IN (SELECT value FROM json_each(?))"
        after = (position, json.dumps(self.addresses))
        with self.store.reading() as connection:
            first = connection.execute(
                f"SELECT first FROM segment WHERE first BETWEEN ? AND ? AND {wanted} ORDER BY first LIMIT 1",
                (span_start(position), self.head, *after),
            ).get
            if first is None:
                return [], 0
            start = first // SPAN * SPAN
            end = min(start + SPAN - 1, self.head)
            rows = connection.execute(
                f"SELECT payload FROM segment WHERE first BETWEEN ? AND ? AND {wanted}", (start, end, *after)
            )
            return [self._kept(payload) for (payload,) in rows], end

    def _kept(self, payload: bytes) -> pa.RecordBatch:
        batch = decode(payload)
        chosen = batch.select([*self.columns, CURSOR])
        return chosen if self.where is None else chosen.filter(filters.keep(self.where, batch))


def _in_order(steps: _Steps, since: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Every packet that is kept after `since` up to the head, by cursor, each batch with the cursor it reaches up to.

    No statement stays open while the reader takes its time: each step asks anew for what comes after the last one, so
    segments may be merged in between.
    """
    position = since
    while position < steps.head:
        pieces, reached = steps.next(position)
        if not pieces:
            return
        whole = pa.concat_batches(pieces) if len(pieces) > 1 else pieces[0]
        if len(steps.addresses) > 1:
            whole = whole.take(pc.sort_indices(whole[CURSOR]))
        start, stop = whole[CURSOR].to_numpy().searchsorted([position, steps.head], side="right")
        position = min(reached, steps.head)
        for at in range(start, stop, BATCH_ROWS):
            batch = whole.slice(at, min(BATCH_ROWS, stop - at))
            yield batch, position if at + BATCH_ROWS >= stop else batch[CURSOR][-1].as_py()
        if start == stop and position < steps.head:
            yield whole.slice(0, 0), position


def span_start(position: int) -> int:
    """The first cursor of the span that what comes after `position` begins in."""
    return (position + 1) // SPAN * SPAN


def matching(store: Store, pattern: Pattern) -> list[int]:
    """The ids of the addresses that match."""
    with store.reading() as connection:
        if pattern.is_exact:
            found = connection.execute("SELECT id, name FROM address WHERE name = ?", (pattern.text,)).fetchall()
        else:
            found = connection.execute("SELECT id, name FROM address").fetchall()
    return [address for address, name in cast(list[tuple[int, str]], found) if pattern.matches(name)]
