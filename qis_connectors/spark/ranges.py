"""What one Spark task reads: a range of the router's log, the same packets whenever and wherever it runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import InputPartition

from qis_connectors.client import RouterClient
from qis_connectors.connection import UnreachableError
from qis_connectors.errors import QisError
from qis_connectors.request import parse, within
from qis_connectors.spark.patience import Patience


class StoreChangedError(QisError):
    """The router has another store than when the query was planned: cursors mean nothing there."""


@dataclass
class Range(InputPartition):
    """`ticket` is one of RouterClient.endpoints, of the store `store`. `identity` is a folder, on every executor."""

    router: str
    identity: str | None
    store: str
    ticket: bytes

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The packets; a router that goes away and comes back is read on from the last cursor it gave."""
        request = parse(self.ticket)
        assert request.until is not None  # the router writes it into every endpoint
        reached, patience = request.since, Patience()
        while True:
            try:
                with RouterClient(self.router, self.identity) as client:
                    check_store(client, self.store)
                    for packets in client.stream(within(self.ticket, reached, request.until)):
                        patience.renew()
                        yield from packets.table.to_batches()
                        reached = packets.cursor
                if reached >= request.until:
                    return
                raise UnreachableError(f"router {self.router} has ended the stream")
            except UnreachableError as error:
                patience.wait(error)


@dataclass(frozen=True)
class Asked:
    """What of the packets at an address: these columns, and of sites similar to the context of `similar_to` only."""

    address: str
    columns: tuple[str, ...]
    similar_to: dict[str, Any] | None = None


def ranges_of(
    client: RouterClient, asked: Asked, since: int | None = None, until: int | None = None, filters: object = None
) -> list[Range]:
    """The packets that `client.read` would give now, up to the cursor `until`, for tasks side by side."""
    columns = list(asked.columns)
    tickets = client.endpoints(
        asked.address, since=since, until=until, columns=columns, filters=filters, similar_to=asked.similar_to
    )
    return [Range(client.url, client.identity, client.store, ticket) for ticket in tickets]


def check_store(client: RouterClient, store: str) -> None:
    """StoreChangedError where the router keeps another store than `store`."""
    if client.store != store:
        raise StoreChangedError(f"router {client.url} has another store than when this query was planned")
