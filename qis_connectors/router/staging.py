"""What one open transaction has staged: complete packets by address, in a file of records in a folder of its own."""

import mmap
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import RLock
from typing import Any

import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router.packet_log import record
from qis_connectors.router.packet_log.journal import sync_folder
from qis_connectors.router.packet_log.packs import RECORD_ROWS
from qis_connectors.router.packet_log.record import DamagedError, Record
from qis_connectors.router.packet_log.store import StoreError

MAX_BYTES = 2 << 30
"""Of packets in one transaction, as Arrow: some four million."""

_OWNER = "owner"


def write_owner(folder: Path, owner: str) -> None:
    """Who has begun the transaction in `folder`: on the disk, as what will be staged there."""
    with (folder / _OWNER).open("wb") as file:
        file.write(owner.encode())
        file.flush()
        os.fsync(file.fileno())


class Staging:
    """Opens the file in `folder` when it is first needed. Hold `lock` around everything but `add`."""

    def __init__(self, folder: Path) -> None:
        self.lock = RLock()
        self.is_open = True
        self._folder = folder
        self._descriptor: int | None = None
        self._end = 0
        owner = folder / _OWNER
        # A failure of the power may have left half of it, of a transaction that nobody was told of.
        self.owner = owner.read_text(encoding="utf-8", errors="replace") if owner.exists() else ""

    def add(self, parts: Sequence[tuple[str, pa.RecordBatch]]) -> int:
        """How many packets are now on the disk: all of these. QisError where the transaction is over or full, OSError
        where the disk refuses.
        """
        rows, pieces, size = 0, list[Any](), 0
        for address, packets in parts:
            encoded, length = record.encode(packets, ((address, packets.num_rows),), first=0)
            rows, pieces, size = rows + packets.num_rows, pieces + encoded, size + length
        with self.lock:
            self.check_open()
            file = self._file()
            if self._end + size > MAX_BYTES:
                raise StoreError(f"the transaction is full: at most {MAX_BYTES} bytes may be staged in it")
            try:
                _write(file, b"".join(pieces), self._end)
                os.fdatasync(file)
            except OSError:
                os.ftruncate(file, self._end)
                raise
            self._end += size
            os.utime(self._folder)
        return rows

    def parts(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Addresses and packets, address by address, each in the order of staging and about a record at a time.

        StoreError where the disk does not give back what was staged.
        """
        file = self._file()
        if not self._end:
            return
        mapped = mmap.mmap(file, self._end, prot=mmap.PROT_READ)
        data, view = pa.py_buffer(mapped), memoryview(mapped)
        found, position = list[tuple[str, Record]](), 0
        while position < self._end:
            try:
                one = record.parse(view, position)
            except DamagedError:
                raise StoreError(f"what is staged in transaction {self._folder.name} is damaged on the disk") from None
            found.append((record.runs(view, one)[0][0], one))
            position = one.end
        for address, group in groupby(sorted(found, key=itemgetter(0)), itemgetter(0)):
            pieces: list[pa.RecordBatch] = []
            for _, one in group:
                pieces.append(record.decode(data, one, OUTCOME_PACKET_SCHEMA))
                if sum(piece.num_rows for piece in pieces) >= RECORD_ROWS:
                    yield address, pa.concat_batches(pieces)
                    pieces = []
            if pieces:
                yield address, pa.concat_batches(pieces)

    def idle_seconds(self) -> float:
        """Since the last packets came; it outlives the router."""
        try:
            return time.time() - self._folder.stat().st_mtime
        except FileNotFoundError:  # dropped just now
            return 0.0

    def check_open(self) -> None:
        """QisError where it is committed or aborted."""
        if not self.is_open:
            raise QisError(f"transaction {self._folder.name} is not open: it was committed or aborted meanwhile")

    def drop(self) -> None:
        """Delete everything; it takes no more."""
        self.is_open = False
        self.close()
        # First all of it at once, or a crash between the files could leave half a transaction that looks whole.
        gone = self._folder.rename(self._folder.with_suffix(".gone"))
        shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _file(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._folder / "packets.records", os.O_RDWR | os.O_CREAT, 0o600)
            self._end = _end_of_last(self._descriptor)  # a crash may have left a piece of one more
            sync_folder(self._folder)
        return self._descriptor


def _end_of_last(file: int) -> int:
    """Of the last whole record."""
    if not os.fstat(file).st_size:
        return 0
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        return max((one.end for one in record.scan(view, mapped)), default=0)


def _write(file: int, data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written
