"""What a log remembers of its nodes' chains, and which packet contradicts what it has stored.

Of every signed packet three ids of 16 bytes are in the packet index, beside its packet_id: its place (node, sequence),
its place with its link, and the place before it with the link it names as previous. They tell, in the index's memory
and at its cost, whether a sequence was used before, for the same packet or another, and whether neighbours agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import pyarrow as pa

from qis_connectors import chain
from qis_connectors.chain import Place
from qis_connectors.packet import PacketError

ID_BYTES = 16
_NOTHING = bytes(ID_BYTES)


class ChainError(PacketError):
    """A packet contradicts one of its node: `packet` is its one row, `rival` that one's sequence. The other is stored,
    or came in the same batch: then it is `beside`.
    """

    def __init__(self, field: str, reason: str, row: int, packet: pa.RecordBatch, rival: int) -> None:
        super().__init__(field, reason, row)
        self.packet, self.rival = packet, rival
        self.beside: pa.RecordBatch | None = None


class EquivocationError(ChainError):
    """The node has signed another packet at this sequence."""


class BrokenChainError(ChainError):
    """The previous packet that is named, or the following one's, is not the one stored."""


@dataclass
class Chains:
    """One look at packets on their way into the log. `holds` says of ids, one after the other, which are in the index;
    where `is_strict` a packet that contradicts what is stored is refused.

    `gaps` counts packets whose previous one was not there.
    """

    holds: Callable[[bytes], Sequence[bool]]
    is_strict: bool
    gaps: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def ids(self, packets: pa.RecordBatch, places: Sequence[Place | None]) -> list[bytes]:
        """What is to be remembered of each of these complete packets, in this order; empty for unsigned ones.

        Raises ChainError, with its row, on the first that contradicts what is stored or came in an earlier call.
        """
        if not any(places):
            return [b""] * len(places)
        found, gaps = [], 0
        asked = [_questions(place) if place else [] for place in places]
        known = iter(self.holds(b"".join(b"".join(ids) for ids in asked)))
        stored = {one for ids in asked for one, is_known in zip(ids, known, strict=False) if is_known} | self._seen
        for row, (place, ids) in enumerate(zip(places, asked, strict=True)):
            if place is None:
                found.append(b"")
                continue
            if self.is_strict:
                try:
                    _check(place, ids, stored, packets.slice(row, 1), row)
                except ChainError as error:
                    error.beside = _beside(packets, places[:row], place.node_id, error.rival)
                    raise
            own, linked, before, named, _ = ids
            gaps += before != _NOTHING and before not in stored and own not in stored
            told = [own, linked, *([named] if before != _NOTHING else [])]
            stored.update(told)
            found.append(b"".join(told))
        self._seen |= stored
        self.gaps += gaps
        return found


def remembered(packets: pa.RecordBatch) -> bytes:
    """The ids of all of these stored packets that are signed."""
    chains = Chains(lambda packed: [False] * (len(packed) // ID_BYTES), is_strict=False)
    return b"".join(chains.ids(packets, chain.places(packets)))


def _questions(place: Place) -> list[bytes]:
    """Ids of: its place, with its link; the place before, with the link it names; the place behind."""
    own = _at(place.node_id, place.sequence)
    before = _at(place.node_id, place.sequence - 1) if place.sequence > 1 else _NOTHING
    return [
        own,
        _linked(own, place.link),
        before,
        _linked(before, place.previous),
        _at(place.node_id, place.sequence + 1),
    ]


def _check(place: Place, ids: list[bytes], stored: set[bytes], packet: pa.RecordBatch, row: int) -> None:
    own, linked, before, named, behind = ids
    if own in stored:
        if linked not in stored:
            reason = f"{place.sequence} was used by {place.node_id!r:.60} for another packet: both are kept as evidence"
            raise EquivocationError("sequence", reason, row, packet, place.sequence)
    elif before in stored and named not in stored:
        reason = f"names another previous packet than the one stored as sequence {place.sequence - 1}"
        raise BrokenChainError("signature", reason, row, packet, place.sequence - 1)
    elif behind in stored and linked not in stored:
        reason = f"is not of the packet that the one stored as sequence {place.sequence + 1} names as its previous"
        raise BrokenChainError("signature", reason, row, packet, place.sequence + 1)


def _beside(
    packets: pa.RecordBatch, places: Sequence[Place | None], node_id: str, sequence: int
) -> pa.RecordBatch | None:
    rows = (row for row, one in enumerate(places) if one and (one.node_id, one.sequence) == (node_id, sequence))
    first = next(rows, None)
    return None if first is None else packets.slice(first, 1)


def _at(node_id: str, sequence: int) -> bytes:
    return sha256(b"at %d " % sequence + node_id.encode()).digest()[:ID_BYTES]


def _linked(place: bytes, link: bytes) -> bytes:
    return sha256(b"link" + place + link).digest()[:ID_BYTES]
