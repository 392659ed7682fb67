"""Answers over a packet table: binds the Delta table as `packets` and runs sql/ on it, in DuckDB."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from pipelines.report import write_report
from pipelines.synthesize import synthesize
from qis_connectors.delta import PacketTable

REPORTED = ("effects", "pooled", "leave_one_out", "robust")


def answers_from(table: Path, names: Sequence[str] | None = None) -> dict[str, pa.Table]:
    """The answers `names` (None: all) over the packet table at `table`, by name.

    Raises PacketTableError where there is no packet table and SynthesisError for a name that no file of sql/ has.
    """
    return _answers(PacketTable(table), names)


def report_from(table: Path, out: Path) -> Path:
    """The HTML report on the packet table at `table`, written to `out`; packets and answers are of one version."""
    snapshot = PacketTable(table)
    with duckdb.connect() as connection:
        packets = snapshot.relation(connection).to_arrow_table()
    return write_report(_answers(snapshot, REPORTED), packets, out, table_version=snapshot.version)


def _answers(snapshot: PacketTable, names: Sequence[str] | None) -> dict[str, pa.Table]:
    with duckdb.connect() as connection:
        snapshot.relation(connection).create_view("packets")
        return synthesize(connection, names)
