"""What a reader may ask for: a plain UTF-8 address, prefix or glob, or a JSON object that says more.

    clinical.tuberculosis/bcg_vaccine
    {"v": 1, "address": "clinical.*", "since": 1200, "until": 9000, "columns": ["node_id", "metric_delta"],
     "filters": ["sample_count", ">=", 100], "limit": 100}

`since` and `until` are cursors, the one exclusive and the other inclusive. filters.py says what a filter is; its fields
need not be among the columns, and `limit` counts the packets that it keeps.

Tickets, command descriptors, ListFlights criteria and the bodies of actions are all read here.
"""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from qis_connectors import filters as filter_grammar
from qis_connectors.address import Pattern
from qis_connectors.errors import QisError
from qis_connectors.filters import Filter
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

VERSION = 1
MAX_BYTES = 256 << 10
MAX_KEY = 200
_FIELDS = ("v", "address", "since", "until", "columns", "filters", "limit")


class RequestError(QisError):
    """Not a request; the text names the field or byte that is wrong."""


@dataclass(frozen=True)
class Request:
    """Packets stored after the cursor `since`, up to the cursor `until` and there included, that `where` keeps.

    `limit` counts the packets kept; the earliest stored come first.
    """

    pattern: Pattern
    since: int = 0
    columns: tuple[str, ...] = tuple(OUTCOME_PACKET_SCHEMA.names)
    limit: int | None = None
    until: int | None = None
    where: Filter | None = None

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([OUTCOME_PACKET_SCHEMA.field(name) for name in self.columns])


def encode(address: str, **fields: object) -> bytes:
    """The JSON form, with the fields that are not None; RequestError where JSON cannot say one of them."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return json.dumps({"v": VERSION, "address": address, **given}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"request is not JSON: {error}") from None


def parse(ticket: bytes) -> Request:
    """The request in a ticket; RequestError or AddressError, in one line, where there is none."""
    text = _text_of(ticket)
    if not text.startswith("{"):
        return Request(Pattern(text))
    return _from_json(_json_object(text))


def parse_staging(command: bytes) -> tuple[str, str | None]:
    """Transaction and address of a DoPut command, {"v": 1, "transaction": ID} and "address" where one is given."""
    fields = _versioned(_decoded(command), ("v", "transaction", "address"))
    return _transaction(fields), None if fields.get("address") is None else _text("address", fields["address"])


def parse_transaction(body: bytes) -> str:
    """The transaction to abort: {"transaction": ID}."""
    return _transaction(_versioned({"v": VERSION, **_decoded(body)}, ("v", "transaction")))


def parse_commit(body: bytes) -> tuple[str, str | None]:
    """The transaction to commit, {"transaction": ID}, and "key" where it has one."""
    fields = _versioned({"v": VERSION, **_decoded(body)}, ("v", "transaction", "key"))
    key = None if fields.get("key") is None else _text("key", fields["key"])
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise RequestError(f"request field 'key' has {len(key)} characters; 1 to {MAX_KEY} are allowed")
    return _transaction(fields), key


def check_begin(body: bytes) -> None:
    """RequestError where the body of a begin is not {"v": 1}."""
    _versioned(_decoded(body), ("v",))


def within(ticket: bytes, since: int, until: int) -> bytes:
    """The request in a ticket that `parse` has taken, for these cursors only."""
    text = ticket.decode()
    fields = json.loads(text) if text.startswith("{") else {"v": VERSION, "address": text}
    return json.dumps({**fields, "since": since, "until": until}).encode()


def _text_of(message: bytes) -> str:
    if len(message) > MAX_BYTES:
        raise RequestError(f"request is {len(message)} bytes long; at most {MAX_BYTES} are allowed")
    try:
        return message.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"request is not UTF-8: byte {error.start} is 0x{message[error.start]:02x}") from None


def _decoded(message: bytes) -> dict[str, Any]:
    text = _text_of(message)
    if not text.startswith("{"):
        raise RequestError(f"request {text!r:.60} is not a JSON object")
    return _json_object(text)


def _json_object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"request is not JSON: {error.msg} at byte {error.pos}") from None
    except RecursionError:
        raise RequestError("request is not JSON this router reads: it is nested too deeply") from None
    except ValueError:
        raise RequestError("request is not JSON this router reads: it has a number of thousands of digits") from None
    assert isinstance(fields, dict)  # it starts with a brace
    return fields


def _versioned(fields: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    if type(fields.get("v")) is not int or fields["v"] != VERSION:
        raise RequestError(
            f"request field 'v': {fields.get('v')!r:.60} is not {VERSION}, the version this router knows"
        )
    for name in fields:
        if name not in known:
            raise RequestError(f"request field {name!r:.60} is not known to this router; it knows {', '.join(known)}")
    return fields


def _transaction(fields: dict[str, Any]) -> str:
    if "transaction" not in fields:
        raise RequestError("request field 'transaction' is missing")
    return _text("transaction", fields["transaction"])


def _from_json(fields: dict[str, Any]) -> Request:
    _versioned(fields, _FIELDS)
    if "address" not in fields:
        raise RequestError("request field 'address' is missing")
    limit, until, where = (fields.get(name) for name in ("limit", "until", "filters"))
    return Request(
        Pattern(_text("address", fields["address"])),
        _integer("since", fields.get("since", 0), least=0),
        _columns(fields.get("columns", OUTCOME_PACKET_SCHEMA.names)),
        None if limit is None else _integer("limit", limit, least=1),
        None if until is None else _integer("until", until, least=0),
        None if where is None else filter_grammar.parse(where),
    )


def _text(name: str, value: object) -> str:
    # JSON can spell half a surrogate pair, which is not printable and which no UTF-8 has.
    if not isinstance(value, str) or not value.isprintable():
        raise RequestError(f"request field {name!r}: {value!r:.60} is not a text")
    return value


def _integer(name: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise RequestError(f"request field {name!r}: {value!r:.60} is not a whole number of at least {least}")
    return value


def _columns(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise RequestError("request field 'columns' is not a list of field names")
    for name in names:
        if name not in OUTCOME_PACKET_SCHEMA.names:
            raise RequestError(f"request field 'columns': {name!r:.60} is not a field of a packet")
    if len(set(names)) < len(names):
        raise RequestError("request field 'columns' names a field twice")
    return tuple(names)
