"""Reading the log: packets in the order they were stored, in large batches, each with a cursor to go on from."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors import filters
from qis_connectors.address import Pattern
from qis_connectors.filters import Filter
from qis_connectors.router.chunk import CURSOR, SPAN, STORED_SCHEMA
from qis_connectors.router.log import PacketLog
from qis_connectors.router.packs import RECORD_ROWS
from qis_connectors.router.view import View

_NOTHING = pa.RecordBatch.from_pylist([], schema=STORED_SCHEMA)


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
    view = View(log, pattern, until)
    left, held = limit, None
    for stored, position in _in_order(view, columns, since, where):
        if held:
            yield held
        if left is not None:
            if stored.num_rows >= left:
                yield stored.slice(0, left).select(columns), stored[CURSOR][left - 1].as_py()
                return
            left -= stored.num_rows
        held = stored.select(columns), position
    yield held[0] if held else _NOTHING.select(columns), max(view.head, since)


def _in_order(
    view: View, columns: Sequence[str], since: int, where: Filter | None
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Every packet that is kept after `since` up to the head, by cursor, each batch with the cursor it reaches up to.

    Nothing is held open while the reader takes its time: each step asks anew for what comes after the last one.
    """

    def kept(batch: pa.RecordBatch) -> pa.RecordBatch:
        chosen = batch.select([*columns, CURSOR])
        return chosen if where is None else chosen.filter(filters.keep(where, batch))

    rows = RECORD_ROWS if where is None else SPAN
    position = since
    for following, end in ((view.next_packed, view.packed), (view.next_in_memory, view.head)):
        while position < end and (found := following(position, rows))[1]:
            batches, reached = found
            whole = _sorted([kept(batch) for batch in batches] or [kept(_NOTHING)])
            yield from _after(position, whole, min(reached, end))
            position = min(reached, end)


def _sorted(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    cursors = whole[CURSOR].to_numpy()
    return whole if (cursors[1:] > cursors[:-1]).all() else whole.take(pc.sort_indices(whole[CURSOR]))


def _after(position: int, batch: pa.RecordBatch, reached: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """What stands between the two cursors, in batches of RECORD_ROWS at most, the last of which leads to `reached`."""
    start, stop = batch[CURSOR].to_numpy().searchsorted([position, reached], side="right")
    for at in range(start, stop, RECORD_ROWS):
        cut = batch.slice(at, min(RECORD_ROWS, stop - at))
        yield cut, reached if at + RECORD_ROWS >= stop else cut[CURSOR][-1].as_py()
    if start == stop:
        yield batch.slice(0, 0), reached
