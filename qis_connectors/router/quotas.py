"""What each site may use of a router: packets and bytes a second, and streams at once. A small YAML file says it:

    default: {packets: 2000, bytes: 2000000, streams: 50}   # a second, a second, at once; what is left out has no bound
    burst: 5                                                 # so many seconds' worth may come at once
    idle: 600                                                # a deposit stream that is silent for so long is ended
    sites:
      site-a: {packets: 20000}                               # instead of the default's

A site that comes too fast is held up for a second at most, and then refused with the time to come back.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qis_connectors.errors import QisError
from qis_connectors.mistakes import line_of, read_mapping
from qis_connectors.router.bucket import Bucket
from qis_connectors.router.refusals import BusyError

HELD_SECONDS = 1.0
_Rate = Annotated[float, Field(gt=0)] | None


class QuotaFileError(QisError):
    """The file of quotas cannot be read, or says what is no quota."""


class Bounds(BaseModel):
    """Of one site."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    packets: _Rate = None
    bytes: _Rate = None
    streams: Annotated[int, Field(ge=1)] | None = None


class QuotaFile(BaseModel):
    """What the YAML file may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    default: Bounds = Bounds()
    sites: dict[str, Bounds] = {}
    burst: Annotated[float, Field(gt=0)] = 5.0
    idle: Annotated[float, Field(gt=0)] | None = None


UNBOUNDED = QuotaFile()


def load(path: Path) -> QuotaFile:
    """QuotaFileError, in one line that names file and line, where that cannot be."""
    content, node = read_mapping(path, "a file of quotas", QuotaFileError)
    try:
        return QuotaFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{path}:{line_of(node, first['loc'])}: {'.'.join(map(str, first['loc']))!r}"
        raise QuotaFileError(f"{where}: {first['msg'].lower()}") from None


class Quotas:
    """Those of one router. A site is whatever names one: an identity, a node_id, a host."""

    def __init__(self, said: QuotaFile = UNBOUNDED) -> None:
        self.idle = said.idle
        self.is_bounded = said.default != Bounds() or bool(said.sites)
        self._said = said
        self._lock = Lock()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._turns: dict[str, Lock] = {}
        self._streams: Counter[str] = Counter()

    def pass_by(self, sites: Iterable[str]) -> None:
        """Before anything of these sites is taken: holds them up while they are over their rate; BusyError where that
        would be for longer than HELD_SECONDS, after so long: who comes back at once gains nothing.
        """
        if not self.is_bounded:
            return
        keys = [(site, kind) for site in sites for kind in ("packets", "bytes")]
        # Nobody's bucket is made here: a site is not known to be who it says it is yet.
        waits = [(bucket.wait(), *key) for key in keys if (bucket := self._buckets.get(key))]
        wait, site, kind = max(waits, default=(0.0, "", ""))
        if wait > 0:
            time.sleep(min(wait, HELD_SECONDS))
        if wait > HELD_SECONDS:
            rate = self._buckets[site, kind].rate
            left = wait - HELD_SECONDS
            raise BusyError(f"{site!r:.60} is over its quota of {rate:g} {kind} a second; try again in {left:.1f} s")

    def charge(self, site: str, packets: int, size: float) -> None:
        """For what was taken of a site."""
        if not self.is_bounded:
            return
        bounds = self._bounds(site)
        with self._lock:
            for kind, rate, amount in (("packets", bounds.packets, packets), ("bytes", bounds.bytes, size)):
                if rate is not None:
                    self._buckets.setdefault((site, kind), Bucket(rate, rate * self._said.burst)).take(amount)

    def turn(self, site: str) -> Lock:
        """What a site holds from `pass_by` to `charge` where these lie apart, or its streams would all pass at once.

        For sites that are known to be some: each has a lock for good.
        """
        return self._turns.setdefault(site, Lock())

    @contextmanager
    def streaming(self, site: str) -> Iterator[None]:
        """While a stream of the site is open; BusyError where it is one too many."""
        bound = self._bounds(site).streams
        if bound is None:
            yield
            return
        with self._lock:
            if self._streams[site] >= bound:
                raise BusyError(f"{bound} streams of {site!r:.60} are open, its quota; try again when one has ended")
            self._streams[site] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[site] -= 1
                self._streams += Counter()  # drops the zeros

    def _bounds(self, site: str) -> Bounds:
        default, own = self._said.default, self._said.sites.get(site)
        return default if own is None else default.model_copy(update=own.model_dump(exclude_none=True))
