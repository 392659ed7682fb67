"""The streams that are open: how many there may be, and how long they took.

A middleware, because it sees a call before its first message: a client that opens streams and sends nothing counts too.
"""

from collections import Counter
from threading import Lock
from time import perf_counter
from typing import Any

from pyarrow import flight

from qis_connectors.router.refusals import Refusals
from qis_connectors.router.traffic import Histogram

MAX_STREAMS = 1000
"""Each open stream has a thread of gRPC's."""

STREAMS = {
    flight.FlightMethod.DO_PUT: "DoPut",
    flight.FlightMethod.DO_GET: "DoGet",
    flight.FlightMethod.DO_EXCHANGE: "DoExchange",
}


class Calls(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
    def __init__(self, refusals: Refusals) -> None:
        super().__init__()
        self._refusals = refusals
        self._lock = Lock()
        self._open: Counter[str] = Counter()
        self._seconds = {rpc: Histogram() for rpc in STREAMS.values()}

    def start_call(self, info: flight.CallInfo, _: dict[str, list[str]]) -> "_Call | None":
        """FlightUnavailableError, which tells a client to come back later, where MAX_STREAMS are open."""
        rpc = STREAMS.get(info.method)
        if rpc is None:
            return None
        with self._lock:
            is_full = self._open.total() >= MAX_STREAMS
            if not is_full:
                self._open[rpc] += 1
        if is_full:
            self._refusals.turn_away(rpc, "busy")
            raise flight.FlightUnavailableError(f"{MAX_STREAMS} streams are open at this router; try again later")
        return _Call(self, rpc)

    def end(self, rpc: str, seconds: float) -> None:
        with self._lock:
            self._open[rpc] -= 1
            self._seconds[rpc].observe(seconds)

    def open(self) -> dict[str, int]:
        """The open streams by RPC."""
        with self._lock:
            return {rpc: self._open[rpc] for rpc in STREAMS.values()}

    def seconds(self, rpc: str) -> Histogram:
        """How long the ended streams of an RPC took from end to end."""
        copy = Histogram()
        with self._lock:
            copy += self._seconds[rpc]
        return copy


class _Call(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, calls: Calls, rpc: str) -> None:
        super().__init__()
        self._calls = calls
        self._rpc = rpc
        self._began = perf_counter()

    def call_completed(self, _: Any) -> None:  # noqa: ANN401
        self._calls.end(self._rpc, perf_counter() - self._began)
