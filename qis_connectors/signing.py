"""Signed packets: a site signs what leaves it, in the order in which it leaves; anybody checks it with its public key.

Beside the site's key lies its chain (NODE.chain, SQLite): every packet that was signed, with its sequence and link. It
is on the disk before a signed packet is handed out, and a packet that is there is signed again as it was: what is sent
once more after a crash is the same packet. It must not be lost or set back: the site would then sign other packets at
sequences it has used, which is what a router calls equivocation.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qis_connectors import chain
from qis_connectors.chain import Place
from qis_connectors.keys import KeyFileError, PublicKeys, key_id, secret_key
from qis_connectors.outgoing import complete
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.packet_id import canonical_forms

WAIT_SECONDS = 60.0
"""For another process of the site that is signing."""

_ROOM = {"sequence": 1, "signature": bytes(chain.SIGNATURE_BYTES), "key_id": "0" * 16}
_TABLES = """
CREATE TABLE IF NOT EXISTS node(id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS packet(sequence INTEGER PRIMARY KEY, packet_id TEXT NOT NULL UNIQUE, link BLOB NOT NULL);
"""


class SignatureError(PacketError):
    """A packet is not signed by who it says it is of."""


def sign(packets: pa.Table | pa.RecordBatch, key: Path) -> pa.Table:
    """The packets with sequence, signature and key_id, complete and in their order.

    `key` is the secret key of the one node they are of, or a folder that has a NODE.key for each. Raises PacketError
    where a packet is not valid or one key is given for two nodes, KeyFileError where a key or a chain cannot be used.
    """
    # With a signature's room, so that no packet takes a place in a chain and turns out too large for the wire.
    whole = complete(_with(complete(packets), _ROOM))
    nodes = whole["node_id"].combine_chunks()
    parts = []
    for node_id in pc.unique(nodes).to_pylist():
        rows = pc.indices_nonzero(pc.equal(nodes, node_id))
        own = key / f"{quote(node_id, safe='')}.key" if key.is_dir() else key
        parts.append((rows, _signed(whole.take(rows), node_id, own)))
    if not parts:
        return whole
    order = pc.sort_indices(pa.concat_arrays([rows for rows, _ in parts]))
    return pa.concat_tables([part for _, part in parts]).take(order)


def verify(packets: pa.RecordBatch, keys: PublicKeys) -> list[Place]:
    """Where complete packets stand; SignatureError on the first that is not signed as it should be."""
    places = chain.places(packets)
    for fault in faults(packets, places, keys):
        raise fault
    return [place for place in places if place]


def faults(packets: pa.RecordBatch, places: Sequence[Place | None], keys: PublicKeys) -> Iterator[SignatureError]:
    """What is wrong with the signatures of complete packets at these places: each one's first fault, with its row.

    A signature tells that something of a packet was altered, not which field: `signature` is named then.
    """
    columns = (packets[name].to_pylist() for name in ("node_id", "sequence", "signature", "key_id"))
    rows = zip(zip(*columns, strict=True), places, strict=True)
    for row, ((node_id, sequence, signature, fingerprint), place) in enumerate(rows):
        if place is None:
            yield _incomplete(sequence, signature, row)
        elif (key := keys.find(node_id, fingerprint)) is None:
            whose = "a key of" if keys.knows(node_id) else "known: there is no key of"
            yield SignatureError("key_id", f"{fingerprint!r:.40} is not {whose} {node_id!r:.60}", row)
        elif (sequence == 1) != (place.previous == chain.START):
            yield SignatureError("signature", "names a previous packet at sequence 1, or none behind it", row)
        else:
            try:
                key.verify(signature[chain.LINK_BYTES :], place.message)
            except InvalidSignature:
                reason = f"is not of this packet by {node_id!r:.60}: a field of it was altered"
                yield SignatureError("signature", reason, row)


def _incomplete(sequence: int | None, signature: bytes | None, row: int) -> SignatureError:
    if signature is None:
        return SignatureError("signature", "is missing: this router takes signed packets only", row)
    if len(signature) != chain.SIGNATURE_BYTES:
        reason = f"is {len(signature)} bytes long, not {chain.SIGNATURE_BYTES}: previous link and Ed25519 signature"
        return SignatureError("signature", reason, row)
    return SignatureError("sequence", f"is {sequence}; a signed packet has one from 1", row)


def _signed(packets: pa.Table, node_id: str, path: Path) -> pa.Table:
    key = secret_key(path)
    try:
        with closing(sqlite3.connect(path.with_suffix(".chain"), WAIT_SECONDS, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = EXTRA")
            database.executescript(_TABLES)
            database.execute("BEGIN IMMEDIATE")
            _check_node(database, node_id, path)
            columns = _sign_all(database, packets, key)
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise KeyFileError(f"{path.with_suffix('.chain')}: cannot be used ({error})") from None
    return _with(packets, {**columns, "key_id": key_id(key.public_key())})


def _with(packets: pa.Table, values: Mapping[str, object]) -> pa.Table:
    """The packets with these fields: a list with a value each, or one for all."""
    for name, given in values.items():
        field = OUTCOME_PACKET_SCHEMA.field(name)
        each = given if isinstance(given, list) else [given] * packets.num_rows
        packets = packets.set_column(packets.schema.get_field_index(name), field, pa.array(each, field.type))
    return packets


def _check_node(database: sqlite3.Connection, node_id: str, path: Path) -> None:
    owner = database.execute("SELECT id FROM node").fetchone()
    if owner is None:
        database.execute("INSERT INTO node VALUES (?)", (node_id,))
    elif owner[0] != node_id:
        raise PacketError("node_id", f"{node_id!r:.60} is not {owner[0]!r:.60}, whose key {path.name} is")


def _sign_all(database: sqlite3.Connection, packets: pa.Table, key: Ed25519PrivateKey) -> dict[str, list[object]]:
    """`sequence` and `signature` of each packet, which the chain has when this returns."""
    last = database.execute("SELECT sequence, link FROM packet ORDER BY sequence DESC LIMIT 1").fetchone()
    sequence, link = last or (0, chain.START)
    sequences: list[object] = []
    signatures: list[object] = []
    for batch in packets.to_batches():
        for packet_id, form in zip(batch["packet_id"].to_pylist(), canonical_forms(batch), strict=True):
            place = _place(database, packet_id)
            if place is None:
                sequence, before = sequence + 1, link
                link = chain.link(chain.message(form, sequence, before))
                database.execute("INSERT INTO packet VALUES (?, ?, ?)", (sequence, packet_id, link))
                place = sequence, before
            sequences.append(place[0])
            signatures.append(place[1] + key.sign(chain.message(form, *place)))
    return {"sequence": sequences, "signature": signatures}


def _place(database: sqlite3.Connection, packet_id: str) -> tuple[int, bytes] | None:
    """Sequence and previous link of a packet that was signed before."""
    found = database.execute(
        "SELECT this.sequence, before.link FROM packet this LEFT JOIN packet before "
        "ON before.sequence = this.sequence - 1 WHERE this.packet_id = ?",
        (packet_id,),
    ).fetchone()
    return found and (found[0], found[1] or chain.START)
