"""What packets pass on their way in: the quota of who sends them, and where sites have keys their signatures."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from qis_connectors import packet
from qis_connectors.chain import Place
from qis_connectors.keys import PublicKeys
from qis_connectors.router.packet_log.admission import Check
from qis_connectors.router.quotas import Quotas
from qis_connectors.signing import verify

TOGETHER_ROWS = 2048
TOGETHER_SIGNED_ROWS = 64
"""Fewer, for a signature costs more than all else of a packet: nobody waits long for others'."""


@dataclass(frozen=True)
class Entry:
    """Of one router: no `keys`, no signatures are asked for.

    Quotas are the callers' where the router knows who they are (`knows_callers`); else, with keys, those of the nodes
    that have signed; else the hosts'.
    """

    keys: PublicKeys | None = None
    quotas: Quotas = field(default_factory=Quotas)
    knows_callers: bool = False

    @property
    def together_rows(self) -> int:
        """Batches up to here are checked by the log's thread, with what else has come; above, by the stream's own.

        Where nodes pay for what was checked, nobody may have more under way than that.
        """
        if self.keys is None:
            return TOGETHER_ROWS
        return 0 if self.quotas.is_bounded and self._goes_by_nodes else TOGETHER_SIGNED_ROWS

    @property
    def check(self) -> Check | None:
        return None if self.keys is None else self._check

    def enter(self, caller: str, batch: pa.RecordBatch, size: int) -> None:
        """With a batch that has come and that nobody has looked at; BusyError where the quota is used up."""
        if not self.quotas.is_bounded:
            return
        if self._goes_by_nodes:
            packet.validate(batch)
            named = "node_id" in batch.schema.names and batch.schema.field("node_id").type == pa.string()
            self.quotas.pass_by(batch["node_id"].unique().to_pylist() if named else [])
        else:
            self.quotas.pass_by([caller])
            self.quotas.charge(caller, batch.num_rows, size)

    def _check(self, packets: pa.RecordBatch) -> list[Place]:
        assert self.keys is not None
        places = verify(packets, self.keys)
        if self.quotas.is_bounded and self._goes_by_nodes:
            # Only now: nobody uses up another site's quota by its name.
            share = packets.nbytes / max(1, packets.num_rows)
            for node_id, rows in Counter(place.node_id for place in places).items():
                self.quotas.charge(node_id, rows, share * rows)
        return places

    @property
    def _goes_by_nodes(self) -> bool:
        return self.keys is not None and not self.knows_callers
