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
    DoAction           see actions.py

An acknowledgement is JSON in app_metadata, one a batch: {"stored": n, "duplicates": m, "cursor": c}.
Each batch of a DoGet has app_metadata {"cursor": N, "store": ID}: everything that matches up to N has been sent, and
a reader that asks again with since=N goes on strictly after it. The last batch, without rows where nothing was new,
takes N to the log's end unless `limit` came first. A cursor means something only together with the store's ID.
A DoExchange sends the same, the batches without rows now and then, so that either side notices when the other is gone.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial, wraps
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import flight

from qis_connectors import address
from qis_connectors.errors import QisError
from qis_connectors.packet import MAX_BYTES_WITH_LIKELIHOOD, OUTCOME_PACKET_SCHEMA
from qis_connectors.request import Request, parse, parse_staging, within
from qis_connectors.router import exchange
from qis_connectors.router.access import Access, Permit, Tokens
from qis_connectors.router.actions import DESCRIPTIONS, VERBS, Actions
from qis_connectors.router.caller import caller
from qis_connectors.router.deposit import depositing, receive, staging
from qis_connectors.router.endpoints import ranges
from qis_connectors.router.entry import Entry
from qis_connectors.router.idle import Idle
from qis_connectors.router.listen import cut_connections
from qis_connectors.router.packet_log.chains import ChainError
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.selection import Scorer
from qis_connectors.router.packet_log.view import Summary, View
from qis_connectors.router.profiles import Profiles
from qis_connectors.router.similar import Similar
from qis_connectors.router.status import Status
from qis_connectors.router.transactions import Transactions

SUBJECT_BYTES = 300
"""So much of what a call is about goes into the audit log."""

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
    def __init__(
        self,
        location: str,
        tls: dict[str, Any],
        access: Access,
        entry: Entry,
        status: Status,
        transactions: Transactions,
        similar: Similar,
        profiles: Profiles,
    ) -> None:
        self.status = status
        self._access, self._entry = access, entry
        self.idle = Idle(entry.quotas.idle, lambda peer: cut_connections(self.port, peer))
        self._packets = status.log
        self._transactions, self._similar, self._profiles = transactions, similar, profiles
        self._actions = Actions(status, transactions, similar, profiles)
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
            verb, name = "deposit", address.check(_path(descriptor))
            permit = self._access.admit(context, "deposit", name)
            prepare = depositing(self._packets, name, permit, self._entry)
        else:
            verb = "stage"
            transaction, target = parse_staging(descriptor.command or b"")
            permit = self._access.admit(context, "deposit", address.check(target) if target else "")
            allow = cache(lambda name: self._access.admit(context, "deposit", name))
            stage = self._transactions.stream(transaction, target, allow, permit.node_id or "")
            prepare = staging(stage, target, permit, self._entry.check)
        site = _site(permit, context)
        with (
            self._entry.quotas.streaming(site),
            self.idle.watching(context.peer()) as pulse,
            self.status.traffic.counting() as tally,
        ):
            try:
                receive(prepare, reader, writer, self.status.in_flight, tally, partial(self._entry.enter, site), pulse)
            finally:
                if found := tally.decision():
                    self.status.audit.record(caller(context), verb, _subject([descriptor]), found)

    @_answered
    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        request, scorer, permit = self._asked(context, ticket.ticket)
        return flight.GeneratorStream(request.schema, self._stream(context, request, scorer, permit))

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
        permit = self._access.admit(context, VERBS.get(action.type, "join"))
        answers = self._actions.answer(action.type, action.body.to_pybytes(), permit.node_id, caller(context))
        return [json.dumps(one).encode() for one in answers]

    @_answered
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        self._access.admit(context, "join")
        return list(DESCRIPTIONS.items())

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
        with self._entry.quotas.streaming(_site(permit, context)), self.status.traffic.counting() as tally:
            writer.begin(request.schema)
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
        self, context: flight.ServerCallContext, request: Request, scorer: Scorer | None, permit: Permit
    ) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        with (
            self.status.refusals.answering("DoGet", context.peer(), caller(context), request.pattern.text),
            self._entry.quotas.streaming(_site(permit, context)),
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
                scorer,
            )
            for batch, cursor in found:
                permit.check()
                if batch.num_rows:
                    tally.packets_out += batch.num_rows
                    tally.bytes_out += batch.nbytes
                yield batch, _reached(cursor, self._packets.store.identity)


def _site(permit: Permit, context: flight.ServerCallContext) -> str:
    """Whose quota a call uses up: the member's, and where there is no network that of the host it comes from."""
    return permit.node_id or caller(context)


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
