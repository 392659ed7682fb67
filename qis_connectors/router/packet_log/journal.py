"""The journal: what has been acknowledged and is not in a pack yet, in files that are written from end to end.

A file that is no longer needed is written over from its start: on a disk whose room is already given an fsync is
quicker. What it held before is told from what it holds now by the cursors, which the packs have already.
"""

import errno
import logging
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router.packet_log import record
from qis_connectors.router.packet_log.chunk import Chunk
from qis_connectors.router.packet_log.record import Record, Runs

FILE_BYTES = 8 << 20
"""What is set aside for a file; a journal is full here, and goes on while nobody takes another."""

_KEPT = 2
logger = logging.getLogger(__name__)


class BrokenError(Exception):
    """The disk has failed an fsync: from here on nothing it says of a write can be believed."""


@dataclass
class JournalFile:
    """The next record goes `end` bytes into it."""

    path: Path
    descriptor: int
    end: int = 0


class Journal:
    """In `folder`. For the log's thread, but `release`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._sequence = 0
        self._is_broken = False
        self._current: JournalFile | None = None
        self._free = [_opened(path) for path in sorted(folder.glob("*.journal"))]
        self._number = max((int(file.path.stem) for file in self._free), default=0)

    def replay(self, after: int) -> list[Chunk]:
        """What it holds behind the cursor `after`, in order. Before the first `append`; frees no file."""
        found: list[tuple[Record, Chunk]] = []
        for file in self._free:
            if file.end:  # a crash may have come before its room was set aside
                found += _replayed(file, after)
        found.sort(key=lambda one: one[0].first)
        for (before, _), (this, _) in pairwise(found):
            if this.sequence != before.sequence + 1:
                logger.error("the journal is damaged: of the packets up to cursor %d some are lost", this.first)
        if found:
            self._sequence = found[-1][0].sequence
        return [chunk for _, chunk in found]

    @property
    def bytes(self) -> int:
        """In the current file."""
        return self._current.end if self._current else 0

    def append(self, packets: pa.RecordBatch, runs: Runs, first: int) -> int:
        """On the disk when this returns, with so many bytes; OSError where the disk refuses: nothing is then stored."""
        if self._is_broken:
            raise BrokenError
        parts, size = record.encode(packets, runs, first, self._sequence + 1)
        file = self._current = self._current or self._take()
        written = os.pwritev(file.descriptor, parts, file.end)
        if written < size:
            data = memoryview(b"".join(parts))
            while written < size:
                written += os.pwrite(file.descriptor, data[written:], file.end + written)
        self._sync(file)
        file.end += size
        self._sequence += 1
        return size

    def freeze(self) -> list[JournalFile]:
        """End the current file; it is the caller's until it gives it back."""
        frozen, self._current = self._current, None
        return [frozen] if frozen else []

    def adopt(self) -> list[JournalFile]:
        """The files that were replayed, to be given back once what they hold is in a pack."""
        frozen, self._free = self._free, []
        return frozen

    def release(self, files: list[JournalFile]) -> None:
        """What they hold is in packs."""
        for file in files:
            if len(self._free) < _KEPT and file.end <= 2 * FILE_BYTES:
                file.end = 0
                self._free.append(file)
            else:
                os.close(file.descriptor)
                file.path.unlink()

    def close(self, *, is_packed: bool) -> None:
        """Let go of the files; where nothing in them is needed they go too."""
        for file in [*self._free, *self.freeze()]:
            os.close(file.descriptor)
            if is_packed:
                file.path.unlink()
        self._free = []

    def _take(self) -> JournalFile:
        if self._free:
            return self._free.pop()
        self._number += 1
        path = self._folder / f"{self._number:08}.journal"
        file = JournalFile(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            if os.pwrite(file.descriptor, bytes(FILE_BYTES), 0) < FILE_BYTES:
                raise OSError(errno.ENOSPC, "no room for a file of the journal")  # what there is, packing needs
            os.fsync(file.descriptor)
            sync_folder(self._folder)
        except OSError:
            os.close(file.descriptor)
            path.unlink()
            raise
        return file

    def _sync(self, file: JournalFile) -> None:
        try:
            os.fdatasync(file.descriptor)
        except OSError as error:
            self._is_broken = error.errno not in (errno.ENOSPC, errno.EDQUOT)
            raise


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> JournalFile:
    descriptor = os.open(path, os.O_RDWR)
    return JournalFile(path, descriptor, os.fstat(descriptor).st_size)


def _replayed(file: JournalFile, after: int) -> Iterator[tuple[Record, Chunk]]:
    # Read, not mapped: the file is written over while what it held is still being packed.
    with mmap.mmap(file.descriptor, 0, prot=mmap.PROT_READ) as mapped:
        data = bytes(mapped)
    view, buffer = memoryview(data), pa.py_buffer(data)
    for found in record.scan(view, data):
        if found.first > after:
            packets = record.decode(buffer, found, OUTCOME_PACKET_SCHEMA)
            yield found, Chunk(packets, record.runs(view, found), found.first, found.first + found.rows - 1)
