"""Packets as a stream: the reader and the writer behind spark.readStream and df.writeStream."""

import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import (
    DataSourceStreamArrowWriter,
    DataSourceStreamReader,
    InputPartition,
    WriterCommitMessage,
)
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadLimit, ReadMaxRows, SupportsTriggerAvailableNow

from qis_connectors.client import RouterClient
from qis_connectors.spark.patience import patiently
from qis_connectors.spark.pushdown import Term
from qis_connectors.spark.ranges import Range, check_store, ranges_of
from qis_connectors.spark.staging import Staged, Staging

_CHEAPEST = ["outcome_decile"]
Offset = dict[str, Any]
"""{"store": the identity of the router's store, "cursor": everything up to there has been read}."""

logger = logging.getLogger(__name__)


class PacketStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """An offset is a cursor of the router's log. It moves only when there is a packet at the address."""

    def __init__(
        self,
        router: str,
        identity: str | None,
        address: str,
        columns: list[str],
        filters: Term | None,
        most: int | None,
    ) -> None:
        self._identity = identity
        self._router, self._address, self._columns, self._most = router, address, columns, most
        self._filters = filters
        self._last: int | None = None
        self._client: RouterClient | None = None

    def initialOffset(self) -> Offset:  # noqa: N802 - Spark's names
        return {"store": self._connected().store, "cursor": 0}

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802
        return ReadAllAvailable() if self._most is None else ReadMaxRows(self._most)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802
        self._last = self._connected().head()

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:  # noqa: N802
        most = limit.max_rows if isinstance(limit, ReadMaxRows) else None
        return patiently(lambda: self._offset(start, most))

    def partitions(self, start: Offset, end: Offset) -> list[InputPartition]:
        return patiently(lambda: self._ranges(start, end))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, Range)
        return partition.batches()

    def stop(self) -> None:
        if self._client:
            self._client.close()
            self._client = None

    def _connected(self) -> RouterClient:
        if self._client is None:
            self._client = RouterClient(self._router, self._identity)
        return self._client

    def _offset(self, start: Offset, most: int | None) -> Offset:
        """The end of the next micro-batch: `most` packets on, or as far as there is; `start` where nothing is new."""
        client, since = self._connected(), int(start["cursor"])
        found = client.read(self._address, since=since, columns=_CHEAPEST, limit=most or 1, filters=self._filters)
        if found.store != start["store"]:
            logger.warning("router %s has another store than before: reading it from its beginning", self._router)
            since = 0
            found = client.read(self._address, columns=_CHEAPEST, limit=most or 1, filters=self._filters)
        if not found.table.num_rows or (self._last is not None and since >= self._last):
            return start
        end = found.cursor if most else client.head()
        return {"store": found.store, "cursor": end if self._last is None else min(end, self._last)}

    def _ranges(self, start: Offset, end: Offset) -> list[InputPartition]:
        if start == end:
            return []
        since = int(start["cursor"]) if start["store"] == end["store"] else None
        with RouterClient(self._router, self._identity) as client:
            check_store(client, end["store"])
            until = int(end["cursor"])
            return [*ranges_of(client, self._address, self._columns, since, until, self._filters)]


class PacketStreamWriter(Staging, DataSourceStreamArrowWriter):
    """Each micro-batch is a transaction of its own.

    A micro-batch that Spark runs again, for it was not sure that it was committed, is made of the same packets, and the
    router knows each of them again by its packet_id. A query must therefore make the same packets of the same input:
    no rand(). Where no task of a micro-batch came to its end, Spark names no transaction to abort, and the router drops
    it when it has been idle for an hour.
    """

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Staged:
        return self.stage(iterator)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: ARG002, N803
        for transaction in _transactions(messages):
            self.show(transaction)

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: ARG002, N803
        for transaction in _transactions(messages):
            self.drop(transaction)


def _transactions(messages: list[WriterCommitMessage | None]) -> set[str]:
    return {message.transaction for message in messages if isinstance(message, Staged)}
