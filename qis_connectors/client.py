"""The client side of the wire: the one place that speaks Flight to a router."""

import json
from collections.abc import Generator
from typing import Any, Self

import pyarrow as pa
from pyarrow import flight

from qis_connectors.connection import Packets, ask, chunks, connect, one_line_errors
from qis_connectors.errors import QisError
from qis_connectors.outgoing import CHUNK_ROWS, by_address, complete
from qis_connectors.receipt import Receipt, decode
from qis_connectors.request import encode
from qis_connectors.transaction import Transaction
from qis_connectors.watching import watch

__all__ = ["Packets", "Receipt", "RouterClient", "Transaction"]
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
        receipt = Receipt()
        for name, table in by_address(complete(packets)):
            with one_line_errors(self.url):
                receipt += self._put(flight.FlightDescriptor.for_path(name), table)
        return receipt

    def transaction(self, id: str | None = None) -> Transaction:  # noqa: A002
        """A new transaction, or the one that another process has begun and told us the `id` of."""
        if id is not None:
            return Transaction(id, self._stage, self._act, is_ours=False)
        return Transaction(self._act("begin", {"v": 1})["transaction"], self._stage, self._act, is_ours=True)

    def read(
        self,
        address: str,
        since: int | None = None,
        columns: list[str] | None = None,
        limit: int | None = None,
        filters: object = None,
    ) -> Packets:
        """The packets at an address, a prefix or a glob, in the order they were stored.

        `since` is a cursor: only what was stored after it. `columns` are fields of OUTCOME_PACKET_SCHEMA, all by
        default. `filters` is a condition such as ["sample_count", ">=", 100] or {"and": [...]}: filters.py has the
        grammar; what it does not keep is not sent. At most `limit` packets. An address that holds nothing gives an
        empty table.
        """
        return self.read_ticket(encode(address, since=since, columns=columns, filters=filters, limit=limit))

    def endpoints(
        self,
        address: str,
        since: int | None = None,
        columns: list[str] | None = None,
        limit: int | None = None,
        filters: object = None,
        until: int | None = None,
    ) -> list[bytes]:
        """Tickets that together give what `read` would give now, in its order; for readers side by side.

        One ticket for each 128k packets or so, at least 1, at most 64; with a `limit` always one. Each says from which
        cursor to which: it gives the same packets whenever it is read. `until` is the last cursor asked for.
        """
        command = encode(address, since=since, until=until, columns=columns, filters=filters, limit=limit)
        with one_line_errors(self.url):
            info = self._client.get_flight_info(flight.FlightDescriptor.for_command(command))
            return [endpoint.ticket.ticket for endpoint in info.endpoints]

    def read_ticket(self, ticket: bytes) -> Packets:
        """What a ticket gives, such as one of `endpoints`."""
        parts = list(self.stream(ticket))  # there is at least one
        return Packets(pa.concat_tables(part.table for part in parts), parts[-1].cursor, parts[-1].store)

    def stream(self, ticket: bytes) -> Generator[Packets, None, None]:
        """What a ticket gives, a batch at a time, as it comes; each with the cursor to go on from.

        The last one may be empty: it says how far was read. Close the iterator where you leave it before its end.
        """
        with one_line_errors(self.url):
            reader = self._client.do_get(flight.Ticket(ticket))
        try:
            received = chunks(reader)
            while True:
                with one_line_errors(self.url):
                    if (chunk := next(received, None)) is None:
                        return
                    position = json.loads(chunk.app_metadata.to_pybytes())
                yield Packets(pa.Table.from_batches([chunk.data]), **position)
        finally:
            reader.cancel()

    def watch(
        self, address: str, since: int | None = None, columns: list[str] | None = None, filters: object = None
    ) -> Generator[Packets, None, None]:
        """What `read` gives, then what arrives, as it arrives; without an end, so close the iterator or leave its loop.

        On a connection of its own that comes back by itself when the router does, going on after the last packet; a
        router with another store than before is read from its beginning. Both are logged. QisError where it refuses.
        """
        return watch(self.url, self.store, address, since, columns=columns, filters=filters)

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
        """store (its identity), cursor (of the newest packet), packets, addresses, bytes, disk_bytes, uptime_seconds,
        open streams by RPC, queued_batches and queued_bytes; since the router began stored, duplicates, refused, and
        gaps in nodes' chains; quarantined packets; audit: lines and head (the newest one's hash) of the audit log."""
        return ask(self._client, self.url, "stats")

    def quarantine(self) -> list[dict[str, Any]]:
        """The router's evidence of nodes that contradicted themselves: `at`, `why`, and the packets `refused` and
        `stored` (None where it is not there), their bytes in hex."""
        with one_line_errors(self.url):
            return [
                json.loads(entry.body.to_pybytes())
                for entry in self._client.do_action(flight.Action("quarantine", b""))
            ]

    def _act(self, action: str, fields: dict[str, Any]) -> dict[str, Any]:
        with one_line_errors(self.url):
            (answer,) = self._client.do_action(flight.Action(action, json.dumps(fields).encode()))
            return dict(json.loads(answer.body.to_pybytes()))

    def _stage(self, command: bytes, table: pa.Table) -> Receipt:
        with one_line_errors(self.url):
            return self._put(flight.FlightDescriptor.for_command(command), table)

    def _put(self, descriptor: flight.FlightDescriptor, table: pa.Table) -> Receipt:
        receipt = Receipt()
        writer, acks = self._client.do_put(descriptor, table.schema)
        with writer:
            for batch in table.to_batches(max_chunksize=CHUNK_ROWS):
                writer.write_batch(batch)
                message = acks.read()
                if message is None:  # the stream has ended: closing it says why
                    break
                receipt += decode(message.to_pybytes())
        if receipt.stored + receipt.duplicates + receipt.staged != table.num_rows:
            raise QisError(f"router {self.url} did not acknowledge every packet; send them again")
        return receipt
