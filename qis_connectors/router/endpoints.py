"""Endpoints: a large read cut into ranges of cursors that can be read side by side."""

from qis_connectors.request import Request
from qis_connectors.router.packet_log.chunk import SPAN
from qis_connectors.router.packet_log.view import View

ROWS = SPAN
"""About so many packets, before filters, make an endpoint of their own."""

MAX_ENDPOINTS = 64


def ranges(view: View, request: Request) -> list[tuple[int, int]]:
    """(since, until), disjoint and in order; together they are the request as a DoGet would answer it now.

    A request with a limit stays whole: which packets it keeps is known only by reading from the start.
    """
    head = max(view.head, request.since)
    spans = [] if request.limit else view.packets_by_span(request.since)
    total = sum(packets for _, packets in spans)
    endpoints = min(MAX_ENDPOINTS, -(-total // ROWS))
    cuts, before, current = [], 0, 0
    for span, packets in spans:
        # Between spans only: a record cut in two would be read twice.
        if (at := before * endpoints // total) > current:
            cuts.append(span * SPAN - 1)
            current = at
        before += packets
    return list(zip([request.since, *cuts], [*cuts, head], strict=True))
