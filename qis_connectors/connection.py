"""One Flight connection to a router: what it is asked, and its errors in one line each."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from qis_connectors.errors import QisError

if TYPE_CHECKING:
    from qis_connectors.network.identity import Identity

CONNECT_SECONDS = 5.0
ENVIRONMENT = "QIS_IDENTITY"
"""Names the folder of the bundle that calls are made with where none is given."""


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
    except (flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError) as error:
        raise QisError(f"router {url} refuses: {_said(error)}") from None
    except flight.FlightServerError as error:
        raise QisError(_message(error)) from None
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise QisError(f"{url} does not answer as a router: {_message(error)}") from None


def bundle_for(url: str, given: Path | str | None) -> str | None:
    """The folder of who to be at a router: the bundle given, or else the environment's; none at a router without TLS.

    QisError where a router with TLS finds none, or one without is given one.
    """
    if not url.startswith("grpc+tls://"):
        if given:
            raise QisError(f"router {url} asks for no identity; one that does is written grpc+tls://HOST:PORT")
        return None
    folder = given or os.environ.get(ENVIRONMENT)
    if not folder:
        raise QisError(f"router {url} asks who you are: name your bundle's folder as the identity, or in {ENVIRONMENT}")
    return str(folder)


def identity_in(folder: str | None) -> "Identity | None":
    """The bundle in a folder; IdentityError where it cannot be used."""
    if folder is None:
        return None
    from qis_connectors.network.identity import Identity  # loading it takes longer than a call

    return Identity(folder)


def connect(url: str, identity: "Identity | None" = None) -> tuple[flight.FlightClient, str]:
    """A connection and the identity of the store behind it."""
    with one_line_errors(url):
        client = (
            flight.connect(url, middleware=[_Tokens(identity)], **identity.tls()) if identity else flight.connect(url)
        )
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
    for tls, cause in _TLS:
        if tls in text:
            return cause
    for cause in ("connection refused", "address lookup failed", "timed out", "deadline exceeded", "connection reset"):
        if cause in text:
            return "it does not answer" if cause == "deadline exceeded" else cause
    return _said(error).lower()


def _said(error: Exception) -> str:
    return _message(error).rpartition("with message: ")[2]


_TLS = (
    ("socket closed", "it hangs up: a network's router is at grpc+tls:// and takes its own members' certificates only"),
    ("ssl handshake failed", "it is not the router of your network, or it is in plain mode, at grpc://"),
    ("not in peer certificate", "it is not the router of your network"),
)


class _Tokens(flight.ClientMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
    def __init__(self, identity: "Identity") -> None:
        super().__init__()
        self._identity = identity

    def start_call(self, _: flight.CallInfo) -> "_Token":
        return _Token(self._identity.token())


class _Token(flight.ClientMiddleware):  # type: ignore[misc]
    """A call's token, in its header."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"}
