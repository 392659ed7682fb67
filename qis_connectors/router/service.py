"""The router's Flight RPCs, thin.

    DoPut(path)        deposit; each batch is stored whole or refused whole, and acknowledged once on the disk
    DoPut(command)     stage in a transaction, {"v": 1, "transaction": ID} and "address" if not each row's own; checked
                       and acknowledged alike, with {"staged": n}; seen by nobody until DoAction("commit")
    DoGet(ticket)      packets in the order they were stored; see request.py for what a ticket may say
    ListFlights        the addresses, those that match the criteria where these are given
    DoExchange         what a ticket asks for, here as the command, then what arrives, until the reader cancels
    GetFlightInfo      tickets for ranges of cursors, to be read side by side: together what one DoGet gives now, and
                       nothing that is stored later; about 128k packets each, 64 at most, on this same server
    GetSchema
    DoAction           health, stats; begin, commit, abort: see transactions.py; definitions, similar: see similar.py;
                       register_profile, profiles, drop_profile: see profiles.py

An acknowledgement is JSON in app_metadata, one a batch: {"stored": n, "duplicates": m, "cursor": c}.
Each batch of a DoGet has app_metadata {"cursor": N, "store": ID}: everything that matches up to N has been sent, and
a reader that asks again with since=N goes on strictly after it. The last batch, without rows where nothing was new,
takes N to the log's end unless `limit` came first. A cursor means something only together with the store's ID.
A DoExchange sends the same, the batches without rows now and then, so that either side notices when the other is gone.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache, wraps
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import flight

from qis_connectors import address
from qis_connectors.errors import QisError
from qis_connectors.packet import MAX_BYTES_WITH_LIKELIHOOD, OUTCOME_PACKET_SCHEMA
from qis_connectors.request import (
    Request,
    RequestError,
    check_begin,
    parse,
    parse_commit,
    parse_staging,
    parse_transaction,
    within,
)
from qis_connectors.router import exchange
from qis_connectors.router.access import Access, Permit, Tokens, Verb
from qis_connectors.router.deposit import depositing, receive, staging
from qis_connectors.router.endpoints import ranges
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.selection import Scorer
from qis_connectors.router.packet_log.view import Summary, View
from qis_connectors.router.profiles import Profiles
from qis_connectors.router.similar import Similar
from qis_connectors.router.status import Status
from qis_connectors.router.transactions import Transactions

_ACTIONS = {
    "health": "whether the router serves, and which store",
    "stats": "what the store holds, and what goes in and out",
    "begin": 'a new transaction; {"v": 1} gives {"transaction": ID}',
    "commit": 'all of a transaction becomes visible; {"transaction": ID} gives its receipt, however often; with "key", '
    "a name of the client's for this work, only where no transaction was committed under it before",
    "abort": 'all of a transaction is dropped; {"transaction": ID}',
    "definitions": "the similarity definitions that readers can name, a result each",
    "similar": 'the known contexts that are similar to {"v": 1, "context": {...}, "definition": NAME}, best first',
    "register_profile": 'interest in {"v": 1, "node_id": ..., "address": ..., "context": {...}} gives {"profile": ID}',
    "profiles": "those that are registered, a result each",
    "drop_profile": 'ends {"profile": ID}',
}
# What is known of contexts and interests is known of all addresses, whoever may read them.
_VERBS: dict[str, Verb] = {
    **dict.fromkeys(("stats", "similar", "profiles"), "operate"),
    **dict.fromkeys(("begin", "commit", "abort"), "deposit"),
}
_Answer = TypeVar("_Answer")


def _answered(handler: Callable[..., _Answer]) -> Callable[..., _Answer]:
    """A handler whose errors reach the client in one line."""
    rpc = "".join(word.title() for word in handler.__name__.split("_"))

    @wraps(handler)
    def answer(self: "Service", context: flight.ServerCallContext, *given: object) -> _Answer:
        with self.status.refusals.answering(rpc, context.peer()):
            return handler(self, context, *given)

    return answer


class Service(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    def __init__(
        self,
        location: str,
        status: Status,
        transactions: Transactions,
        similar: Similar,
        profiles: Profiles,
        access: Access,
        tls: dict[str, Any],
    ) -> None:
        self.status = status
        self._similar = similar
        self._profiles = profiles
        self._packets = status.log
        self._transactions = transactions
        self._access = access
        super().__init__(location, middleware={"calls": status.calls, "token": Tokens()}, **tls)

    @_answered
    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        if descriptor.descriptor_type == flight.DescriptorType.PATH:
            name = address.check(_path(descriptor))
            prepare = depositing(self._packets, name, self._access.admit(context, "deposit", name))
        else:
            transaction, target = parse_staging(descriptor.command or b"")
            permit = self._access.admit(context, "deposit", address.check(target) if target else "")
            allow = cache(lambda name: self._access.admit(context, "deposit", name))
            stage = self._transactions.stream(transaction, target, allow, permit.node_id or "")
            prepare = staging(stage, target, permit)
        with self.status.traffic.counting() as tally:
            receive(prepare, reader, writer, self.status.in_flight, tally)

    @_answered
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        request, scorer, permit = self._asked(context, ticket.ticket)
        return flight.GeneratorStream(request.schema, self._stream(request, scorer, permit, context.peer()))

    @_answered
    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> list[flight.FlightInfo]:
        pattern = self._asked(context, criteria or b"*")[0].pattern
        return [_describe_address(summary) for summary in View(self._packets, pattern).summaries()]

    @_answered
    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        ticket = _ticket(descriptor)
        request, scorer, _ = self._asked(context, ticket)
        view = View(self._packets, request.pattern, request.until)
        parts, found = ranges(view, request), view.summaries()
        is_part = request.since > 0 or (request.limit, request.until, request.where, scorer) != (None,) * 4
        return flight.FlightInfo(
            request.schema,
            descriptor,
            [flight.FlightEndpoint(within(ticket, *part), []) for part in parts],
            None if is_part else sum(summary.packets for summary in found),
            None if is_part else sum(summary.bytes for summary in found),
            app_metadata=json.dumps({"store": self._packets.store.identity, "cursor": parts[-1][1]}),
        )

    def get_schema(self, _: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.SchemaResult:
        # pyarrow sends a traceback with any error out of this one call, so it has none: DoGet refuses a bad request.
        try:
            return flight.SchemaResult(parse(_ticket(descriptor)).schema)
        except QisError:
            return flight.SchemaResult(OUTCOME_PACKET_SCHEMA)

    @_answered
    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        permit = self._access.admit(context, _VERBS.get(action.type, "join"))
        if action.type == "health":
            return [json.dumps({"status": "ok", **self._position()}).encode()]
        if action.type == "stats":
            return [json.dumps(self.status.stats()).encode()]
        if action.type in ("begin", "commit", "abort"):
            return [json.dumps(self._transact(action, permit.node_id or "")).encode()]
        if action.type in _ACTIONS:
            return [json.dumps(one).encode() for one in self._hire(action, permit.node_id)]
        raise RequestError(f"action {action.type!r:.60} is not known to this router; it knows {', '.join(_ACTIONS)}")

    @_answered
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        self._access.admit(context, "join")
        return list(_ACTIONS.items())

    @_answered
    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        _: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        request, scorer, permit = self._asked(context, _ticket(descriptor))
        exchange.check(self._packets, request)
        writer.begin(request.schema)
        with self.status.traffic.counting() as tally:
            for batch, cursor in exchange.follow(self._packets, request, context.is_cancelled, scorer):
                permit.check()
                try:
                    writer.write_with_metadata(batch, _reached(cursor, self._packets.store.identity))
                except (pa.ArrowException, flight.FlightError, OSError):
                    return  # the reader has gone
                tally.packets_out += batch.num_rows
                # Of the whole buffers, which other readers' packets may share: a small batch's own take longer to add
                # up than to send.
                tally.bytes_out += min(batch.get_total_buffer_size(), batch.num_rows * MAX_BYTES_WITH_LIKELIHOOD)

    def _asked(self, context: flight.ServerCallContext, ticket: bytes) -> tuple[Request, Scorer | None, Permit]:
        """What a ticket asks for, its profile put in, as far as its reader may read it; and what scores packets."""
        request = parse(ticket)
        if request.profile is not None:
            request = self._profiles.expanded(request, self._access.admit(context, "join").node_id)
        permit = self._access.admit(context, "read", request.pattern.text)
        scorer = self._similar.scorer(request.similar_to, request.pattern)
        return replace(request, pattern=permit.readable(request.pattern)), scorer, permit

    def _stream(
        self, request: Request, scorer: Scorer | None, permit: Permit, peer: str
    ) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        with self.status.refusals.answering("DoGet", peer), self.status.traffic.counting() as tally:
            found = read(
                self._packets,
                request.pattern,
                request.columns,
                request.since,
                request.limit,
                request.until,
                request.where,
                scorer,
            )
            for batch, cursor in found:
                permit.check()
                if batch.num_rows:
                    tally.packets_out += batch.num_rows
                    tally.bytes_out += batch.nbytes
                yield batch, _reached(cursor, self._packets.store.identity)

    def _transact(self, action: flight.Action, owner: str) -> dict[str, Any]:
        body = action.body.to_pybytes()
        if action.type == "begin":
            check_begin(body)
            return {"transaction": self._transactions.begin(owner)}
        if action.type == "commit":
            transaction, key = parse_commit(body)
            receipt = self._transactions.commit(transaction, owner, key)
            return {"transaction": transaction, **json.loads(receipt.encode())}
        transaction = parse_transaction(body)
        self._transactions.abort(transaction, owner)
        return {"transaction": transaction}

    def _hire(self, action: flight.Action, node_id: str | None) -> Iterable[dict[str, Any]]:
        body = action.body.to_pybytes()
        if action.type == "definitions":
            return [one.model_dump() for one in self._similar.definitions.by_name.values()]
        if action.type == "similar":
            return [self._similar.look_up(body)]
        if action.type == "profiles":
            return self._profiles.told()
        change = self._profiles.register if action.type == "register_profile" else self._profiles.drop
        return [change(body, node_id)]

    def _position(self) -> dict[str, str | int]:
        return {"store": self._packets.store.identity, "cursor": self._packets.head}


@lru_cache(maxsize=64)  # a hundred readers are told of the same cursor
def _reached(cursor: int, store: str) -> bytes:
    return json.dumps({"cursor": cursor, "store": store}).encode()


def _path(descriptor: flight.FlightDescriptor) -> str:
    return b"/".join(descriptor.path).decode()  # protobuf has refused what is not UTF-8


def _ticket(descriptor: flight.FlightDescriptor) -> bytes:
    """A command is what a ticket is; a path is an address, prefix or glob."""
    if descriptor.descriptor_type == flight.DescriptorType.PATH:
        return _path(descriptor).encode()
    return bytes(descriptor.command or b"")


def _describe_address(summary: Summary) -> flight.FlightInfo:
    return flight.FlightInfo(
        OUTCOME_PACKET_SCHEMA,
        flight.FlightDescriptor.for_path(summary.address),
        [flight.FlightEndpoint(summary.address, [])],
        summary.packets,
        summary.bytes,
        app_metadata=json.dumps({"first_time": summary.first_time, "last_time": summary.last_time}),
    )
