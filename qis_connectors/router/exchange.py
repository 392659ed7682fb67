"""One DoExchange stream: what is stored, then what arrives, until the reader has had enough."""

import time
from collections.abc import Callable, Generator, Iterator

import pyarrow as pa

from qis_connectors.request import Request, RequestError
from qis_connectors.router.packet_log.feed import Reader
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.selection import Scorer

POLL_SECONDS = 1.0
"""How soon a reader is missed that has gone while nothing arrives."""

HEARTBEAT_SECONDS = 5.0
"""So often, at least, a reader hears something: a batch without rows, where nothing arrives for it."""


def check(log: PacketLog, request: Request) -> None:
    """RequestError where this cannot be followed."""
    if request.limit is not None:
        raise RequestError("request field 'limit': what arrives has no end to count to; a DoGet takes a limit")
    if request.until is not None:
        raise RequestError("request field 'until': what arrives has no end; a DoGet takes one")
    if request.since > log.head:
        raise RequestError(
            f"request field 'since': {request.since} is beyond the end of this store, {log.head}; is it another's?"
        )


def follow(
    log: PacketLog, request: Request, is_gone: Callable[[], bool], scorer: Scorer | None = None
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches with the cursors to go on from, as `read` gives them, without an end but the reader's or the log's."""
    position, nothing = request.since, pa.RecordBatch.from_pylist([], schema=request.schema)
    with log.feed.reader(request, scorer) as reader:
        # Whoever comes begins at the store, and so goes on from a cursor that no commit group straddles.
        news = None
        while True:
            if news is None:
                reader.catch_up()
                position = yield from _stored(log, request, position, scorer)
            news = _next(log, reader, position, is_gone)
            if news is not None:
                batches, position = news
                if not batches and (log.feed.is_closed or is_gone()):
                    return
                yield _one(batches or [nothing]), position


def _stored(
    log: PacketLog, request: Request, position: int, scorer: Scorer | None
) -> Generator[tuple[pa.RecordBatch, int], None, int]:
    """Its own function so that its last batch, of megabytes, is let go when a reader comes to wait."""
    for batch, cursor in read(log, request.pattern, request.columns, position, where=request.where, scorer=scorer):
        yield batch, cursor
        position = cursor
    return position


def _next(
    log: PacketLog, reader: Reader, position: int, is_gone: Callable[[], bool]
) -> tuple[list[pa.RecordBatch], int] | None:
    """What `Reader.take` has to say; nothing, where the log ends, the reader has gone or a heartbeat is due."""
    due = time.monotonic() + HEARTBEAT_SECONDS
    while True:
        is_last = log.feed.is_closed
        news = reader.take(position)
        if news is None or news[0] or is_last:
            return news
        has_rung = reader.wait(POLL_SECONDS)  # for packets that a filter may all drop: a heartbeat is due all the same
        # Asked when nothing arrives, no oftener: it costs as much as the sending of a packet, which notices by itself.
        if (not has_rung and is_gone()) or time.monotonic() >= due:
            return [], reader.reached(position)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
