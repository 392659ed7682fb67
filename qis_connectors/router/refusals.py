"""What a call that cannot be served is answered with, counted by its reason and logged without what was in it."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from uuid import uuid4

from pyarrow import flight

from qis_connectors.errors import QisError

LOG_SECONDS = 1.0
"""A refusal is logged at most so often for each RPC and reason; the line says how many were not."""

logger = logging.getLogger(__name__)


class BusyError(QisError):
    """The router has as much on its hands as it takes; the same call may succeed later."""


class DeniedError(QisError):
    """A call that is not let in; `identity` is what its certificate says."""

    def __init__(self, identity: str, reason: str) -> None:
        super().__init__(reason)
        self.identity = identity


class UnprovenError(DeniedError):
    """Whoever calls has not proved to be a member of the network."""


class AccessError(DeniedError):
    """A member that may not do this there."""


_KINDS = (
    (BusyError, flight.FlightUnavailableError),
    (UnprovenError, flight.FlightUnauthenticatedError),
    (AccessError, flight.FlightUnauthorizedError),
    (QisError, flight.FlightServerError),
)


class Refusals:
    """Those of one router since it began."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    @contextmanager
    def answering(self, rpc: str, peer: str) -> Iterator[None]:
        """Turns what a handler raises into a Flight error of one line.

        Any other exception out of a handler would reach the client with its traceback and our paths.
        """
        try:
            yield
        except flight.FlightError:
            raise
        except QisError as error:
            self.note(rpc, _reason(error), peer=peer, **_place(error))
            kind = next(kind for ours, kind in _KINDS if isinstance(error, ours))
            raise kind(str(error)) from None
        except Exception:
            failure = uuid4().hex[:12]
            with self._lock:
                self._counts[rpc, "failed"] += 1
            logger.exception("failed", extra={"rpc": rpc, "error_id": failure, "peer": peer})
            raise flight.FlightServerError(
                f"the router failed on this call; its log has the details under {failure}"
            ) from None

    def note(self, rpc: str, reason: str, **details: object) -> None:
        """Count a refusal, and log it unless one like it was just logged."""
        key, now = (rpc, reason), monotonic()
        with self._lock:
            self._counts[key] += 1
            count = self._counts[key]
            at, told = self._logged.get(key, (-LOG_SECONDS, 0))
            if now < at + LOG_SECONDS:
                return
            self._logged[key] = now, count
        logger.warning("refused", extra={"rpc": rpc, "reason": reason, "unlogged": count - told - 1, **details})

    def counts(self) -> dict[tuple[str, str], int]:
        """By RPC and reason."""
        with self._lock:
            return dict(self._counts)


def _reason(error: QisError) -> str:
    """The error's name, such as packet, address, transaction, busy, unproven or access; it has no packet in it."""
    return type(error).__name__.removesuffix("Error").lower()


def _place(error: QisError) -> dict[str, object]:
    """Which field of which row, or who was denied; what a field held stays out of the log."""
    places = {name: getattr(error, name, None) for name in ("field", "row", "identity")}
    return {name: place for name, place in places.items() if place is not None}
