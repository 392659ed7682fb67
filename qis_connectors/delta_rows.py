"""A Delta table of whatever columns, for engines that read its Parquet files themselves: no jar, no extension."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from qis_connectors.errors import QisError


class DeltaRowsError(QisError):
    """The table cannot be opened, or reading it takes more than its Parquet files."""


class DeltaRows:
    """The newest version of the table in the folder `path`; `dataset` is all of it as a pyarrow dataset.

    DeltaRowsError where it asks for more than files, such as deletion vectors.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._table = DeltaTable(path)
            self.dataset = self._table.to_pyarrow_dataset()
        except DeltaError as error:
            why = str(error).splitlines()[0]
            raise DeltaRowsError(
                f"{path}: this Delta table cannot be read file by file; --engine polars may: {why}"
            ) from None

    @property
    def files(self) -> list[str]:
        return self._table.file_uris()

    @property
    def folders(self) -> pa.Table:
        """What the folders are named for: a row a file, its name (no two have one) under `qis file` and the values."""
        actions = pa.table(self._table.get_add_actions(flatten=True))
        partitions = [name for name in actions.column_names if name.startswith("partition.")]
        of = {name.removeprefix("partition."): actions[name] for name in partitions}
        names = [unquote(path).rsplit("/", 1)[-1] for path in actions["path"].to_pylist()]
        return pa.table({"qis file": pa.array(names, pa.string()), **of})

    @property
    def spark_schema(self) -> dict[str, Any]:
        """Its columns and types as Spark's StructType.fromJson takes them: Delta's own form."""
        schema: dict[str, Any] = json.loads(self._table.schema().to_json())
        return schema
