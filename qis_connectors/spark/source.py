"""format("qis"): what Spark asks a data source for, and the options it understands."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    DataSourceStreamArrowWriter,
    DataSourceStreamReader,
)
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from qis_connectors import filters
from qis_connectors.connection import bundle_for
from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.request import SIMILARITY, similar
from qis_connectors.spark.batch import PacketReader, PacketWriter, PushingPacketReader
from qis_connectors.spark.pushdown import Term
from qis_connectors.spark.ranges import Asked
from qis_connectors.spark.stream import PacketStreamReader, PacketStreamWriter


class SparkOptionError(QisError):
    """An option, a schema or a mode that format("qis") does not take."""


class PacketSource(DataSource):
    """Packets at a router, as batches and as streams, read and written.

    | option | |
    |---|---|
    | router | `grpc://HOST:PORT` or `grpc+tls://HOST:PORT`; always needed |
    | identity | one's bundle, a folder on driver and executors; what QIS_IDENTITY named as Spark began, if not given |
    | address | reading: an address, a prefix or a glob, needed; writing: where all packets go, if not each to its own |
    | filters | reading: a condition in the grammar of filters.py, as JSON; what it does not keep is not sent |
    | similarTo | reading: a context as JSON; only packets of similar sites, with their score in a column `similarity` |
    | threshold, definition | with similarTo: at least this score, by the definition of this name; else the router's |
    | pushdown | reading a batch: `true` sends the conditions of the query itself to the router, see below |
    | maxPacketsPerTrigger | reading a stream: at most so many packets a micro-batch |

    Reading gives the columns of OUTCOME_PACKET_SCHEMA, or those that `.schema("node_id string, metric_delta float")`
    names: Spark does not tell a Python source which columns a query needs, and what is not named is not sent.
    A DataFrame shows the router as it was when it was first computed; load() again to see what has come since.

    `pushdown` is for a DataFrame that is used once. Spark 4.2 keeps one plan for all uses of a DataFrame from a Python
    source, so conditions pushed for one use would thin out the next one too: df.where(...).count(), then df.count().

    Writing takes the fifteen fields and any of ours, in any order, with mode("append").
    """

    @classmethod
    def name(cls) -> str:
        return "qis"

    def schema(self) -> StructType:
        return from_arrow_schema(self._fields())

    def reader(self, schema: StructType) -> DataSourceReader:
        reader = PushingPacketReader if self.options.get("pushdown", "").lower() == "true" else PacketReader
        return reader(*self._router(), self._asked(schema), self._filters())

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's names
        limit = self.options.get("maxPacketsPerTrigger")
        if limit is not None and not (limit.isascii() and limit.isdecimal() and int(limit)):
            raise SparkOptionError(f"option maxPacketsPerTrigger: {limit!r:.60} is not a whole number of at least 1")
        given = (*self._router(), self._asked(schema), self._filters())
        return PacketStreamReader(*given, None if limit is None else int(limit))

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        if overwrite:
            raise SparkOptionError('packets are never overwritten: write with mode("append")')
        return PacketWriter(*self._router(), self.options.get("address"), _arrow(schema))

    def streamWriter(self, schema: StructType, overwrite: bool) -> DataSourceStreamArrowWriter:  # noqa: N802
        if overwrite:
            raise SparkOptionError('packets are never overwritten: write with outputMode("append")')
        return PacketStreamWriter(*self._router(), self.options.get("address"), _arrow(schema))

    def _asked(self, schema: StructType) -> Asked:
        return Asked(self._needed("address"), _columns(schema, self._fields()), self._similar_to())

    def _fields(self) -> pa.Schema:
        """What there is to read."""
        return OUTCOME_PACKET_SCHEMA if self._similar_to() is None else OUTCOME_PACKET_SCHEMA.append(SIMILARITY)

    def _filters(self) -> Term | None:
        term: Term | None = self._json("filters")
        if term is not None:
            filters.parse(term)
        return term

    def _similar_to(self) -> dict[str, Any] | None:
        return similar(self._json("similarTo"), self._json("threshold"), self.options.get("definition"))

    def _json(self, option: str) -> Any:  # noqa: ANN401
        try:
            return json.loads(self.options.get(option, "null"))
        except json.JSONDecodeError as error:
            raise SparkOptionError(f"option {option!r} is not JSON: {error.msg} at character {error.pos}") from None

    def _router(self) -> tuple[str, str | None]:
        url = self._needed("router")
        return url, bundle_for(url, self.options.get("identity"))

    def _needed(self, option: str) -> str:
        value: str | None = self.options.get(option)
        if not value:
            raise SparkOptionError(f'format("qis") needs the option {option!r}: {_EXAMPLES[option]}')
        return value


_EXAMPLES: Mapping[str, str] = {
    "router": '.option("router", "grpc://127.0.0.1:8815")',
    "address": '.option("address", "clinical.*"), or "*" for everything',
}


def _columns(schema: StructType, known: pa.Schema) -> tuple[str, ...]:
    """The fields that a schema names; SparkOptionError where one is not among those known or has another type."""
    for field in _arrow(schema):
        if field.name not in known.names:
            raise SparkOptionError(f"schema: {field.name!r:.60} is not a field of a packet")
        kind = known.field(field.name).type
        if field.type != kind:
            raise SparkOptionError(f"schema: {field.name!r} is {kind}, not {field.type}")
    return tuple(schema.names)


def _arrow(schema: StructType) -> pa.Schema:
    return to_arrow_schema(schema, timezone="UTC")
