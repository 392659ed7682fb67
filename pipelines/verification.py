"""Packets anywhere, held against their sites' public keys: each signature, and each node's chain of packets."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.packet_file import read_packets
from qis_connectors import chain, packet
from qis_connectors.chain import Place
from qis_connectors.delta import PacketTable
from qis_connectors.keys import PublicKeys
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.signing import faults

BATCH_ROWS = 16_384
GAP = "gap"
_FINDINGS = pa.schema(
    [
        ("node_id", pa.string()),
        ("sequence", pa.int64()),
        ("packet_id", pa.string()),
        ("finding", pa.string()),
        ("detail", pa.string()),
    ]
)


@dataclass(frozen=True)
class Verification:
    """`findings` has a row each: node_id, sequence, packet_id, finding, detail. Of those all but the gaps are failures.

    finding: packet (it is none, or its id is not its content's), signature, equivocation (two packets at one sequence),
    chain (a packet names another previous one than there is), gap (packets that are not here; elsewhere they may be).
    """

    packets: int
    nodes: int
    findings: pa.Table

    @property
    def gaps(self) -> int:
        return self._kinds().count(GAP)

    @property
    def failures(self) -> int:
        return len(self._kinds()) - self.gaps

    def _kinds(self) -> list[str]:
        return list(self.findings["finding"].to_pylist())


@dataclass
class _Node:
    """How far a node's chain was followed: the links of all packets at its last sequence, and at the one before."""

    sequence: int = 0
    links: set[bytes] = field(default_factory=lambda: {chain.START})
    before: set[bytes] = field(default_factory=set)


def verify(source: Path, keys: Path) -> Verification:
    """Of a packet table (a Delta folder) or a file of packets. Raises QisError where either cannot be read."""
    known = PublicKeys(keys)
    nodes: dict[str, _Node] = {}
    findings: list[dict[str, Any]] = []
    packets = 0
    for batch in _in_order(source):
        packets += batch.num_rows
        for row, fault, place in _checked(batch, known):
            node = nodes.setdefault(row["node_id"] or "", _Node())
            told = [fault] if fault else list(_follow(node, place)) if place else []
            findings += [{**row, "finding": finding, "detail": detail} for finding, detail in told]
    return Verification(packets, len(nodes), pa.Table.from_pylist(findings, schema=_FINDINGS))


def evidence(entries: list[dict[str, Any]]) -> pa.Table:
    """All packets of a router's quarantine."""
    found = [entry[which] for entry in entries for which in ("refused", "stored") if entry[which]]
    rows = [{**one, "signature": bytes.fromhex(one["signature"])} for one in found]
    return pa.Table.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA)


def evidence_rows(entries: list[dict[str, Any]]) -> pa.Table:
    """A row an entry: whose, where in its chain, when and why it was refused, and both packet_ids."""
    names = ("node_id", "sequence", "refused", "stored", "at", "why")
    rows = [
        {
            "node_id": entry["refused"]["node_id"],
            "sequence": entry["refused"]["sequence"],
            "refused": entry["refused"]["packet_id"],
            "stored": entry["stored"] and entry["stored"]["packet_id"],
            "at": entry["at"],
            "why": entry["why"],
        }
        for entry in entries
    ]
    kinds = [(name, pa.int64() if name == "sequence" else pa.string()) for name in names]
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))


def _in_order(source: Path) -> Iterator[pa.RecordBatch]:
    """The packets node by node, by their sequence."""
    with duckdb.connect() as connection:
        if source.is_dir():
            packets = PacketTable(source).relation(connection)
        else:
            table = read_packets(source)
            for given in OUTCOME_PACKET_SCHEMA:
                if given.name not in table.column_names:
                    table = table.append_column(given, pa.nulls(table.num_rows, given.type))
            packets = connection.from_arrow(table)
        ordered = packets.select(*OUTCOME_PACKET_SCHEMA.names).order("node_id, sequence, packet_id")
        for batch in ordered.to_arrow_reader(BATCH_ROWS):
            yield from packet.conform(pa.Table.from_batches([batch])).combine_chunks().to_batches()


def _checked(
    batch: pa.RecordBatch, keys: PublicKeys
) -> Iterator[tuple[dict[str, Any], tuple[str, str] | None, Place | None]]:
    """Of each packet how it is called, what is wrong with it by itself, and its place."""
    wrong: dict[int, tuple[str, str]] = {}
    try:
        packet.complete(batch)
    except PacketError:
        for row in range(batch.num_rows):
            try:
                packet.complete(batch.slice(row, 1))
            except PacketError as error:
                wrong[row] = "packet", f"field {error.field!r}: {error.reason}"
    named = batch.select(["node_id", "sequence", "packet_id"]).to_pylist()
    yield from ((named[row], fault, None) for row, fault in wrong.items())
    rows = [row for row in range(batch.num_rows) if row not in wrong]
    good = batch.take(pa.array(rows, pa.int64()))
    places = chain.places(good)
    found = faults(good, places, keys)
    forged = {fault.row: ("signature", f"field {fault.field!r}: {fault.reason}") for fault in found}
    for at, (row, place) in enumerate(zip(rows, places, strict=True)):
        yield named[row], forged.get(at), place


def _follow(node: _Node, place: Place) -> Iterator[tuple[str, str]]:
    """What a packet says against those before it in its node's chain."""
    if place.sequence != node.sequence:
        first, last = node.sequence + 1, place.sequence - 1
        if first <= last:
            yield GAP, f"{last - first + 1} packets before it are not here: {first} to {last}"
        node.before = node.links if first > last else set()
        node.sequence, node.links = place.sequence, set()
    elif place.link in node.links:
        return  # the same packet, at another address
    else:
        yield "equivocation", f"another packet at sequence {place.sequence} is signed by the same node"
    if node.before and place.previous not in node.before:
        yield "chain", f"names another previous packet than the one at sequence {place.sequence - 1}"
    node.links.add(place.link)
