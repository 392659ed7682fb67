"""One Flight connection to a router: what it is asked, and its errors in one line each."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import flight

from qis_connectors.errors import QisError

CONNECT_SECONDS = 5.0


class UnreachableError(QisError):
    """The router does not answer, or not any more; what it has not refused may be tried again."""


@dataclass(frozen=True)
class Packets:
    """What was read, and where to go on: `since=cursor`, at the same `store`, gives what was stored after it."""

    table: pa.Table
    cursor: int
    store: str


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Flight's errors as QisError in one line."""
    try:
        yield
    except (flight.FlightUnavailableError, flight.FlightTimedOutError) as error:
        raise UnreachableError(f"cannot reach router {url}: {_cause(error)}") from None
    except flight.FlightServerError as error:
        raise QisError(_message(error)) from None
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise QisError(f"{url} does not answer as a router: {_message(error)}") from None


def connect(url: str) -> tuple[flight.FlightClient, str]:
    """A connection and the identity of the store behind it."""
    with one_line_errors(url):
        client = flight.connect(url)
    try:
        return client, ask(client, url, "health")["store"]
    except BaseException:
        client.close()
        raise


def ask(client: flight.FlightClient, url: str, action: str) -> dict[str, Any]:
    options = flight.FlightCallOptions(timeout=CONNECT_SECONDS)
    with one_line_errors(url):
        (answer,) = client.do_action(flight.Action(action, b""), options)
        return dict(json.loads(answer.body.to_pybytes()))


def chunks(reader: flight.FlightStreamReader) -> Iterator[flight.FlightStreamChunk]:
    while True:
        try:
            yield reader.read_chunk()
        except StopIteration:
            return


def _message(error: Exception) -> str:
    """What the other side said, without what gRPC and Flight have wrapped around it."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = text.split(". gRPC client debug context:")[0]
    return text.split(". Detail: ")[0] or type(error).__name__


def _cause(error: Exception) -> str:
    text = _message(error).lower()
    for cause in ("connection refused", "address lookup failed", "timed out", "deadline exceeded", "connection reset"):
        if cause in text:
            return "it does not answer" if cause == "deadline exceeded" else cause
    return text.rpartition("with message: ")[2]
