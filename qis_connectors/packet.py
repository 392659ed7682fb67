"""The outcome packet: an Arrow record batch in which one row is one packet of at most 512 bytes.

`complete` is the only door: whatever enters the network has been through it.
"""

from functools import cache, lru_cache
from itertools import pairwise
from math import isfinite
from typing import Any

import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.packet_id import FEW, ID_HEX_DIGITS, packet_id_column, packet_ids
from qis_connectors.packet_rules import RULES, are_within, hold

INTERCHANGE_SCHEMA = pa.schema(
    [
        ("node_id", pa.string()),
        ("timestamp_utc", pa.int64()),
        ("domain", pa.string()),
        ("problem_type", pa.string()),
        ("model_architecture", pa.string()),
        ("training_phase", pa.string()),
        ("metric_name", pa.string()),
        ("metric_delta", pa.float32()),
        ("metric_value", pa.float32()),
        ("confidence", pa.float32()),
        ("intervention_type", pa.string()),
        ("intervention_params", pa.string()),
        ("outcome_decile", pa.int8()),
        ("sample_count", pa.int32()),
        ("raw_data_hash", pa.string()),
    ]
)
"""The fifteen published fields. A client that knows only these can deposit and read."""

OUTCOME_PACKET_SCHEMA = pa.schema(
    [
        *INTERCHANGE_SCHEMA,
        pa.field("packet_id", pa.string()),
        pa.field("metric_stderr", pa.float32()),
        pa.field("context", pa.string()),
        pa.field("likelihood", pa.list_(pa.float32())),
        pa.field("sequence", pa.int64()),
        pa.field("signature", pa.binary()),
        pa.field("key_id", pa.string()),
    ]
)
"""The fifteen, then ours, all of them nullable but packet_id, which `complete` fills in."""

MAX_BYTES = 512
MAX_BYTES_WITH_LIKELIHOOD = 640
SIZE_ROWS = 1000
"""A packet's size is its share of an Arrow IPC stream of this many packets like it."""

TEXT_FIELDS = [field.name for field in OUTCOME_PACKET_SCHEMA if field.type in (pa.string(), pa.binary())]

Columns = dict[str, list[Any]]
"""A batch with all fields of OUTCOME_PACKET_SCHEMA as plain lists, one value a packet."""


class PacketError(QisError):
    """A batch was refused whole: `field` is the culprit, `row` its first bad row (None: the batch itself)."""

    def __init__(self, field: str, reason: str, row: int | None = None) -> None:
        super().__init__(f"field {field!r}{'' if row is None else f', row {row}'}: {reason}")
        self.field, self.reason, self.row = field, reason, row


def complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with all fields of OUTCOME_PACKET_SCHEMA, every packet valid and with its packet_id.

    `batch` holds the fifteen fields and then any of ours, each of exactly its type; names, order and types count,
    nullability flags and metadata do not. A batch passes or is refused whole: PacketError names the first culprit.
    """
    validate(batch)
    return complete_validated(batch)


def check(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch as `complete` takes and refuses it, with all fields, but without packet_ids where none is given: who
    sends packets need not hash them, for the router does not take a sender's word for a hash.
    """
    validate(batch)
    arrays = _filled(batch)
    if arrays[_ID].null_count < batch.num_rows:
        return complete_validated(batch)
    if not _are_many_good(arrays):
        _check(arrays)
    return pa.RecordBatch.from_arrays(arrays, schema=OUTCOME_PACKET_SCHEMA)


