"""What a router's operator sees of it; for the `stats` action and for the metrics."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from qis_connectors.address import Pattern
from qis_connectors.router.audit_log import AuditLog
from qis_connectors.router.calls import Calls
from qis_connectors.router.inflight import InFlight
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.view import View
from qis_connectors.router.quarantine import Quarantine
from qis_connectors.router.refusals import Refusals
from qis_connectors.router.traffic import Traffic

RECOUNT_SECONDS = 60.0


@dataclass(frozen=True)
class Holdings:
    """What the store holds, as of the cursor `head`; `bytes` are those of the packets."""

    head: int
    packets: int
    addresses: int
    bytes: int


class Status:
    """Of one router, since it began."""

    def __init__(self, log: PacketLog, audit: AuditLog) -> None:
        self.log = log
        self.audit = audit
        self.quarantine = Quarantine(log)
        self.traffic = Traffic()
        self.refusals = Refusals(audit.record)
        self.calls = Calls(self.refusals)
        self.in_flight = InFlight()
        self._began = monotonic()
        self._holdings = Holdings(-1, 0, 0, 0)
        self._counted = self._began

    def holdings(self) -> Holdings:
        """Counted anew where something was stored since, or may have been let go."""
        head, known = self.log.head, self._holdings
        if known.head != head or monotonic() - self._counted > RECOUNT_SECONDS:
            self._counted = monotonic()
            found = View(self.log, Pattern("*")).summaries()
            packets, size = sum(one.packets for one in found), sum(one.bytes for one in found)
            known = self._holdings = Holdings(head, packets, len(found), size)
        return known

    def disk_bytes(self) -> int:
        """Of all files in the store's folder, those of open transactions too."""
        return sum(_sizes(self.log.store.folder))

    def damaged(self) -> int:
        """Records that were read since the router began and are not what was written."""
        return self.log.store.packs.damaged

    def stats(self) -> dict[str, Any]:
        """The body of the `stats` action."""
        holdings, total = self.holdings(), self.traffic.total()
        refused: Counter[str] = Counter()
        for (_, reason), count in self.refusals.counts().items():
            refused[reason] += count
        return {
            "store": self.log.store.identity,
            "cursor": holdings.head,
            "packets": holdings.packets,
            "addresses": holdings.addresses,
            "bytes": holdings.bytes,
            "disk_bytes": self.disk_bytes(),
            "damaged_records": self.damaged(),
            "uptime_seconds": round(monotonic() - self._began, 1),
            "streams": self.calls.open(),
            "queued_batches": total.batches - total.answered_batches,
            "queued_bytes": total.bytes_in - total.answered_bytes,
            "stored": total.stored,
            "duplicates": total.duplicates,
            "refused": refused,
            "gaps": self.log.gaps,
            "quarantined": self.quarantine.count,
            "audit": {"lines": self.audit.lines, "head": self.audit.head},
        }


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield (Path(path) / name).stat().st_size
            except FileNotFoundError:  # a transaction ended just now
                continue
