"""Router -> packet table: what is new at the router is appended to the Delta table, each packet once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from pipelines.engine import delta_session
from qis_connectors.client import RouterClient
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable, WriteConflictError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, wire_bytes

ATTEMPTS = 5


@dataclass(frozen=True)
class Accumulated:
    """`new` packets were appended; the table now holds `total`, at Delta version `version`."""

    new: int
    total: int
    version: int


def accumulate(
    router: str,
    table: Path,
    pattern: str = "*",
    engine: Literal["duckdb", "spark"] = "duckdb",
    identity: Path | str | None = None,
) -> Accumulated:
    """Append what the router has at `pattern` (an address, a prefix or a glob) and the table has not.

    The place to go on from is kept in the table, in the same commit as the packets, so that an interrupted call
    appends either all of its packets or none, and the next one goes on from there. Where another process appends at
    the same time this one starts over from what that one wrote. EngineError where Spark, or Delta on it, is not there.
    """
    append = _append_on_spark if engine == "spark" else _append
    with RouterClient(router, identity) as client:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return append(client, table, pattern)
            except WriteConflictError:
                if attempt == ATTEMPTS:
                    raise
    raise AssertionError("the last attempt returns or raises")


def _append(client: RouterClient, table: Path, pattern: str) -> Accumulated:
    snapshot = PacketTable(table, create=True)
    source = f"{client.store}:{pattern}"
    since, reached = snapshot.cursor(source), client.head()
    with duckdb.connect() as connection:
        known = snapshot.relation(connection).select("address", "packet_id").to_arrow_table()
        new = _unknown(connection, _read(client, pattern, since), known)
    # Nothing new and the table is there: a commit would say nothing.
    if new.num_rows or snapshot.version is None:
        snapshot.append(new, source, reached)
    assert snapshot.version is not None
    return Accumulated(new.num_rows, known.num_rows + new.num_rows, snapshot.version)


def _append_on_spark(client: RouterClient, table: Path, pattern: str) -> Accumulated:
    spark = delta_session()
    from qis_connectors.spark.packet_table import append_new

    before = _count(table)
    append_new(spark, client, table, pattern)
    after, version = _count(table), PacketTable(table).version
    assert version is not None
    return Accumulated(after - before, after, version)


def _count(table: Path) -> int:
    with duckdb.connect() as connection:
        return len(PacketTable(table, create=True).relation(connection))


def _read(client: RouterClient, pattern: str, since: int | None) -> pa.Table:
    """The packets stored after `since`, with their addresses.

    A packet may lie deeper than its domain and problem type say, so each address is read by itself.
    """
    parts = [PACKET_TABLE_SCHEMA.empty_table()]
    for address in client.addresses(pattern)["address"].to_pylist():
        packets = client.read(address, since=since).table
        parts.append(packets.add_column(0, "address", pa.repeat(pa.scalar(address, pa.string()), packets.num_rows)))
    return pa.concat_tables(parts)


def _unknown(connection: duckdb.DuckDBPyConnection, packets: pa.Table, known: pa.Table) -> pa.Table:
    """Those of `packets` whose (address, packet_id) is not in `known`."""
    connection.register("packets", packets)
    connection.register("known", known)
    found = connection.sql("FROM packets ANTI JOIN known USING (address, packet_id)").to_arrow_table()
    return found.cast(PACKET_TABLE_SCHEMA)


def traffic(table: Path) -> tuple[int, int]:
    """The records behind the packets of a table, which stayed where they are, and the bytes of the packets."""
    with duckdb.connect() as connection:
        packets = PacketTable(table).relation(connection).select(*OUTCOME_PACKET_SCHEMA.names).to_arrow_table()
    return sum(packets["sample_count"].to_pylist()), round(sum(wire_bytes(packets.to_pydict())))
