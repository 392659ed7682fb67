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

from qis_connectors.client import Packets, RouterClient
from qis_connectors.spark.patience import patiently
from qis_connectors.spark.pushdown import Term
from qis_connectors.spark.ranges import Asked, Range, check_store, ranges_of
from qis_connectors.spark.staging import Staged, Staging

_CHEAPEST = ["outcome_decile"]
Offset = dict[str, Any]
"""{"store": the identity of the router's store, "cursor": everything up to there has been read}."""

logger = logging.getLogger(__name__)


class PacketStreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """An offset is a cursor of the router's log. It moves only when there is a packet at the address."""

    def __init__(self, router: str, identity: str | None, asked: Asked, filters: Term | None, most: int | None) -> None:
        self._router, self._identity, self._asked, self._filters, self._most = router, identity, asked, filters, most
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
        found = self._read(client, since, most or 1)
        if found.store != start["store"]:
            logger.warning("router %s has another store than before: reading it from its beginning", self._router)
            since = 0
            found = self._read(client, since, most or 1)
        if not found.table.num_rows or (self._last is not None and since >= self._last):
            return start
        end = found.cursor if most else client.head()
        return {"store": found.store, "cursor": end if self._last is None else min(end, self._last)}

    def _read(self, client: RouterClient, since: int, most: int) -> Packets:
        asked = self._asked
        return client.read(asked.address, since, _CHEAPEST, most, self._filters, asked.similar_to)

    def _ranges(self, start: Offset, end: Offset) -> list[InputPartition]:
        if start == end:
            return []
        since = int(start["cursor"]) if start["store"] == end["store"] else None
        with RouterClient(self._router, self._identity) as client:
            check_store(client, end["store"])
            until = int(end["cursor"])
            return [*ranges_of(client, self._asked, since, until, self._filters)]


class PacketStreamWriter(Staging, DataSourceStreamArrowWriter):
    """Each micro-batch is a transaction of its own.

    It is committed under the query and the number of the batch: one that Spark runs again, for it was not sure that it
    was committed, is stored once, even if the query makes other packets of the same input this time. Where no task of a
    micro-batch came to its end, Spark names no transaction to abort, and the router drops it when it has been idle for
    an hour.
    """

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Staged:
        return self.stage(iterator)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803
        for transaction, query in _transactions(messages):
            self.show(transaction, f"{query}/{batchId}")

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: ARG002, N803
        for transaction, _ in _transactions(messages):
            self.drop(transaction)


def _transactions(messages: list[WriterCommitMessage | None]) -> set[tuple[str, str | None]]:
    """Of a micro-batch one, and the query it belongs to."""
    return {(message.transaction, message.query) for message in messages if isinstance(message, Staged)}
