"""What a reader may ask for: a plain UTF-8 address, prefix or glob, or a JSON object that says more.

    clinical.tuberculosis/bcg_vaccine
    {"v": 1, "address": "clinical.*", "since": 1200, "until": 9000, "columns": ["node_id", "metric_delta"],
     "filters": ["sample_count", ">=", 100], "limit": 100,
     "similar_to": {"context": {"latitude": 44}, "threshold": 0.7, "definition": "near-latitude"}}
    {"v": 1, "profile": ID, "since": 1200}

`since` and `until` are cursors, the one exclusive and the other inclusive. filters.py says what a filter is; its fields
need not be among the columns, and `limit` counts the packets that are kept.

`similar_to` keeps the packets whose context scores at least `threshold` with this one, by the definition of that name:
by default its own threshold, and the definition of the address's domain. They have one more column, the last unless
`columns` says otherwise: `similarity`, the score. similarity.py has the formula. `profile` stands for the address and
the context that a node has registered.

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
MAX_CONTEXT_BYTES = 1024
SIMILARITY = pa.field("similarity", pa.float64())
_FIELDS = ("v", "address", "since", "until", "columns", "filters", "limit", "similar_to", "profile")


class RequestError(QisError):
    """Not a request; the text names the field or byte that is wrong."""


@dataclass(frozen=True)
class SimilarTo:
    """`context` is a JSON object, as text; threshold and definition None: the router's to choose."""

    context: str
    threshold: float | None = None
    definition: str | None = None


@dataclass(frozen=True)
class Request:
    """Packets stored after the cursor `since`, up to the cursor `until` and there included, that `where` keeps.

    `limit` counts the packets kept; the earliest stored come first. A `profile` is still to be looked up.
    """

    pattern: Pattern
    since: int = 0
    columns: tuple[str, ...] = tuple(OUTCOME_PACKET_SCHEMA.names)
    limit: int | None = None
    until: int | None = None
    where: Filter | None = None
    similar_to: SimilarTo | None = None
    profile: str | None = None

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([_SCORED_SCHEMA.field(name) for name in self.columns])


_SCORED_SCHEMA = OUTCOME_PACKET_SCHEMA.append(SIMILARITY)


def encode(address: str | None, **fields: object) -> bytes:
    """The JSON form, with the fields that are not None; RequestError where JSON cannot say one of them."""
    given = {name: value for name, value in {"address": address, **fields}.items() if value is not None}
    try:
        return json.dumps({"v": VERSION, **given}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"request is not JSON: {error}") from None


def similar(
    context: dict[str, Any] | None, threshold: float | None = None, definition: str | None = None
) -> dict[str, Any] | None:
    """The field `similar_to`; None without a context. RequestError where the others are given without one."""
    given = {"context": context, "threshold": threshold, "definition": definition}
    given = {name: value for name, value in given.items() if value is not None}
    if given and context is None:
        raise RequestError(f"{min(given)!r} says how similar, and nothing says to what: give a context too")
    return given or None


def parse(ticket: bytes) -> Request:
    """The request in a ticket; RequestError or AddressError, in one line, where there is none."""
    text = _text_of(ticket)
    if not text.startswith("{"):
        return Request(Pattern(text))
    return _from_json(_json_object(text))


def parse_staging(command: bytes) -> tuple[str, str | None]:
    """Transaction and address of a DoPut command, {"v": 1, "transaction": ID} and "address" where one is given."""
    fields = _versioned(_decoded(command), ("v", "transaction", "address"))
    return _transaction(fields), None if fields.get("address") is None else text_field("address", fields["address"])


def parse_transaction(body: bytes) -> str:
    """The transaction to abort: {"transaction": ID}."""
    return _transaction(_versioned({"v": VERSION, **_decoded(body)}, ("v", "transaction")))


def parse_commit(body: bytes) -> tuple[str, str | None]:
    """The transaction to commit, {"transaction": ID}, and "key" where it has one."""
    fields = _versioned({"v": VERSION, **_decoded(body)}, ("v", "transaction", "key"))
    key = None if fields.get("key") is None else text_field("key", fields["key"])
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise RequestError(f"request field 'key' has {len(key)} characters; 1 to {MAX_KEY} are allowed")
    return _transaction(fields), key


