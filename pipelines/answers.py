"""Answers over a packet table: binds the Delta table as `packets` and runs sql/ on it, in DuckDB or on Spark."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from pipelines.elections.record import newest
from pipelines.report import REPORTED, write_report
from pipelines.synthesize import synthesize
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable
from qis_connectors.errors import QisError
from qis_connectors.similarity import Definitions

SqlEngineName = Literal["duckdb", "spark"]


def answers_from(
    table: Path,
    names: Sequence[str] | None = None,
    engine: SqlEngineName = "duckdb",
    as_of: int | datetime | None = None,
    definitions: Definitions | None = None,
) -> dict[str, pa.Table]:
    """The answers `names` (None: all) over the packet table at `table`, by name.

    `as_of`: over the packets that were there at that Delta version, or at that time. `definitions`: by which sites are
    similar (None: the shipped ones). Raises PacketTableError where
    there is no packet table or no such version, SynthesisError for a name that no file of sql/ has, EngineError where
    Spark is asked for and cannot run.
    """
    return answers_over(PacketTable(table, as_of=as_of), names, engine, definitions=definitions)


def answers_over(
    snapshot: PacketTable,
    names: Sequence[str] | None = None,
    engine: SqlEngineName = "duckdb",
    addresses: Sequence[str] | None = None,
    definitions: Definitions | None = None,
) -> dict[str, pa.Table]:
    """The same over one snapshot, and only over the packets at `addresses` (None: at all)."""
    if engine == "spark":
        return _on_spark(snapshot, names, addresses, definitions)
    with duckdb.connect() as connection:
        packets = snapshot.relation(connection)
        if addresses is not None:
            # Constants, which the reader of the files applies, five times as fast as a join behind it.
            packets = packets.filter(
                duckdb.ColumnExpression("address").isin(*map(duckdb.ConstantExpression, addresses))
            )
        packets.create_view("packets")
        return synthesize(connection, names, definitions)


def report_from(table: Path, out: Path, plots: Path | None = None) -> Path:
    """The HTML report on the packet table at `table`, written to `out`; packets and answers are of one version. The
    election, if there was one, is the newest.

    Its plots are also written to the folder `plots`, each as SVG and PNG.
    """
    snapshot = PacketTable(table)
    with duckdb.connect() as connection:
        packets = snapshot.relation(connection).to_arrow_table()
    return write_report(
        answers_over(snapshot, REPORTED),
        packets,
        out,
        table_version=snapshot.version,
        plots=plots,
        elections=newest(table),
    )


def _on_spark(
    snapshot: PacketTable,
    names: Sequence[str] | None,
    addresses: Sequence[str] | None,
    definitions: Definitions | None,
) -> dict[str, pa.Table]:
    from pipelines.engine import EngineError, spark_is_here, spark_session

    if missing := spark_is_here():
        raise EngineError(f"engine spark: {missing}; --engine duckdb works without")
    # A session of its own: its relations are nobody else's.
    session = spark_session().newSession()
    if snapshot.files:
        packets = session.read.parquet(*snapshot.files)
    else:
        packets = session.createDataFrame(PACKET_TABLE_SCHEMA.empty_table())
    if addresses is not None:
        wanted = session.createDataFrame(pa.table({"address": pa.array(addresses, pa.string())}))
        packets = packets.join(wanted, "address", "left_semi")
    packets.createOrReplaceTempView("packets")
    return synthesize(session, names, definitions)


def moment(text: str) -> int | datetime:
    """What `--as-of` names: a version of the packet table, or a time in ISO form."""
    if text.isdecimal():
        return int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise QisError(f"--as-of {text!r} is neither a version (7) nor a time (2026-01-31T12:00)") from None
