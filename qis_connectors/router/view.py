"""A view: the log up to one cursor, as it is at one moment, at the addresses of one pattern."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from qis_connectors.address import Pattern
from qis_connectors.router.catalogue import Piece
from qis_connectors.router.chunk import SPAN, Chunk
from qis_connectors.router.log import PacketLog
from qis_connectors.router.record import DamagedError


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
        self.packed = self._tail[0].first - 1 if self._tail else self.head
        self._catalogue, self._packs = log.store.catalogue, log.store.packs
        self._pattern = pattern
        self._ids = self._matching()
        self._wanted = json.dumps(self._ids)

    def next_packed(self, position: int, rows: int) -> tuple[list[pa.RecordBatch], int]:
        """What comes after the cursor `position` in the packs, about so many rows, and the last cursor that is looked
        at with that; 0 where there is no more.

        Of one address in the order of the cursors; of several in no order, all there is in the next span.
        """
        while True:
            pieces = self._pieces(position, rows)
            try:
                return [batch for piece in pieces for batch in self._read(piece)], pieces[-1].last if pieces else 0
            except FileNotFoundError:
                continue  # merged meanwhile: the catalogue knows of another

    def next_in_memory(self, position: int, rows: int) -> tuple[list[pa.RecordBatch], int]:
        """The same out of the tail, in the order of the cursors."""
        found: list[pa.RecordBatch] = []
        reached = 0
        for chunk in self._tail:
            if chunk.last > position and rows > 0:
                found.append(chunk.of(self._pattern.matches))
                rows -= found[-1].num_rows
                reached = chunk.last
        return found, reached

    def summaries(self) -> list[Summary]:
        """The addresses, by name."""
        found = [Summary(*row) for row in self._catalogue.summaries(self._wanted, self.packed)]
        for chunk in self._tail:
            found += _summaries_of(chunk, self._pattern)
        found.sort(key=lambda one: one.address)
        return [_total(list(same)) for _, same in groupby(found, lambda one: one.address)]

    def packets_by_span(self, position: int) -> list[tuple[int, int]]:
        """The spans in which something comes after the cursor `position`, and about how many packets each has."""
        found = Counter(dict(self._catalogue.packets_by_span(self._wanted, position, self.packed)))
        for chunk in self._tail:
            if chunk.last > position:
                found[chunk.first // SPAN] += sum(n for address, n in chunk.runs if self._pattern.matches(address))
        return sorted((+found).items())

    def _matching(self) -> list[int]:
        if not self._pattern.is_exact:
            return [address for address, name in self._catalogue.addresses() if self._pattern.matches(name)]
        found = self._catalogue.address(self._pattern.text)
        return [] if found is None else [found]

    def _pieces(self, position: int, rows: int) -> list[Piece]:
        if not self._ids or position >= self.packed:
            return []
        if self._pattern.is_exact:
            return self._catalogue.pieces_of(self._ids[0], position, self.packed, rows)
        span = self._catalogue.next_span(self._wanted, position, self.packed)
        if span is None:
            return []
        pieces = self._catalogue.pieces_in(span, self._wanted, self.packed)
        pieces[-1] = pieces[-1]._replace(last=min((span + 1) * SPAN - 1, self.packed))
        return pieces

    def _read(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        try:
            record = self._packs.read(piece.pack, piece.position)
        except DamagedError:
            return
        yield record.slice(piece.start, piece.packets)


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
