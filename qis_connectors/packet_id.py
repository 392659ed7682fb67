"""packet_id: the content hash that makes a packet sent twice one packet.

The canonical form of a packet is little-endian and unpadded: timestamp_utc (int64), metric_delta, metric_value,
confidence, metric_stderr (float32; NaN for NULL, 0.0 for -0.0), outcome_decile (int8), sample_count (int32), the byte
length (int32; -1 for NULL) of each text field in schema order and of the likelihood, then their bytes one after the
other, text as UTF-8 and the likelihood as float32. The id is the first 128 bits of its SHA-256, in hex.

sequence, signature and key_id say how a packet travelled, not what it says, and stay out.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import nan
from struct import Struct, pack
from typing import Any

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
ID_HEX_DIGITS = 32


def packet_ids(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """The ids of valid packets, given as one sequence of values a field of OUTCOME_PACKET_SCHEMA."""
    return [sha256(form).hexdigest()[:ID_HEX_DIGITS] for form in _canonical(columns)]


def _canonical(columns: Mapping[str, Sequence[Any]]) -> Iterator[bytes]:
    texts = [[None if v is None else v.encode() for v in columns[name]] for name in _TEXTS]
    texts.append([None if v is None else pack(f"<{len(v)}f", *v) for v in columns["likelihood"]])
    floats = [[nan if v is None else v + 0.0 for v in columns[name]] for name in _FLOATS]
    numbers = (columns["timestamp_utc"], *floats, columns["outcome_decile"], columns["sample_count"])
    for head, row in zip(zip(*numbers, strict=True), zip(*texts, strict=True), strict=True):
        lengths = (-1 if text is None else len(text) for text in row)
        yield _HEAD.pack(*head, *lengths) + b"".join(text for text in row if text is not None)
