"""A Delta table that only grows: what is written in it stays as it was written, and Delta refuses anything else."""

from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from qis_connectors.delta import PacketTableError, WriteConflictError

_APPENDS = "appends"


class AppendOnlyTable:
    """One snapshot of the table of `schema` at `path`, which the first append makes.

    Raises PacketTableError where there is something else.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        try:
            self._table = DeltaTable(path) if path.exists() else None
        except DeltaError as error:
            raise PacketTableError(f"table {path} cannot be opened: {str(error).splitlines()[0]}") from None
        names = [] if self._table is None else [field.name for field in self._table.schema().fields]
        if self._table is not None and names != schema.names:
            raise PacketTableError(f"{path} has not the columns {', '.join(schema.names)}")

    def rows(self) -> pa.Table:
        if self._table is None:
            return self.schema.empty_table()
        return self._table.to_pyarrow_table().cast(self.schema)

    def append(self, rows: pa.Table) -> None:
        """Add `rows` in one commit; WriteConflictError, having written nothing, where another writer came first."""
        number = 0 if self._table is None else self._table.transaction_version(_APPENDS) or 0
        try:
            write_deltalake(
                self._table or self.path,
                rows.cast(self.schema),
                mode="append" if self._table else "error",
                configuration=None if self._table else {"delta.appendOnly": "true"},
                commit_properties=CommitProperties(app_transactions=[Transaction(_APPENDS, number + 1)]),
            )
        except (CommitFailedError, FileExistsError) as error:
            raise WriteConflictError(f"table {self.path} was written by somebody else just now") from error
        self._table = DeltaTable(self.path)
