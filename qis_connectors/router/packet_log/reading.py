"""Reading the log: packets in the order they were stored, in large batches, each with a cursor to go on from."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from qis_connectors.address import Pattern
from qis_connectors.filters import Filter
from qis_connectors.router.packet_log.chunk import CURSOR
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.packs import RECORD_ROWS
from qis_connectors.router.packet_log.selection import Scorer, kept, needed
from qis_connectors.router.packet_log.view import NOTHING, Ordered, View

STRETCH_ROWS = 1 << 17
"""A reader hears something after so many rows, even where nothing of them is kept."""


def read(
    log: PacketLog,
    pattern: Pattern,
    columns: Sequence[str],
    since: int = 0,
    limit: int | None = None,
    until: int | None = None,
    where: Filter | None = None,
    scorer: Scorer | None = None,
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of `columns` with the packets stored after the cursor `since` and before this call, up to the cursor
    `until`, that `where` keeps and `scorer` finds similar, with their score if `columns` ask for it; at most `limit`.

    With each batch comes the cursor to go on from: everything that matches up to there has been handed out. The last
    one (there is always one, without rows where nothing is new) has reached `until` or the log's end unless `limit` cut
    it short. Others are without rows where a long stretch had nothing to keep: the reader can tell and may go away.
    """
    view = View(log, pattern, until)
    left, held = limit, None
    for stored, position in _wanted(view.after(since, needed(columns, where, scorer)), where, scorer):
        if held:
            yield held
        if left is not None:
            if stored.num_rows >= left:
                yield stored.slice(0, left).select(columns), stored[CURSOR][left - 1].as_py()
                return
            left -= stored.num_rows
        held = stored.select(columns), position
    yield held[0] if held else kept(NOTHING, None, scorer).select(columns), max(view.head, since)


def _wanted(stored: Iterator[Ordered], where: Filter | None, scorer: Scorer | None) -> Iterator[Ordered]:
    """What is kept, the little of many batches as one."""
    if where is None and scorer is None:
        yield from stored
        return
    held: list[pa.RecordBatch] = []
    rows = seen = reached = 0
    for batch, reached in stored:  # asked for behind the loop too
        held.append(kept(batch, where, scorer))
        rows, seen = rows + held[-1].num_rows, seen + batch.num_rows
        if rows >= RECORD_ROWS or seen >= STRETCH_ROWS:
            yield pa.concat_batches(held), reached
            held, rows, seen = [], 0, 0
    if held:
        yield pa.concat_batches(held), reached