def parse_profile(body: bytes) -> str:
    """The profile to drop: {"profile": ID}."""
    fields = _versioned({"v": VERSION, **_decoded(body)}, ("v", "profile"))
    return text_field("profile", fields.get("profile"))


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
    return text_field("transaction", fields["transaction"])


def parse_similar(body: bytes, *more: str) -> tuple[SimilarTo, dict[str, Any]]:
    """A context to look up, {"v": 1, "context": {...}}, and what else of `more` the body of an action says."""
    fields = _versioned(_decoded(body), ("v", *_SIMILAR_FIELDS, *more))
    return _similar({name: fields[name] for name in _SIMILAR_FIELDS if name in fields}), fields


def _from_json(fields: dict[str, Any]) -> Request:
    _versioned(fields, _FIELDS)
    profile, similar_to = fields.get("profile"), fields.get("similar_to")
    if profile is None and "address" not in fields:
        raise RequestError("request field 'address' is missing")
    if profile is not None and (beside := {"address", "filters", "similar_to"} & fields.keys()):
        raise RequestError(f"request field {min(beside)!r}: the profile says it already")
    known = OUTCOME_PACKET_SCHEMA if profile is None and similar_to is None else _SCORED_SCHEMA
    limit, until, where = (fields.get(name) for name in ("limit", "until", "filters"))
    return Request(
        Pattern("*" if profile is not None else text_field("address", fields["address"])),
        integer_field("since", fields.get("since", 0), least=0),
        _columns(fields.get("columns", known.names), known),
        None if limit is None else integer_field("limit", limit, least=1),
        None if until is None else integer_field("until", until, least=0),
        None if where is None else filter_grammar.parse(where),
        None if similar_to is None else _similar(similar_to),
        None if profile is None else text_field("profile", profile),
    )


_SIMILAR_FIELDS = ("context", "threshold", "definition")


def _similar(value: object) -> SimilarTo:
    if not isinstance(value, dict):
        raise RequestError(f"request field 'similar_to': {value!r:.60} is not an object with a context")
    for name in value:
        if name not in _SIMILAR_FIELDS:
            raise RequestError(f"request field 'similar_to': {name!r:.60} is not one of {', '.join(_SIMILAR_FIELDS)}")
    context, threshold, definition = (value.get(name) for name in _SIMILAR_FIELDS)
    if not isinstance(context, dict):
        raise RequestError(f"request field 'context': {context!r:.60} is not a JSON object")
    try:
        # One text for one context: readers of the same share a channel.
        text = json.dumps(context, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        raise RequestError(
            "request field 'context' is nested too deeply, or has a number of thousands of digits"
        ) from None
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_CONTEXT_BYTES:
        raise RequestError(f"request field 'context' is {size} bytes long; at most {MAX_CONTEXT_BYTES} are allowed")
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and 0 <= threshold <= 1):
        raise RequestError(f"request field 'threshold': {threshold!r:.60} is not a number from 0 to 1")
    named = None if definition is None else text_field("definition", definition)
    return SimilarTo(text, None if threshold is None else float(threshold), named)


def text_field(name: str, value: object) -> str:
    # JSON can spell half a surrogate pair, which is not printable and which no UTF-8 has.
    if not isinstance(value, str) or not value.isprintable():
        raise RequestError(f"request field {name!r}: {value!r:.60} is not a text")
    return value


def integer_field(name: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**63:
        raise RequestError(f"request field {name!r}: {value!r:.60} is not a whole number of at least {least}")
    return value


def _columns(names: object, known: pa.Schema) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise RequestError("request field 'columns' is not a list of field names")
    for name in names:
        if name == SIMILARITY.name and name not in known.names:
            raise RequestError(f"request field 'columns': {name!r} is there where 'similar_to' says to what")
        if name not in known.names:
            raise RequestError(f"request field 'columns': {name!r:.60} is not a field of a packet")
    if len(set(names)) < len(names):
        raise RequestError("request field 'columns' names a field twice")
    return tuple(names)
