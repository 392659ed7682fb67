"""The chain of a node: each signed packet names its place and the one before it.

A packet's message is a constant, the link of the node's previous packet (32 bytes, zeros before the first), the
packet's sequence (int64, little-endian) and its canonical form (packet_id.py). Its link is the SHA-256 of its message,
so that a link stands for all packets up to there. The field `signature` holds the previous link and the Ed25519
signature (64 bytes) of the message: one packet can be checked by itself, two neighbours against each other.
"""

from dataclasses import dataclass
from hashlib import sha256
from struct import pack

import pyarrow as pa

from qis_connectors.packet_id import canonical_forms

START = bytes(32)
"""The link before a node's first packet, whose sequence is 1."""

LINK_BYTES = len(START)
SIGNATURE_BYTES = LINK_BYTES + 64
_CONSTANT = b"qis packet 1\0"


@dataclass(frozen=True)
class Place:
    """Where a packet stands in its node's chain, and what was signed."""

    node_id: str
    sequence: int
    previous: bytes
    message: bytes

    @property
    def link(self) -> bytes:
        return link(self.message)


def link(message: bytes) -> bytes:
    """What the next packet names as its previous one."""
    return sha256(message).digest()


def message(form: bytes, sequence: int, previous: bytes) -> bytes:
    """What is signed of a packet, given its canonical form."""
    return _CONSTANT + previous + pack("<q", sequence) + form


def places(packets: pa.RecordBatch) -> list[Place | None]:
    """Of complete packets; None where a packet has no signature, or none of the right length at a sequence from 1."""
    if packets["signature"].null_count == packets.num_rows:
        return [None] * packets.num_rows
    rows = zip(*(packets[name].to_pylist() for name in ("node_id", "sequence", "signature")), strict=True)
    return [
        Place(node_id, sequence, signature[:LINK_BYTES], message(form, sequence, signature[:LINK_BYTES]))
        if signature is not None and len(signature) == SIGNATURE_BYTES and (sequence or 0) >= 1
        else None
        for (node_id, sequence, signature), form in zip(rows, canonical_forms(packets), strict=True)
    ]
