"""For DataFrame.mapInArrow: packets go from executors to a router, and come from it, without passing the driver.

Write with format("qis") where all of a job's packets are to become visible together; `depositing` is for where each may
be seen as soon as it is there, or the query goes on with what the router answered.
"""

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from qis_connectors.client import RouterClient
from qis_connectors.connection import bundle_for
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.spark.patience import patiently
from qis_connectors.spark.ranges import Range

PACKETS = from_arrow_schema(OUTCOME_PACKET_SCHEMA)
"""The Spark schema of packets."""

RECEIPTS = "stored long, duplicates long"
_RECEIPTS = pa.schema([("stored", pa.int64()), ("duplicates", pa.int64())])
Mapping = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def depositing(router: str, identity: str | None = None) -> Mapping:
    """frame.mapInArrow(depositing(url), RECEIPTS): deposits a frame of packets, and gives a receipt for each batch.

    Nothing happens before the result is computed; each time it is, the packets are sent again and stored once.
    PacketError fails the task where a row is no packet. `identity` is the folder of one's bundle, on every executor.
    """
    bundle = bundle_for(router, identity)

    def deposit(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with RouterClient(router, bundle) as client:
            for batch in batches:
                receipt = patiently(lambda packets=batch: client.deposit(packets))  # type: ignore[misc]
                row = {"stored": receipt.stored, "duplicates": receipt.duplicates}
                yield pa.RecordBatch.from_pylist([row], schema=_RECEIPTS)

    return deposit


def reading(router: str, identity: str | None, store: str) -> Mapping:
    """Rows of (address, ticket) become the packets that the tickets give, each behind its address."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                for packets in Range(router, identity, store, row["ticket"]).batches():
                    address = pa.repeat(pa.scalar(row["address"], pa.string()), packets.num_rows)
                    yield packets.add_column(0, pa.field("address", pa.string()), address)

    return read
