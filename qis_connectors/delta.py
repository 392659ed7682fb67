"""The packet table: every packet a reader has pulled, in Delta, each packet once.

A commit carries the router's store identity and the cursor it reached as a Delta transaction, so that the packets
and the place to go on from are one atomic write, and two writers that both read from the same place cannot both win.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

PACKET_TABLE_SCHEMA = pa.schema([pa.field("address", pa.string()), *OUTCOME_PACKET_SCHEMA])
_PARTITION = "domain"


class PacketTableError(QisError):
    """No packet table there, or not one of ours."""


class WriteConflictError(QisError):
    """Somebody else has written since this snapshot was opened; open it again and repeat."""


class PacketTable:
    """One snapshot of the table at `path`: its newest, or the one that stood `as_of` a version or a time (UTC where it
    names no zone); `create` allows that there is none yet."""

    def __init__(self, path: Path, *, create: bool = False, as_of: int | datetime | None = None) -> None:
        self.path = path
        self._table = None if create and not path.exists() else _open(path, as_of)

    @property
    def version(self) -> int | None:
        """The Delta version of this snapshot; None before the first append."""
        return None if self._table is None else self._table.version()

    @property
    def id(self) -> str | None:
        """What Delta calls this table, whatever its path; None before the first append."""
        return None if self._table is None else str(self._table.metadata().id)

    @property
    def files(self) -> list[str]:
        """The Parquet files of this snapshot."""
        return [] if self._table is None else self._table.file_uris()

    def addresses_since(self, version: int) -> list[str] | None:
        """The addresses that packets were added at after `version` of this table.

        None where that cannot be told: files were rewritten or taken away since, or that version is no longer known.
        """
        try:
            before = set(DeltaTable(self.path, version=version).file_uris())
        except (DeltaError, OSError):
            return None
        now = set(self.files)
        if before - now:
            return None
        if not now - before:
            return []
        with duckdb.connect() as connection:
            added = connection.sql(
                "SELECT DISTINCT address FROM read_parquet($files) ORDER BY address",
                params={"files": sorted(now - before)},
            )
            return [str(address) for (address,) in added.fetchall()]

    def cursor(self, source: str) -> int | None:
        """How far `source` had been read; None: not at all."""
        return None if self._table is None else self._table.transaction_version(source)

    def append(self, packets: pa.Table, source: str, cursor: int) -> None:
        """Add `packets` (PACKET_TABLE_SCHEMA) and note that `source` has been read up to `cursor`, in one commit.

        Raises WriteConflictError, having written nothing, where another writer came first.
        """
        try:
            write_deltalake(
                self._table or self.path,
                packets.select(PACKET_TABLE_SCHEMA.names).cast(PACKET_TABLE_SCHEMA),
                mode="append" if self._table else "error",
                partition_by=[_PARTITION],
                commit_properties=CommitProperties(app_transactions=[Transaction(source, cursor)]),
            )
        except (CommitFailedError, FileExistsError) as error:
            raise WriteConflictError(f"packet table {self.path} was written by somebody else just now") from error
        self._table = DeltaTable(self.path)

    def tidy(self, keep: timedelta) -> tuple[int, int]:
        """Writes small files together and deletes those no longer part of the table for `keep`; how many of each.

        The packets are the same, and how far each source has been read; `as_of` reaches back as far as `keep`.
        Raises WriteConflictError where another writer came first.
        """
        if self._table is None:
            return 0, 0
        try:
            rewritten = self._table.optimize.compact()["numFilesRemoved"]
        except CommitFailedError as error:
            raise WriteConflictError(f"packet table {self.path} was written by somebody else just now") from error
        gone = self._table.vacuum(int(keep / timedelta(hours=1)), dry_run=False)
        self._table = DeltaTable(self.path)
        return int(rewritten), len(gone)

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The snapshot as a DuckDB relation with the columns of PACKET_TABLE_SCHEMA, in that order."""
        if not (files := self.files):
            return connection.from_arrow(PACKET_TABLE_SCHEMA.empty_table())
        # The folder name carries the partition column, and DuckDB would guess a number or a date from it.
        return connection.sql(
            f"SELECT {', '.join(PACKET_TABLE_SCHEMA.names)} "
            f"FROM read_parquet($files, hive_partitioning = true, hive_types = {{'{_PARTITION}': VARCHAR}})",
            params={"files": files},
        )


def _open(path: Path, as_of: int | datetime | None) -> DeltaTable:
    if not DeltaTable.is_deltatable(str(path)):
        raise PacketTableError(f"no packet table at {path}; qis accumulate makes one")
    try:
        table = DeltaTable(path)
        if as_of is not None:
            first, newest = 0, table.version()
            if isinstance(as_of, int) and not first <= as_of <= newest:
                raise PacketTableError(f"packet table {path} has versions {first} to {newest}, not {as_of}")
            table.load_as_version(as_of if isinstance(as_of, int) or as_of.tzinfo else as_of.replace(tzinfo=UTC))
    except DeltaError as error:
        raise PacketTableError(f"packet table {path} cannot be opened: {str(error).splitlines()[0]}") from None
    missing = set(PACKET_TABLE_SCHEMA.names) - {field.name for field in table.schema().fields}
    if missing:
        raise PacketTableError(f"{path} is not a packet table: it has no column {min(missing)!r}")
    return table
