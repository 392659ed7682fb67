"""A view: the log up to one cursor, as it is at one moment, at the addresses of one pattern."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa

from qis_connectors.address import Pattern
from qis_connectors.router.packet_log.catalogue import Piece
from qis_connectors.router.packet_log.chunk import CURSOR, SPAN, STORED_SCHEMA, Chunk
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.packs import RECORD_ROWS
from qis_connectors.router.packet_log.record import DamagedError

NOTHING = pa.RecordBatch.from_pylist([], schema=STORED_SCHEMA)

Ordered = tuple[pa.RecordBatch, int]
"""Packets in the order of their cursors, and the cursor up to which there are no others."""


@dataclass(frozen=True)
class Summary:
    """What an address holds; times are the packets' own, ms since the epoch."""

    address: str
    packets: int
    bytes: int
    first_time: int
    last_time: int


class View:
    """Up to the cursor `packed` in packs, from there to `head` in memory: what is packed later stays here too, so a
    reader that takes its time misses nothing and sees nothing twice.
    """

    def __init__(self, log: PacketLog, pattern: Pattern, until: int | None = None) -> None:
        self.head = log.head if until is None else min(log.head, until)
        # In this order: what is not in the tail now is in the packs now.
        self._tail = [chunk for chunk in log.tail.chunks if chunk.first <= self.head]
        self._packed = self._tail[0].first - 1 if self._tail else self.head
        self._catalogue, self._packs = log.store.catalogue, log.store.packs
        self._pattern, self._is_exact = pattern, pattern.is_exact
        self._ids = self._matching()
        self._wanted = json.dumps(self._ids)

    def after(self, position: int, columns: Sequence[str]) -> Iterator[Ordered]:
        """These columns, and the cursors, of all packets behind the cursor `position`, in the order of storing.

        Batches have RECORD_ROWS at most. While the reader takes its time nothing is held open, and no more in memory
        than the batch it has, which may stand on the bytes of its file: each step asks anew for what comes next.
        """
        names = [*columns, CURSOR]
        while position < self._packed and (pieces := self._pieces(position)):
            try:
                for batch, reached in self._one_address(pieces, names) if self._is_exact else self._span(pieces, names):
                    upto = min(reached, self._packed)
                    yield from _between(position, batch, upto)
                    position = max(position, upto)
            except FileNotFoundError:
                continue  # merged meanwhile: the catalogue knows of another
        for batch, reached in self._in_memory(position, names):
            upto = min(reached, self.head)
            yield from _between(position, batch, upto)
            position = upto

    def summaries(self) -> list[Summary]:
        """The addresses, by name."""
        found = [Summary(*row) for row in self._catalogue.summaries(self._wanted, self._packed)]
        for chunk in self._tail:
            found += _summaries_of(chunk, self._pattern)
        found.sort(key=lambda one: one.address)
        return [_total(list(same)) for _, same in groupby(found, lambda one: one.address)]

    def packets_by_span(self, position: int) -> list[tuple[int, int]]:
        """The spans in which something comes after the cursor `position`, and about how many packets each has."""
        found = Counter(dict(self._catalogue.packets_by_span(self._wanted, position, self._packed)))
        for chunk in self._tail:
            if chunk.last > position:
                found[chunk.first // SPAN] += sum(n for address, n in chunk.runs if self._pattern.matches(address))
        return sorted((+found).items())

    def _matching(self) -> list[int]:
        if not self._is_exact:
            return [address for address, name in self._catalogue.addresses() if self._pattern.matches(name)]
        found = self._catalogue.address(self._pattern.text)
        return [] if found is None else [found]

    def _pieces(self, position: int) -> list[Piece]:
        """Of one address the next RECORD_ROWS or a piece more, in order; of several all of the next span, by record."""
        if not self._ids:
            return []
        if self._is_exact:
            return self._catalogue.pieces_of(self._ids[0], position, self._packed, RECORD_ROWS)
        span = self._catalogue.next_span(self._wanted, position, self._packed)
        return [] if span is None else self._catalogue.pieces_in(span, self._wanted, self._packed)

    def _one_address(self, pieces: Sequence[Piece], names: Sequence[str]) -> Iterator[Ordered]:
        """Large pieces as they stand in their files, small ones together."""
        small: list[pa.RecordBatch] = []
        for before, piece in zip([None, *pieces], pieces, strict=False):
            batch = self._record(piece, names).slice(piece.start, piece.packets)
            if piece.packets < RECORD_ROWS // 2:
                small.append(batch)
                continue
            if before and small:
                yield pa.concat_batches(small), before.last
                small = []
            yield batch, piece.last
        if small:
            yield pa.concat_batches(small), pieces[-1].last

    def _span(self, pieces: Sequence[Piece], names: Sequence[str]) -> Iterator[Ordered]:
        """All of these, RECORD_ROWS at a time."""
        parts = []
        for _, found in groupby(pieces, lambda piece: piece[:2]):
            of_record = list(found)
            record = self._record(of_record[0], names)
            rows = np.concatenate([np.arange(one.start, one.start + one.packets) for one in of_record])
            cursors = record[CURSOR].to_numpy()[rows[rows < record.num_rows]]
            order = cursors.argsort()
            parts.append((record, rows[order], cursors[order]))
        cursors = np.sort(np.concatenate([part[2] for part in parts]))
        first = 0
        for last in [*cursors[RECORD_ROWS - 1 :: RECORD_ROWS], max(piece.last for piece in pieces)]:
            cut = [
                _taken(record, rows[slice(*of_part.searchsorted([first, last + 1]))]) for record, rows, of_part in parts
            ]
            yield _sorted([batch for batch in cut if batch.num_rows] or cut[:1]), int(last)
            first = last + 1

    def _record(self, piece: Piece, names: Sequence[str]) -> pa.RecordBatch:
        """Without rows where it is damaged."""
        try:
            return self._packs.read(piece.pack, piece.position).select(names)
        except DamagedError:
            return NOTHING.select(names)

    def _in_memory(self, position: int, names: Sequence[str]) -> Iterator[Ordered]:
        """Small chunks together."""
        held: list[pa.RecordBatch] = []
        reached = 0
        for chunk in self._tail:
            if chunk.last > position:
                batch = chunk.numbered().of(self._pattern.matches).select(names)
                if held and sum(one.num_rows for one in held) + batch.num_rows > RECORD_ROWS:
                    yield pa.concat_batches(held), reached
                    held = []
                held.append(batch)
                reached = chunk.last
        if held:
            yield pa.concat_batches(held), reached


def _between(position: int, batch: pa.RecordBatch, upto: int) -> Iterator[Ordered]:
    """The packets behind the cursor `position`, the last batch of them with `upto`; one batch at least."""
    start, stop = batch[CURSOR].to_numpy().searchsorted([position, upto], side="right")
    for at in range(start, max(stop, start + 1), RECORD_ROWS):
        cut = batch.slice(at, min(RECORD_ROWS, stop - at))
        yield cut, upto if at + RECORD_ROWS >= stop else cut[CURSOR][-1].as_py()


def _taken(record: pa.RecordBatch, rows: "np.typing.NDArray[np.int64]") -> pa.RecordBatch:
    if len(rows) and (np.diff(rows) == 1).all():
        return record.slice(rows[0], len(rows))
    return record.take(pa.array(rows))


def _sorted(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    whole = pa.concat_batches(batches)
    return whole.take(pa.array(whole[CURSOR].to_numpy().argsort()))


def _summaries_of(chunk: Chunk, pattern: Pattern) -> Iterator[Summary]:
    times = chunk.packets["timestamp_utc"].to_numpy()
    each = chunk.packets.get_total_buffer_size() / chunk.packets.num_rows
    at = 0
    for address, rows in chunk.runs:
        if pattern.matches(address):
            of_run = times[at : at + rows]
            yield Summary(address, rows, round(each * rows), int(of_run.min()), int(of_run.max()))
        at += rows


def _total(parts: Sequence[Summary]) -> Summary:
    return Summary(
        parts[0].address,
        sum(part.packets for part in parts),
        sum(part.bytes for part in parts),
        min(part.first_time for part in parts),
        max(part.last_time for part in parts),
    )
