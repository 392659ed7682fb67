"""What a depositor's packets pass on their way in: its quota, and where sites have keys their signatures."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from qis_connectors.keys import PublicKeys
from qis_connectors.router.quotas import Quotas
from qis_connectors.signing import verify


@dataclass
class Entry:
    """Of one router: no `keys`, no signatures are asked for."""

    keys: PublicKeys | None = None
    quotas: Quotas = field(default_factory=Quotas)

    @contextmanager
    def stream(self, caller: str, *, is_proved: bool) -> Iterator["Depositor"]:
        """One stream of deposits; `caller` is an identity that is proved, or no more than a host."""
        with self.quotas.streaming(caller):
            yield Depositor(self, caller, self.keys if not is_proved else None)


@dataclass(frozen=True)
class Depositor:
    """Whose quota is used: the caller's, or with `names` the sites' that have signed the packets."""

    entry: Entry
    caller: str
    names: PublicKeys | None

    @property
    def verifies(self) -> bool:
        return self.entry.keys is not None

    def enter(self, packets: int, size: int) -> None:
        """With a batch that has come and that nobody has looked at; BusyError where the caller's quota is used up."""
        if self.names is None:
            self.entry.quotas.pass_by([self.caller])
            self.entry.quotas.charge(self.caller, packets, size)

    def check(self, packets: pa.RecordBatch, size: int) -> None:
        """Complete packets; SignatureError on the first bad signature, BusyError where a site's quota is used up."""
        if self.entry.keys is None:
            return
        sites = Counter(packets["node_id"].to_pylist()) if self.names else Counter[str]()
        self.entry.quotas.pass_by(sites)
        verify(packets, self.entry.keys)
        # Only now: nobody uses up another site's quota by its name.
        for site, rows in sites.items():
            self.entry.quotas.charge(site, rows, size * rows / packets.num_rows)
