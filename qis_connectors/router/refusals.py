"""What a call that cannot be served is answered with, counted by its reason and logged without what was in it."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from uuid import uuid4

from pyarrow import flight

from qis_connectors.errors import QisError
from qis_connectors.router.bucket import Bucket

LOG_SECONDS = 1.0
"""A refusal is logged at most so often for each RPC and reason; the line says how many were not."""

AUDITED = 100.0
"""So many refusals a second are written to the audit log, ten times as many at once: a flood of them must not push out
what is there. The next line says how many were not."""

Record = Callable[[str, str, str, str], None]
"""Who, verb, what, decision: see audit_log.py."""

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
    """Those of one router since it began; each is told to `record`, its audit log."""

    def __init__(self, record: Record | None = None) -> None:
        self._record = record
        self._audited = Bucket(AUDITED, 10 * AUDITED)
        self._unaudited = 0
        self._lock = Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}

    @contextmanager
    def answering(self, rpc: str, peer: str, who: str = "", what: str = "") -> Iterator[None]:
        """Turns what a handler raises into a Flight error of one line.

        Any other exception out of a handler would reach the client with its traceback and our paths.
        """
        try:
            yield
        except flight.FlightError:
            raise
        except QisError as error:
            self.note(rpc, _reason(error), peer=peer, **_place(error))
            self._audit(who, rpc, what, f"refused: {', '.join([_reason(error), *_place_words(error)])}")
            kind = next(kind for ours, kind in _KINDS if isinstance(error, ours))
            raise kind(str(error)) from None
        except Exception:
            failure = uuid4().hex[:12]
            with self._lock:
                self._counts[rpc, "failed"] += 1
            self._audit(who, rpc, what, f"failed: {failure}")
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

    def turn_away(self, rpc: str, reason: str) -> None:
        """Of a call that ends before anybody knows whose it is."""
        self.note(rpc, reason)
        self._audit("", rpc, "", f"refused: {reason}")

    def _audit(self, who: str, rpc: str, what: str, decision: str) -> None:
        if self._record is None:
            return
        with self._lock:
            if self._audited.wait():
                self._unaudited += 1
                return
            self._audited.take(1)
            unwritten, self._unaudited = self._unaudited, 0
        self._record(who, rpc, what, decision + (f"; {unwritten} before it were not written" if unwritten else ""))

    def counts(self) -> dict[tuple[str, str], int]:
        """By RPC and reason."""
        with self._lock:
            return dict(self._counts)


def _reason(error: QisError) -> str:
    """The error's name, such as packet, address, transaction, busy, unproven or access; it has no packet in it."""
    return type(error).__name__.removesuffix("Error").lower()


def _place_words(error: QisError) -> list[str]:
    return [f"{name} {place}" for name, place in _place(error).items()]


def _place(error: QisError) -> dict[str, object]:
    """Which field of which row, or who was denied; what a field held stays out of the log."""
    places = {name: getattr(error, name, None) for name in ("field", "row", "identity")}
    return {name: place for name, place in places.items() if place is not None}
