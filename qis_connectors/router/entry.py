"""What packets pass on their way in: the quota of who sends them, and where sites have keys their signatures."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import pyarrow as pa

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

        Where nodes pay, each stream waits for its own: nobody may have more under way than was paid for.
        """
        if self.keys is None:
            return TOGETHER_ROWS
        return 0 if self._nodes_pay else TOGETHER_SIGNED_ROWS

    @property
    def check(self) -> Check | None:
        """SignatureError on the first packet not signed as it should be, BusyError where a node has no quota left."""
        return None if self.keys is None else self._check

    def enter(self, caller: str, batch: pa.RecordBatch, size: int) -> None:
        """With a batch that has come and that nobody has looked at; BusyError where the caller's quota is used up."""
        if self.quotas.is_bounded and not self._nodes_pay:
            self.quotas.pass_by([caller])
            self.quotas.charge(caller, batch.num_rows, size)

    def _check(self, packets: pa.RecordBatch) -> list[Place]:
        assert self.keys is not None
        if not self._nodes_pay:
            return verify(packets, self.keys)
        nodes = Counter(packets["node_id"].to_pylist())
        with ExitStack() as stack:
            for node_id in sorted(filter(self.keys.knows, nodes)):
                stack.enter_context(self.quotas.turn(node_id))
            self.quotas.pass_by(nodes)
            places = verify(packets, self.keys)
            # Only now: nobody uses up another site's quota by its name alone.
            for node_id, rows in nodes.items():
                self.quotas.charge(node_id, rows, packets.nbytes * rows / packets.num_rows)
        return places

    @property
    def _nodes_pay(self) -> bool:
        return self.quotas.is_bounded and self.keys is not None and not self.knows_callers
