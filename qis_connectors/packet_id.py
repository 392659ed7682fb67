"""packet_id: the content hash that makes a packet sent twice one packet.

The canonical form of a packet is little-endian and unpadded: timestamp_utc (int64), metric_delta, metric_value,
confidence, metric_stderr (float32; NaN for NULL, 0.0 for -0.0), outcome_decile (int8), sample_count (int32), the byte
length (int32; -1 for NULL) of each text field in schema order and of the likelihood, then their bytes one after the
other, text as UTF-8 and the likelihood as float32. The id is the first 128 bits of its SHA-256, in hex.

sequence, signature and key_id say how a packet travelled, not what it says, and stay out. What chain.py signs is this
form and the packet's place.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import nan
from struct import Struct, pack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FLOATS = ("metric_delta", "metric_value", "confidence", "metric_stderr")
_TEXTS = (
    "node_id",
    "domain",
    "problem_type",
    "model_architecture",
    "training_phase",
    "metric_name",
    "intervention_type",
    "intervention_params",
    "raw_data_hash",
    "context",
)
_HEAD = Struct(f"<q{len(_FLOATS)}fbi{len(_TEXTS) + 1}i")
_HEAD_COLUMNS = np.dtype(
    [
        ("timestamp_utc", "<i8"),
        *((name, "<f4") for name in _FLOATS),
        ("outcome_decile", "i1"),
        ("sample_count", "<i4"),
        *((name, "<i4") for name in (*_TEXTS, "likelihood")),
    ]
)
"""The same as _HEAD, packed."""

_NAMES = _HEAD_COLUMNS.names or ()

ID_HEX_DIGITS = 32
FEW = 48
"""Up to so many rows plain lists are quicker: Arrow's kernels cost some 5 us each, however few the rows."""


def packet_ids(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """The ids of valid packets, given as one sequence of values a field of OUTCOME_PACKET_SCHEMA."""
    return [sha256(form).hexdigest()[:ID_HEX_DIGITS] for form in _canonical(columns)]


def packet_id_column(batch: pa.RecordBatch) -> pa.StringArray:
    """The ids of valid packets, given as a batch of OUTCOME_PACKET_SCHEMA: the same as `packet_ids` finds, but quicker
    for many.
    """
    forms = canonical_forms(batch)
    digests = b"".join([sha256(form).digest()[: ID_HEX_DIGITS // 2] for form in forms])
    offsets = np.arange(0, ID_HEX_DIGITS * len(forms) + 1, ID_HEX_DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(len(forms), pa.py_buffer(offsets), pa.py_buffer(digests.hex().encode()))


def canonical_forms(batch: pa.RecordBatch) -> list[bytes]:
    """Of valid packets, given as a batch of OUTCOME_PACKET_SCHEMA."""
    if batch.num_rows <= FEW:
        return list(_canonical({name: batch[name].to_pylist() for name in _NAMES}))
    texts = [batch[name].view(pa.binary()) for name in _TEXTS]
    texts.append(_as_bytes(batch["likelihood"]))
    head = np.empty(batch.num_rows, _HEAD_COLUMNS)
    for name in ("timestamp_utc", "outcome_decile", "sample_count"):
        head[name] = batch[name].to_numpy()
    for name in _FLOATS:
        column = batch[name] if batch[name].null_count == 0 else batch[name].fill_null(nan)
        head[name] = column.to_numpy() + np.float32(0)
    for name, text in zip((*_TEXTS, "likelihood"), texts, strict=True):
        head[name] = byte_lengths(text, null=-1)
    heads = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_HEAD.size), len(head), [None, pa.py_buffer(head)])
    given = [text for text in texts if text.null_count < len(text)]
    join = {"null_handling": "replace", "null_replacement": b""}
    forms: list[bytes] = pc.binary_join_element_wise(heads.cast(pa.binary()), *given, b"", **join).to_pylist()
    return forms


def byte_lengths(column: pa.Array, null: int = 0) -> np.typing.NDArray[Any]:
    """Of texts or of bytes."""
    if column.null_count == len(column):
        return np.full(len(column), null, np.int32)
    if column.null_count:  # a NULL may stand on bytes all the same
        return pc.binary_length(column).fill_null(null).to_numpy()  # type: ignore[no-any-return]
    return np.diff(np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, 4 * column.offset))


def _as_bytes(lists: pa.ListArray) -> pa.BinaryArray:
    if lists.null_count == len(lists):
        return pa.nulls(len(lists), pa.binary())
    return pa.array([None if v is None else pack(f"<{len(v)}f", *v) for v in lists.to_pylist()], pa.binary())


def _canonical(columns: Mapping[str, Sequence[Any]]) -> Iterator[bytes]:
    texts = [[None if v is None else v.encode() for v in columns[name]] for name in _TEXTS]
    texts.append([None if v is None else pack(f"<{len(v)}f", *v) for v in columns["likelihood"]])
    floats = [[nan if v is None else v + 0.0 for v in columns[name]] for name in _FLOATS]
    numbers = (columns["timestamp_utc"], *floats, columns["outcome_decile"], columns["sample_count"])
    for head, row in zip(zip(*numbers, strict=True), zip(*texts, strict=True), strict=True):
        lengths = (-1 if text is None else len(text) for text in row)
        yield _HEAD.pack(*head, *lengths) + b"".join(text for text in row if text is not None)
