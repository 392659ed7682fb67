"""Endpoints: a large read cut into ranges of cursors that can be read side by side."""

import json
from typing import cast

from qis_connectors.request import Request
from qis_connectors.router.log import PacketLog
from qis_connectors.router.reading import matching, span_start
from qis_connectors.router.segment import SPAN

ROWS = SPAN
"""About so many packets, before filters, make an endpoint of their own."""

MAX_ENDPOINTS = 64


def ranges(log: PacketLog, request: Request) -> list[tuple[int, int]]:
    """(since, until), disjoint and in order; together they are the request as a DoGet would answer it now.

    A request with a limit stays whole: which packets it keeps is known only by reading from the start.
    """
    head = log.head if request.until is None else min(log.head, request.until)
    head = max(head, request.since)
    spans = [] if request.limit else _packets_by_span(log, request, head)
    total = sum(packets for _, packets in spans)
    endpoints = min(MAX_ENDPOINTS, -(-total // ROWS))
    cuts, before, current = [], 0, 0
    for span, packets in spans:
        # Between spans only: a segment cut in two would be decoded twice.
        if (at := before * endpoints // total) > current:
            cuts.append(span * SPAN - 1)
            current = at
        before += packets
    return list(zip([request.since, *cuts], [*cuts, head], strict=True))


def _packets_by_span(log: PacketLog, request: Request, head: int) -> list[tuple[int, int]]:
    with log.store.reading() as connection:
        rows = connection.execute(
            "SELECT first / ?1, sum(packets) FROM segment WHERE address IN (SELECT value FROM json_each(?2)) "
            "AND first BETWEEN ?3 AND ?4 AND last > ?5 GROUP BY 1 ORDER BY 1",
            (
                SPAN,
                json.dumps(matching(log.store, request.pattern)),
                span_start(request.since),
                head,
                request.since,
            ),
        ).fetchall()
    return cast(list[tuple[int, int]], rows)
