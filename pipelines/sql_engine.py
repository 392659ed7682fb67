"""What runs the statements of sql/: DuckDB on one machine, Spark on a cluster. Both are given the same text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import duckdb
import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Connection: TypeAlias = "duckdb.DuckDBPyConnection | SparkSession"

# Spark's names for what DuckDB calls otherwise. What both have under one name needs no line here.
_SPARK_NAMES = {
    "get_json_object(object, path)": "CASE WHEN json_valid(object) THEN json_extract_string(object, path) END",
    "json_object_keys(object)": "CASE WHEN json_valid(object) THEN json_keys(object) END",
    "explode(list)": "unnest(list)",
    "sequence(first, last)": "generate_series(first, last)",
    "get(list, position)": "list[position + 1]",
    "array_size(list)": "len(list)",
}


class SqlEngine(Protocol):
    """Relations by name, made of text that reads the ones made before."""

    def bind(self, name: str, table: pa.Table) -> None:
        """`name` stands for `table`."""

    def define(self, name: str, text: str) -> None:
        """`name` stands for the query `text`, run each time it is read."""

    def keep(self, name: str, text: str) -> None:
        """`name` stands for the rows of the query `text`, which is run once."""

    def step(self, name: str, text: str) -> None:
        """`name` stands for the rows of the query `text`, which reads `name` as it was before."""

    def is_settled(self, name: str) -> bool:
        """Whether no row of `name` has settled = false."""

    def table(self, name: str) -> pa.Table:
        """The rows of `name`, in the order its query gave them."""


def engine_on(connection: Connection) -> SqlEngine:
    """The engine that `connection` belongs to."""
    return DuckDB(connection) if isinstance(connection, duckdb.DuckDBPyConnection) else Spark(connection)


class DuckDB:
    """Relations are temporary tables and views of `connection`, and stay behind there."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        for name, text in _SPARK_NAMES.items():
            connection.execute(f"CREATE OR REPLACE TEMP MACRO {name} AS {text}")

    def bind(self, name: str, table: pa.Table) -> None:
        self._connection.register("bound", table)
        self.keep(name, "SELECT * FROM bound")
        self._connection.unregister("bound")

    def define(self, name: str, text: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {text}")

    def keep(self, name: str, text: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {text}")

    step = keep

    def is_settled(self, name: str) -> bool:
        return not self._connection.execute(f"SELECT 1 FROM {name} WHERE NOT settled LIMIT 1").fetchone()

    def table(self, name: str) -> pa.Table:
        return self._connection.table(name).to_arrow_table()


class Spark:
    """Relations are temporary views of `session`, kept where Spark keeps what it caches."""

    def __init__(self, session: SparkSession) -> None:
        self._session = session

    def bind(self, name: str, table: pa.Table) -> None:
        # Of a table whose first chunk is empty Spark 4.2 makes one without rows.
        self._session.createDataFrame(table.combine_chunks()).createOrReplaceTempView(name)

    def define(self, name: str, text: str) -> None:
        self._session.sql(text).createOrReplaceTempView(name)

    def keep(self, name: str, text: str) -> None:
        # A checkpoint is a leaf of every plan that reads it. Cached views keep their whole history there, and what
        # reads two of them twice that: planning such a chain takes longer than running it.
        self._session.sql(text).localCheckpoint(eager=False).createOrReplaceTempView(name)

    def step(self, name: str, text: str) -> None:
        self._session.sql(text).localCheckpoint().createOrReplaceTempView(name)

    def is_settled(self, name: str) -> bool:
        return bool(self._session.table(name).filter("NOT settled").isEmpty())

    def table(self, name: str) -> pa.Table:
        return self._session.table(name).toArrow()
