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
    DoAction           health, stats, quarantine; begin, commit, abort: see transactions.py

An acknowledgement is JSON in app_metadata, one a batch: {"stored": n, "duplicates": m, "cursor": c}.
Each batch of a DoGet has app_metadata {"cursor": N, "store": ID}: everything that matches up to N has been sent, and
a reader that asks again with since=N goes on strictly after it. The last batch, without rows where nothing was new,
takes N to the log's end unless `limit` came first. A cursor means something only together with the store's ID.
A DoExchange sends the same, the batches without rows now and then, so that either side notices when the other is gone.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial, wraps
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import flight

from qis_connectors import address
from qis_connectors.errors import QisError
from qis_connectors.packet import MAX_BYTES_WITH_LIKELIHOOD, OUTCOME_PACKET_SCHEMA
from qis_connectors.request import Request, RequestError, check_begin, parse, parse_staging, parse_transaction, within
from qis_connectors.router import exchange
from qis_connectors.router.caller import caller
from qis_connectors.router.deposit import depositing, receive, staging
from qis_connectors.router.endpoints import ranges
from qis_connectors.router.entry import Entry
from qis_connectors.router.idle import Idle
from qis_connectors.router.listen import cut_connections
from qis_connectors.router.packet_log.chains import ChainError
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.view import Summary, View
from qis_connectors.router.status import Status
from qis_connectors.router.transactions import Transactions

SUBJECT_BYTES = 300
"""So much of what a call is about goes into the audit log."""

_ACTIONS = {
    "health": "whether the router serves, and which store",
    "stats": "what the store holds, and what goes in and out",
    "quarantine": "evidence: packets that contradict what their node had signed before",
    "begin": 'a new transaction; {"v": 1} gives {"transaction": ID}',
    "commit": 'all of a transaction becomes visible; {"transaction": ID} gives its receipt, however often',
    "abort": 'all of a transaction is dropped; {"transaction": ID}',
}
_Answer = TypeVar("_Answer")


def _answered(handler: Callable[..., _Answer]) -> Callable[..., _Answer]:
    """A handler whose errors reach the client in one line."""
    rpc = "".join(word.title() for word in handler.__name__.split("_"))

    @wraps(handler)
    def answer(self: "Service", context: flight.ServerCallContext, *given: object) -> _Answer:
        with self.status.refusals.answering(rpc, context.peer(), caller(context), _subject(given)):
            try:
                return handler(self, context, *given)
            except ChainError as error:
                self.status.quarantine.keep(error)
                raise

    return answer