def complete_validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`complete` of a batch that `validate` has let through, or of several such in one."""
    arrays = _filled(batch)
    if _are_many_good(arrays):
        ids = packet_id_column(pa.RecordBatch.from_arrays(arrays, schema=OUTCOME_PACKET_SCHEMA))
    else:
        ids = pa.array(packet_ids(_check(arrays)), pa.string())
    given = arrays[_ID]
    if given.null_count < len(given) and given != ids:
        for row, (one, content) in enumerate(zip(given.to_pylist(), ids.to_pylist(), strict=True)):
            if one not in (None, content):
                raise PacketError("packet_id", f"{one!r:.60} is not the hash of the packet's content", row)
    arrays[_ID] = ids
    return pa.RecordBatch.from_arrays(arrays, schema=OUTCOME_PACKET_SCHEMA)


def validate(batch: pa.RecordBatch | pa.Table) -> None:
    """PacketError where its buffers contradict each other: any kernel would crash the process on them."""
    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise PacketError("batch", f"is not a valid Arrow batch ({_first_line(error)})") from None


def conform(table: pa.Table) -> pa.Table:
    """`table` in the order and types of the schema: what another engine wrote (large strings, doubles, no extra
    order) becomes what the wire takes. Unknown and missing fields and values that do not fit raise PacketError.
    """
    for name in table.column_names:
        if name not in OUTCOME_PACKET_SCHEMA.names:
            raise PacketError(name, "is not a field of a packet")
    columns, fields = [], []
    for field in OUTCOME_PACKET_SCHEMA:
        if field.name in table.column_names:
            try:
                columns.append(table.column(field.name).cast(field.type))
            except pa.ArrowException as error:
                raise PacketError(field.name, f"does not fit {field.type} ({_first_line(error)})") from None
            fields.append(field)
        elif field.name in INTERCHANGE_SCHEMA.names:
            raise PacketError(field.name, "is missing")
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def wire_bytes(columns: Columns) -> list[float]:
    """Bytes of each packet in an Arrow IPC stream of SIZE_ROWS packets like it."""
    fixed = _bytes_without_text()
    texts = zip(*(columns[name] for name in TEXT_FIELDS), strict=True)
    lists = columns["likelihood"]
    return [fixed + sum(map(_utf8_length, row)) + 4 * len(items or ()) for row, items in zip(texts, lists, strict=True)]


def ipc_bytes(batch: pa.RecordBatch) -> int:
    """Length of the batch as one Arrow IPC stream, schema included."""
    sink = pa.MockOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return int(sink.size())


def _filled(batch: pa.RecordBatch) -> list[pa.Array]:
    """The columns of all fields, those not given as NULL; names, order and types checked."""
    try:
        names = batch.schema.names
    except UnicodeDecodeError:
        raise PacketError("batch", "has a field whose name is not UTF-8") from None
    if batch.schema.equals(INTERCHANGE_SCHEMA, check_metadata=True):
        nulls = _few_nulls if batch.num_rows <= FEW else pa.nulls
        return [*batch.columns, *(nulls(batch.num_rows, field.type) for field in _OURS)]
    _check_names(names)
    columns = []
    for field in OUTCOME_PACKET_SCHEMA:
        if field.name not in names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        if column.type != field.type:
            raise PacketError(field.name, f"has type {column.type}, not {field.type}")
        columns.append(column)
    return columns


def _check_names(names: list[str]) -> None:
    position = {name: at for at, name in enumerate(OUTCOME_PACKET_SCHEMA.names)}
    for name in names:
        if name not in position:
            raise PacketError(name, "is not a field of a packet")
    for name in INTERCHANGE_SCHEMA.names:
        if name not in names:
            raise PacketError(name, "is missing")
    for before, name in pairwise(names):
        if position[before] >= position[name]:
            raise PacketError(name, f"comes after {before!r}: out of order or given twice")


def _are_many_good(arrays: list[pa.Array]) -> bool:
    """Whether `_check` would find nothing, by columns, which is quicker for many packets; False for few."""
    if len(arrays[_ID]) <= FEW:
        return False
    batch = pa.RecordBatch.from_arrays(arrays, schema=OUTCOME_PACKET_SCHEMA)
    # Sizes before values: no rule looks at a text of unbounded length.
    return (
        all(batch[name].null_count == 0 for name in INTERCHANGE_SCHEMA.names)
        and are_within(batch, _bytes_without_text() + ID_HEX_DIGITS, MAX_BYTES, MAX_BYTES_WITH_LIKELIHOOD)
        and hold(batch)
    )


def _check(arrays: list[pa.Array]) -> Columns:
    """The packets as lists; PacketError on the first culprit."""
    rows = len(arrays[_ID])
    columns: Columns = {
        name: [None] * rows if column.null_count == rows else column.to_pylist()
        for name, column in zip(OUTCOME_PACKET_SCHEMA.names, arrays, strict=True)
    }
    # Sizes first: nothing below looks at a text of unbounded length. An id not yet given takes its room all the same.
    _check_sizes({**columns, "packet_id": ["0" * ID_HEX_DIGITS] * rows})
    _check_values(columns)
    return columns


def _check_sizes(columns: Columns) -> None:
    for row, (size, items) in enumerate(zip(wire_bytes(columns), columns["likelihood"], strict=True)):
        limit = MAX_BYTES if items is None else MAX_BYTES_WITH_LIKELIHOOD
        if size > limit:
            lengths = {name: _utf8_length(columns[name][row]) for name in TEXT_FIELDS}
            lengths["likelihood"] = 4 * len(items or ())
            longest = max(lengths, key=lengths.__getitem__)
            reason = (
                f"is {lengths[longest]} bytes long and makes the packet {size:.0f} bytes; at most {limit} are allowed"
            )
            raise PacketError(longest, reason, row)


def _check_values(columns: Columns) -> None:
    for name in INTERCHANGE_SCHEMA.names:
        if None in columns[name]:
            raise PacketError(name, "is null", columns[name].index(None))
    for name, is_good, reason in RULES:
        for value in set(columns[name]) if name in _REPETITIVE else columns[name]:
            if value is not None and not is_good(value):
                raise PacketError(name, f"{value!r:.60} {reason}", columns[name].index(value))
    for row, items in enumerate(columns["likelihood"]):
        if items is not None and not all(item is not None and isfinite(item) for item in items):
            raise PacketError("likelihood", "holds a value that is not a finite number", row)


_OURS = list(OUTCOME_PACKET_SCHEMA)[len(INTERCHANGE_SCHEMA) :]
_ID = OUTCOME_PACKET_SCHEMA.get_field_index("packet_id")
_REPETITIVE = frozenset(TEXT_FIELDS)


@lru_cache(maxsize=5 * FEW)
def _few_nulls(rows: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(rows, kind)


@cache
def _bytes_without_text() -> float:
    empty = {pa.string(): "", pa.binary(): b"", pa.list_(pa.float32()): []}
    row = {field.name: empty.get(field.type, 0) for field in OUTCOME_PACKET_SCHEMA}
    batch = pa.RecordBatch.from_pylist([row] * SIZE_ROWS, schema=OUTCOME_PACKET_SCHEMA)
    return ipc_bytes(batch) / SIZE_ROWS


def _utf8_length(text: str | bytes | None) -> int:
    if text is None:
        return 0
    return len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
