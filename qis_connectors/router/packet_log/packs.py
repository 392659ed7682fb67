"""Packs: files of records, never changed once written, in which the packets of an address stand together."""

import logging
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from qis_connectors.router.packet_log import record
from qis_connectors.router.packet_log.chunk import CURSOR, STORED_SCHEMA, Chunk
from qis_connectors.router.packet_log.drafts import whole_file
from qis_connectors.router.packet_log.record import DamagedError, Record, Runs, joined

RECORD_ROWS = 16_384
"""What a record is filled up to; also the rows of a batch that is read."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The packets of one address that stand together in a record: `packets` rows of it from row `start` on.

    `bytes` is their share of it; times are the packets' own, ms since the epoch.
    """

    address: str
    first: int
    last: int
    packets: int
    bytes: int
    first_time: int
    last_time: int
    position: int
    start: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """Cursors, packets, bytes and times."""
        return self.first, self.last, self.packets, self.bytes, self.first_time, self.last_time


class Packs:
    """Those in `folder`, by number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._maps: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()
        self._opening = Lock()
        self._parsed: dict[tuple[int, int], Record | None] = {}
        self.damaged = 0

    def numbers(self) -> set[int]:
        return {int(path.stem) for path in self._folder.glob("*.pack")}

    def read(self, pack: int, position: int) -> pa.RecordBatch:
        """The record there, on the file's own bytes.

        Raises FileNotFoundError where the pack is gone, for it was merged, and DamagedError.
        """
        buffer = self._buffer(pack)
        return record.decode(buffer, self._record(pack, position, buffer), STORED_SCHEMA)

    def all_of(self, pack: int) -> Iterator[tuple[pa.RecordBatch, list[Run]]]:
        """Every whole record of it, and what is in it."""
        buffer = self._buffer(pack)
        view = memoryview(buffer)
        for found in record.scan(view, self._maps[pack]):
            packets = record.decode(buffer, found, STORED_SCHEMA)
            yield packets, list(_runs(packets, record.runs(view, found), found.position, found.end - found.position))

    def write(self, pack: int, chunks: Iterable[Chunk]) -> list[Run]:
        """On the disk, under its number, when this returns; OSError where the disk refuses: nothing of it is left.

        Each chunk has the packets of an address together.
        """
        runs: list[Run] = []
        with whole_file(self._path(pack)) as file:
            for packets, of_record in _cut(chunks):
                parts, size = record.encode(packets, of_record, packets[CURSOR][0].as_py())
                runs += _runs(packets, of_record, file.tell(), size)
                file.writelines(parts)
        return runs

    def drop(self, packs: Iterable[int]) -> None:
        """Delete them; who is reading one goes on."""
        for pack in packs:
            self._path(pack).unlink(missing_ok=True)
            for key in [key for key in self._parsed if key[0] == pack]:
                del self._parsed[key]

    def keep_damaged(self, pack: int) -> None:
        """Beside the packs, for whoever wants to look at it, once it is dropped."""
        kept = self._path(pack).with_suffix(".damaged")
        if not kept.exists():
            os.link(self._path(pack), kept)

    def drop_drafts(self) -> None:
        for path in self._folder.glob("*.draft"):
            path.unlink()

    def _path(self, pack: int) -> Path:
        return self._folder / f"{pack:08}.pack"

    def _buffer(self, pack: int) -> pa.Buffer:
        with self._opening:
            mapped = self._maps.get(pack)
            if mapped is None:
                with self._path(pack).open("rb") as file:
                    mapped = self._maps[pack] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return pa.py_buffer(mapped)

    def _record(self, pack: int, position: int, buffer: pa.Buffer) -> Record:
        """Looked through once: what has been found whole stays so while this process runs."""
        key = pack, position
        if key not in self._parsed:
            try:
                self._parsed[key] = record.parse(memoryview(buffer), position)
            except DamagedError:
                self._parsed[key] = None
                self.damaged += 1
                logger.error("a record of pack %d is damaged: its packets are not handed out", pack)
        if (found := self._parsed[key]) is None:
            raise DamagedError
        return found


def _cut(chunks: Iterable[Chunk]) -> Iterator[tuple[pa.RecordBatch, Runs]]:
    """The chunks in records of RECORD_ROWS at most."""
    for chunk in chunks:
        left = list(chunk.runs)
        for at in range(0, chunk.packets.num_rows, RECORD_ROWS):
            packets = chunk.packets.slice(at, RECORD_ROWS)
            taken, room = [], packets.num_rows
            while room:
                address, rows = left.pop(0)
                taken.append((address, min(rows, room)))
                if rows > room:
                    left.insert(0, (address, rows - room))
                room -= taken[-1][1]
            yield packets, joined(taken)


def _runs(packets: pa.RecordBatch, runs: Runs, position: int, size: int) -> Iterator[Run]:
    rows = np.array([count for _, count in runs])
    ends = rows.cumsum()
    starts = ends - rows
    cursors, times = packets[CURSOR].to_numpy(), packets["timestamp_utc"].to_numpy()
    columns = (
        cursors[starts],
        cursors[ends - 1],
        rows,
        np.round(size * rows / packets.num_rows).astype(np.int64),
        np.minimum.reduceat(times, starts),
        np.maximum.reduceat(times, starts),
        np.full(len(rows), position),
        starts,
    )
    numbers = zip(*(column.tolist() for column in columns), strict=True)
    for (address, _), of_run in zip(runs, numbers, strict=True):
        yield Run(address, *of_run)