class Service(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    def __init__(self, location: str, status: Status, transactions: Transactions, entry: Entry) -> None:
        self.status = status
        self._entry = entry
        self.idle = Idle(entry.quotas.idle, lambda peer: cut_connections(self.port, peer))
        self._packets = status.log
        self._transactions = transactions
        super().__init__(location, middleware={"calls": status.calls})

    @_answered
    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        who = caller(context)
        with ExitStack() as stack:
            stack.enter_context(self._entry.quotas.streaming(who))
            pulse = stack.enter_context(self.idle.watching(context.peer()))
            if descriptor.descriptor_type == flight.DescriptorType.PATH:
                verb = "deposit"
                prepare = depositing(self._packets, address.check(_path(descriptor)), self._entry)
            else:
                verb = "stage"
                transaction, name = parse_staging(descriptor.command or b"")
                stage = self._transactions.stream(transaction, name and address.check(name))
                prepare = staging(stage, address.parts(name)[:2] if name else None, self._entry.check)
            tally = stack.enter_context(self.status.traffic.counting())
            try:
                receive(prepare, reader, writer, self.status.in_flight, tally, partial(self._entry.enter, who), pulse)
            finally:
                if found := tally.decision():
                    self.status.audit.record(who, verb, _subject([descriptor]), found)

    @_answered
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        request = parse(ticket.ticket)
        return flight.GeneratorStream(request.schema, self._stream(request, context.peer(), caller(context)))

    @_answered
    def list_flights(self, _: flight.ServerCallContext, criteria: bytes) -> list[flight.FlightInfo]:
        pattern = parse(criteria or b"*").pattern
        return [_describe_address(summary) for summary in View(self._packets, pattern).summaries()]

    @_answered
    def get_flight_info(self, _: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        ticket = _ticket(descriptor)
        request = parse(ticket)
        view = View(self._packets, request.pattern, request.until)
        parts, found = ranges(view, request), view.summaries()
        is_part = request.since > 0 or (request.limit, request.until, request.where) != (None, None, None)
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
        if action.type == "health":
            return [json.dumps({"status": "ok", **self._position()}).encode()]
        if action.type == "stats":
            return [json.dumps(self.status.stats()).encode()]
        if action.type in ("begin", "commit", "abort"):
            answer = self._transact(action.type, action.body.to_pybytes())
            decision = ", ".join(f"{name} {answer[name]}" for name in ("stored", "duplicates") if name in answer)
            self.status.audit.record(caller(context), action.type, answer["transaction"], decision or "done")
            return [json.dumps(answer).encode()]
        if action.type == "quarantine":
            return [json.dumps(entry).encode() for entry in self.status.quarantine.entries()]
        raise RequestError(f"action {action.type!r:.60} is not known to this router; it knows {', '.join(_ACTIONS)}")

    @_answered
    def list_actions(self, _: flight.ServerCallContext) -> list[tuple[str, str]]:
        return list(_ACTIONS.items())

    @_answered
    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        _: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        request = parse(_ticket(descriptor))
        exchange.check(self._packets, request)
        with self._entry.quotas.streaming(caller(context)), self.status.traffic.counting() as tally:
            writer.begin(request.schema)
            for batch, cursor in exchange.follow(self._packets, request, context.is_cancelled):
                try:
                    writer.write_with_metadata(batch, _reached(cursor, self._packets.store.identity))
                except (pa.ArrowException, flight.FlightError, OSError):
                    return  # the reader has gone
                tally.packets_out += batch.num_rows
                # Of the whole buffers, which other readers' packets may share: a small batch's own take longer to add
                # up than to send.
                tally.bytes_out += min(batch.get_total_buffer_size(), batch.num_rows * MAX_BYTES_WITH_LIKELIHOOD)

    def _stream(self, request: Request, peer: str, who: str) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        with (
            self.status.refusals.answering("DoGet", peer, who, request.pattern.text),
            self._entry.quotas.streaming(who),
            self.status.traffic.counting() as tally,
        ):
            found = read(
                self._packets,
                request.pattern,
                request.columns,
                request.since,
                request.limit,
                request.until,
                request.where,
            )
            for batch, cursor in found:
                if batch.num_rows:
                    tally.packets_out += batch.num_rows
                    tally.bytes_out += batch.nbytes
                yield batch, _reached(cursor, self._packets.store.identity)

    def _transact(self, action: str, body: bytes) -> dict[str, Any]:
        if action == "begin":
            check_begin(body)
            return {"transaction": self._transactions.begin()}
        transaction = parse_transaction(body)
        if action == "commit":
            return {"transaction": transaction, **json.loads(self._transactions.commit(transaction).encode())}
        self._transactions.abort(transaction)
        return {"transaction": transaction}

    def _position(self) -> dict[str, str | int]:
        return {"store": self._packets.store.identity, "cursor": self._packets.head}


@lru_cache(maxsize=64)  # a hundred readers are told of the same cursor
def _reached(cursor: int, store: str) -> bytes:
    return json.dumps({"cursor": cursor, "store": store}).encode()


def _subject(given: Sequence[object]) -> str:
    """What a call is about, for the audit log: an address, a request, the name of an action."""
    for one in given:
        if isinstance(one, flight.FlightDescriptor):
            told = b"/".join(one.path) if one.descriptor_type == flight.DescriptorType.PATH else one.command or b""
        elif isinstance(one, flight.Ticket | flight.Action):
            told = one.ticket if isinstance(one, flight.Ticket) else one.type.encode()
        elif isinstance(one, bytes):
            told = one
        else:
            continue
        return bytes(told[:SUBJECT_BYTES]).decode(errors="replace")
    return ""


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
