"""The client side of the wire: the one place that speaks Flight to a router."""

import json
from collections import defaultdict
from collections.abc import Generator, Iterator
from typing import Any, Self

import pyarrow as pa
from pyarrow import flight

from qis_connectors import address, packet
from qis_connectors.connection import Packets, ask, chunks, connect, one_line_errors
from qis_connectors.errors import QisError
from qis_connectors.packet import PacketError
from qis_connectors.receipt import Receipt, decode
from qis_connectors.request import encode
from qis_connectors.watching import watch

__all__ = ["Packets", "Receipt", "RouterClient"]
CHUNK_ROWS = 8192
_ADDRESSES = pa.schema(
    [
        ("address", pa.string()),
        ("packets", pa.int64()),
        ("bytes", pa.int64()),
        ("first_time", pa.int64()),
        ("last_time", pa.int64()),
    ]
)


class RouterClient:
    """A connection to the router at a `grpc://HOST:PORT` URL; `store` is the identity of what it keeps.

    Every method raises QisError, in one line, where the router cannot be reached or refuses. May be shared by threads.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._client, self.store = connect(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def deposit(self, packets: pa.Table | pa.RecordBatch) -> Receipt:
        """Store packets (fifteen fields or more, what `packet.conform` takes), each at its address; waits for the disk.

        Everything is checked before anything is sent: PacketError names field and row. Sending a packet again is
        harmless. Where the connection breaks midway some are stored: send all of them again.
        """
        whole = packets if isinstance(packets, pa.Table) else pa.Table.from_batches([packets])
        receipt = Receipt()
        for name, table in _by_address(_complete(packet.conform(whole))):
            with one_line_errors(self.url):
                receipt += self._put(name, table)
        return receipt

    def read(
        self, address: str, since: int | None = None, columns: list[str] | None = None, limit: int | None = None
    ) -> Packets:
        """The packets at an address, a prefix or a glob, in the order they were stored.

        `since` is a cursor: only what was stored after it. `columns` are fields of OUTCOME_PACKET_SCHEMA, all by
        default. At most `limit` packets. An address that holds nothing gives an empty table.
        """
        with one_line_errors(self.url):
            reader = self._client.do_get(flight.Ticket(encode(address, since, columns, limit)))
            batches, position = [], b""
            for chunk in chunks(reader):
                batches.append(chunk.data)
                position = chunk.app_metadata.to_pybytes()
            table = pa.Table.from_batches(batches, schema=reader.schema)
        return Packets(table, **json.loads(position))

    def watch(
        self, address: str, since: int | None = None, columns: list[str] | None = None
    ) -> Generator[Packets, None, None]:
        """What `read` gives, then what arrives, as it arrives; without an end, so close the iterator or leave its loop.

        On a connection of its own that comes back by itself when the router does, going on after the last packet; a
        router with another store than before is read from its beginning. Both are logged. QisError where it refuses.
        """
        return watch(self.url, self.store, (address, since, columns))

    def addresses(self, pattern: str = "*") -> pa.Table:
        """What the router holds: address, packets, bytes, first_time and last_time (of the packets, ms since 1970)."""
        with one_line_errors(self.url):
            rows = [
                {
                    "address": info.descriptor.path[0].decode(),
                    "packets": info.total_records,
                    "bytes": info.total_bytes,
                    **json.loads(info.app_metadata),
                }
                for info in self._client.list_flights(pattern.encode())
            ]
        return pa.Table.from_pylist(rows, schema=_ADDRESSES)

    def stats(self) -> dict[str, Any]:
        """store (its identity), cursor (of the newest packet), packets, addresses, bytes."""
        return ask(self._client, self.url, "stats")

    def _put(self, name: str, table: pa.Table) -> Receipt:
        receipt = Receipt()
        writer, acks = self._client.do_put(flight.FlightDescriptor.for_path(name), table.schema)
        with writer:
            for batch in table.to_batches(max_chunksize=CHUNK_ROWS):
                writer.write_batch(batch)
                message = acks.read()
                if message is None:  # the stream has ended: closing it says why
                    break
                receipt += decode(message.to_pybytes())
        if receipt.stored + receipt.duplicates != table.num_rows:
            raise QisError(f"router {self.url} did not acknowledge every packet; send them again")
        return receipt


def _complete(table: pa.Table) -> pa.Table:
    batches = []
    rows = 0
    for batch in table.to_batches(max_chunksize=CHUNK_ROWS):
        try:
            batches.append(packet.complete(batch))
        except PacketError as error:
            if error.row is None or not rows:
                raise
            raise PacketError(error.field, error.reason, rows + error.row) from None
        rows += batch.num_rows
    return pa.Table.from_batches(batches, schema=packet.OUTCOME_PACKET_SCHEMA)


def _by_address(packets: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    domain, problem_type = (packets[name].combine_chunks() for name in ("domain", "problem_type"))
    rows = defaultdict(list)
    for row, name in enumerate(address.column(domain, problem_type).to_pylist()):
        rows[name].append(row)
    for name, chosen in rows.items():
        yield name, packets if len(rows) == 1 else packets.take(chosen)
