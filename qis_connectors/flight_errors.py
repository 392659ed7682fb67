"""Flight's errors as ours: one line, what the other side said."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import flight

from qis_connectors.errors import QisError


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Whatever goes wrong between us and the router at `url` is raised as QisError."""
    try:
        yield
    except (flight.FlightUnavailableError, flight.FlightTimedOutError) as error:
        raise QisError(f"cannot reach router {url}: {_cause(error)}") from None
    except flight.FlightServerError as error:
        raise QisError(_message(error)) from None
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise QisError(f"{url} does not answer as a router: {_message(error)}") from None


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
