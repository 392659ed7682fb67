"""The client side of the wire: the one place that speaks Flight to a router."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyarrow import flight

from qis_connectors.connection import Packets, ask, bundle_for, chunks, connect, identity_in, one_line_errors
from qis_connectors.errors import QisError
from qis_connectors.outcome import compact_json
from qis_connectors.outgoing import CHUNK_ROWS, by_address, checked
from qis_connectors.receipt import Receipt, decode
from qis_connectors.request import encode, similar
from qis_connectors.similarity import Definition
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
_SIMILAR = pa.schema([("context", pa.string()), ("score", pa.float64())])


class RouterClient:
    """A connection to the router at a `grpc://HOST:PORT` URL, or at a network's `grpc+tls://HOST:PORT` with `identity`,
    the folder of one's bundle (QIS_IDENTITY names it where it is not given). `store` says which store the router keeps.

    Every method raises QisError, in one line, where the router cannot be reached or refuses. May be shared by threads.
    """

    def __init__(self, url: str, identity: Path | str | None = None) -> None:
        self.url = url
        self.identity = bundle_for(url, identity)
        self._identity = identity_in(self.identity)
        self._client, self.store = connect(url, self._identity)

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
        for name, table in by_address(checked(packets)):
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
        similar_to: object = None,
    ) -> Packets:
        """The packets at an address, a prefix or a glob, in the order they were stored.

        `since` is a cursor: only what was stored after it. `columns` are fields of OUTCOME_PACKET_SCHEMA, all by
        default. `filters` is a condition such as ["sample_count", ">=", 100] or {"and": [...]}: filters.py has the
        grammar; what it does not keep is not sent. `similar_to` is what request.similar makes: only packets of sites
        that are similar, with the score in one more column, `similarity`. At most `limit` packets. An address that
        holds nothing gives an empty table.
        """
        asked = {"since": since, "columns": columns, "filters": filters, "limit": limit, "similar_to": similar_to}
        return self.read_ticket(encode(address, **asked))

    def endpoints(
        self,
        address: str,
        since: int | None = None,
        columns: list[str] | None = None,
        limit: int | None = None,
        filters: object = None,
        until: int | None = None,
        similar_to: object = None,
    ) -> list[bytes]:
        """Tickets that together give what `read` would give now, in its order; for readers side by side.

        One ticket for each 128k packets or so, at least 1, at most 64; with a `limit` always one. Each says from which
        cursor to which: it gives the same packets whenever it is read. `until` is the last cursor asked for.
        """
        asked = {"since": since, "until": until, "columns": columns, "filters": filters, "limit": limit}
        command = encode(address, **asked, similar_to=similar_to)
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
        self,
        address: str | None,
        since: int | None = None,
        columns: list[str] | None = None,
        filters: object = None,
        similar_to: object = None,
        profile: str | None = None,
    ) -> Generator[Packets, None, None]:
        """What `read` gives, then what arrives, as it arrives; without an end, so close the iterator or leave its loop.
        A `profile`, the id of one, stands for address, filters and similar_to: then they are None.

        On a connection of its own that comes back by itself when the router does, going on after the last packet; a
        router with another store than before is read from its beginning. Both are logged. QisError where it refuses.
        """
        asked = {"columns": columns, "filters": filters, "similar_to": similar_to, "profile": profile}
        return watch(self.url, self._identity, self.store, address, since, **asked)

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

    def head(self) -> int:
        """The cursor of the newest packet of all."""
        return int(ask(self._client, self.url, "health")["cursor"])

    def stats(self) -> dict[str, Any]:
        """store (its identity), cursor (of the newest packet), packets, addresses, bytes, disk_bytes, uptime_seconds,
        open streams by RPC, queued_batches and queued_bytes; since the router began stored, duplicates, refused, and
        gaps in nodes' chains; quarantined packets; audit: lines and head (the newest one's hash) of the audit log."""
        return ask(self._client, self.url, "stats")

    def definitions(self) -> list[Definition]:
        """The similarity definitions that a reader of this router can name."""
        return [Definition.model_validate(one) for one in self._act_all("definitions", {"v": 1})]

    def similar(
        self, context: dict[str, Any], definition: str, threshold: float | None = None, limit: int = 100
    ) -> pa.Table:
        """Who is similar: `context` (JSON text of what the definition sees) and `score` of the contexts that the router
        knows and that score at least `threshold` with this one by the definition of that name, best first, at most
        `limit`.

        Above some 100,000 distinct contexts it may miss a few: they are looked up in an approximate index.
        """
        asked = similar(context, threshold, definition)
        found = self._act("similar", {"v": 1, **(asked or {}), "limit": limit})["similar"]
        rows = [{"context": compact_json(one["context"]), "score": one["score"]} for one in found]
        return pa.Table.from_pylist(rows, schema=_SIMILAR)

    def register_profile(
        self, node_id: str, address: str, context: dict[str, Any], threshold: float | None, definition: str | None
    ) -> str:
        """The id of this profile, which the router keeps from now on; `watch` takes it."""
        asked = similar(context, threshold, definition)
        return str(
            self._act("register_profile", {"v": 1, "node_id": node_id, "address": address, **(asked or {})})["profile"]
        )

    def profiles(self) -> list[dict[str, Any]]:
        """Those that are registered: profile (the id), node_id, address, context, threshold, definition."""
        return self._act_all("profiles", {"v": 1})

    def drop_profile(self, profile: str) -> None:
        self._act("drop_profile", {"profile": profile})

    def quarantine(self) -> list[dict[str, Any]]:
        """The router's evidence of nodes that contradicted themselves: `at`, `why`, and the packets `refused` and
        `stored` (None where it is not there), their bytes in hex."""
        with one_line_errors(self.url):
            return [
                json.loads(entry.body.to_pybytes())
                for entry in self._client.do_action(flight.Action("quarantine", b""))
            ]

    def _act(self, action: str, fields: dict[str, Any]) -> dict[str, Any]:
        (answer,) = self._act_all(action, fields)
        return answer

    def _act_all(self, action: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
        with one_line_errors(self.url):
            found = self._client.do_action(flight.Action(action, json.dumps(fields).encode()))
            return [dict(json.loads(one.body.to_pybytes())) for one in found]

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
