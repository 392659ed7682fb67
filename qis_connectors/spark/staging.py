"""What one Spark task writes: packets staged in the transaction of its job, where nobody sees them yet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql.datasource import WriterCommitMessage

from qis_connectors.client import RouterClient
from qis_connectors.packet import PacketError, conform
from qis_connectors.spark.patience import patiently


@dataclass
class Staged(WriterCommitMessage):
    """A task's part of a transaction is on the router's disk; `query` is the streaming query it ran for."""

    transaction: str
    packets: int
    query: str | None


class Staging:
    """One job's, or one micro-batch's, way to the router.

    Spark makes it on the driver and pickles it for the tasks: that is when the transaction begins. (For a micro-batch
    it makes a second one to commit with, which never travels and knows the transaction from the tasks' messages.)
    PacketError where the frame's columns cannot be packets.
    """

    def __init__(self, router: str, identity: str | None, address: str | None, schema: pa.Schema) -> None:
        conform(schema.empty_table())  # before any task is started
        self._router, self._identity, self._address = router, identity, address
        self._transaction = ""

    def __getstate__(self) -> dict[str, Any]:
        if not self._transaction:
            with RouterClient(self._router, self._identity) as client:
                self._transaction = client.transaction().id
        return self.__dict__

    def stage(self, batches: Iterator[pa.RecordBatch]) -> Staged:
        """On an executor. What a task that died had staged already does no harm: the commit stores each packet once.

        PacketError names the field and the row, counted from the task's first.
        """
        rows = 0
        with RouterClient(self._router, self._identity) as client:
            transaction = client.transaction(self._transaction)
            for batch in batches:
                try:
                    patiently(lambda packets=batch: transaction.deposit(packets, self._address))  # type: ignore[misc]
                except PacketError as error:
                    if error.row is None:
                        raise
                    raise PacketError(error.field, error.reason, rows + error.row) from None
                rows += batch.num_rows
        task = TaskContext.get()
        return Staged(self._transaction, rows, task.getLocalProperty("sql.streaming.queryId") if task else None)

    def show(self, transaction: str, key: str | None = None) -> None:
        """Commit: all of it at once, and once for each `key`. Harmless to repeat."""

        def commit() -> None:
            with RouterClient(self._router, self._identity) as client:
                client.transaction(transaction).commit(key)

        patiently(commit)

    def drop(self, transaction: str) -> None:
        """Abort: nothing is left of it."""

        def abort() -> None:
            with RouterClient(self._router, self._identity) as client:
                client.transaction(transaction).abort()

        patiently(abort)
