"""A record: one Arrow record batch on the disk, with the addresses of its rows; whether it is whole can be told.

Everything in a store that cannot be made anew is a sequence of these, 64 bytes aligned:

    magic          8 bytes
    checksum       uint64    XXH3 of everything after it, up to the payload's end
    sequence       uint64    in a journal, one more than the record's before; else 0
    first          int64     the cursor of the first row
    rows           uint32
    runs' length   uint32
    payload length uint64
    16 bytes of zeros
    runs           JSON      [[address, rows], ...], in the order of the rows; spaces up to the next 64 bytes
    payload                  the batch's Arrow IPC message, without its schema; zeros up to the next 64 bytes
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import pyarrow as pa
from xxhash import xxh3_64, xxh3_64_intdigest

MAGIC = b"QISREC\r\n"
ALIGNMENT = 64
_HEAD = Struct("<8sQQqIIQ16x")
_CHECKED_FROM = 16

Runs = tuple[tuple[str, int], ...]
"""Addresses and how many rows each of them has, one after the other."""


class DamagedError(Exception):
    """The bytes there are not the record that was written."""


@dataclass(frozen=True)
class Record:
    """Where one stands in its file: from `position` to `end`, its runs and its payload in between."""

    position: int
    sequence: int
    first: int
    rows: int
    runs: int
    payload: int
    end: int


def encode(batch: pa.RecordBatch, runs: Runs, first: int, sequence: int = 0) -> tuple[list[Any], int]:
    """The parts to be written one after the other, and their length."""
    told = json.dumps(runs, separators=(",", ":")).encode()
    told += b" " * (-len(told) % ALIGNMENT)
    payload = batch.serialize()
    rest = _HEAD.pack(MAGIC, 0, sequence, first, batch.num_rows, len(told), payload.size)[_CHECKED_FROM:]
    checksum = xxh3_64(rest)
    checksum.update(told)
    checksum.update(payload)
    head = _HEAD.pack(MAGIC, checksum.intdigest(), 0, 0, 0, 0, 0)[:_CHECKED_FROM]
    padding = bytes(-payload.size % ALIGNMENT)
    return [head + rest + told, payload, padding], _HEAD.size + len(told) + payload.size + len(padding)


def parse(data: memoryview, position: int) -> Record:
    """The record that starts there; DamagedError where there is none, or not all of it."""
    if len(data) < position + _HEAD.size or data[position : position + len(MAGIC)] != MAGIC:
        raise DamagedError
    _, checksum, sequence, first, rows, told, size = _HEAD.unpack_from(data, position)
    payload = position + _HEAD.size + told
    if payload + size > len(data) or xxh3_64_intdigest(data[position + _CHECKED_FROM : payload + size]) != checksum:
        raise DamagedError
    return Record(position, sequence, first, rows, payload - told, payload, payload + size + -size % ALIGNMENT)


def scan(data: memoryview, raw: Any) -> Iterator[Record]:  # noqa: ANN401  # `raw` is the mmap or bytes under `data`
    """The whole records of a file, in their order, those behind a damaged one too."""
    position = 0
    while (position := raw.find(MAGIC, position)) >= 0:
        try:
            if position % ALIGNMENT:
                raise DamagedError
            record = parse(data, position)
        except DamagedError:
            position += 1
            continue
        yield record
        position = record.end


def runs(data: memoryview, record: Record) -> Runs:
    """Its addresses."""
    told = json.loads(bytes(data[record.runs : record.payload]))
    return tuple((address, rows) for address, rows in told)


def decode(data: pa.Buffer, record: Record, schema: pa.Schema) -> pa.RecordBatch:
    """Its batch, on the bytes of `data` themselves."""
    return pa.ipc.read_record_batch(data.slice(record.payload, record.end - record.payload), schema)


def joined(runs: Sequence[tuple[str, int]]) -> Runs:
    """The same with neighbours of one address made one."""
    found: list[tuple[str, int]] = []
    for address, rows in runs:
        if found and found[-1][0] == address:
            found[-1] = address, found[-1][1] + rows
        elif rows:
            found.append((address, rows))
    return tuple(found)
