"""Packets as a batch: the reader and the writer behind spark.read and df.write."""

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql.datasource import DataSourceArrowWriter, DataSourceReader, Filter, InputPartition, WriterCommitMessage

from qis_connectors.client import RouterClient
from qis_connectors.spark.pushdown import Pushdown, Term
from qis_connectors.spark.ranges import Asked, Range, ranges_of
from qis_connectors.spark.staging import Staged, Staging


class PacketReader(DataSourceReader):
    """One task for each endpoint; together they read the router as it was when the query was planned."""

    def __init__(self, router: str, identity: str | None, asked: Asked, filters: Term | None) -> None:
        self._router, self._identity, self._asked = router, identity, asked
        self._pushdown = Pushdown(filters)

    def partitions(self) -> list[InputPartition]:
        with RouterClient(self._router, self._identity) as client:
            return [*ranges_of(client, self._asked, filters=self._pushdown.filters)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, Range)
        return partition.batches()


class PushingPacketReader(PacketReader):
    """Takes over those of the query's conditions that the router understands."""

    def pushFilters(self, filters: list[Filter]) -> list[Filter]:  # noqa: N802 - Spark's name
        return [one for one in filters if not self._pushdown.takes(one)]


class PacketWriter(Staging, DataSourceArrowWriter):
    """Tasks stage, the driver commits once: all packets of the job become visible together, or none."""

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Staged:
        return self.stage(iterator)

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:  # noqa: ARG002 - all tasks have one transaction
        self.show(self._transaction)

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:  # noqa: ARG002
        self.drop(self._transaction)
