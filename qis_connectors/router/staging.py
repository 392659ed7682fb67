"""What one open transaction has staged: complete packets by address, in a SQLite database in a folder of its own."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import RLock

import apsw
import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router.packet_log.packs import RECORD_ROWS
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
    """Opens the database in `folder` when it is first needed. Hold `lock` around everything but `add`."""

    def __init__(self, folder: Path) -> None:
        self.lock = RLock()
        self.is_open = True
        self._folder = folder
        self._connection: apsw.Connection | None = None
        self._bytes = 0
        owner = folder / _OWNER
        # A failure of the power may have left half of it, of a transaction that nobody was told of.
        self.owner = owner.read_text(encoding="utf-8", errors="replace") if owner.exists() else ""

    def add(self, parts: Sequence[tuple[str, pa.RecordBatch]]) -> int:
        """How many packets are now on the disk: all of these, or QisError where the transaction is over or full."""
        rows = [(address, memoryview(packets.serialize())) for address, packets in parts]
        size = sum(len(payload) for _, payload in rows)
        with self.lock:
            self.check_open()
            try:
                database = self._database()
                if self._bytes + size > MAX_BYTES:
                    raise StoreError(f"the transaction is full: at most {MAX_BYTES} bytes may be staged in it")
                with database:
                    database.executemany("INSERT INTO part(address, payload) VALUES (?, ?)", rows)
            except apsw.FullError:
                raise StoreError("the router cannot stage packets: the disk is full") from None
            self._bytes += size
            os.utime(self._folder)
        return sum(packets.num_rows for _, packets in parts)

    def parts(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Addresses and packets, address by address, each in the order of staging and about a record at a time."""
        database = self._database()
        # Without the payloads: sorting would copy them.
        order = database.execute("SELECT address, id FROM part ORDER BY address, id").fetchall()
        for address, group in groupby(order, itemgetter(0)):
            pieces: list[pa.RecordBatch] = []
            for _, part in group:
                payload = database.execute("SELECT payload FROM part WHERE id = ?", (part,)).get
                pieces.append(pa.ipc.read_record_batch(pa.py_buffer(payload), OUTCOME_PACKET_SCHEMA))
                if sum(piece.num_rows for piece in pieces) >= RECORD_ROWS:
                    yield str(address), pa.concat_batches(pieces)
                    pieces = []
            if pieces:
                yield str(address), pa.concat_batches(pieces)

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
        """Let go of the database; it stays."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _database(self) -> apsw.Connection:
        if self._connection is None:
            database = apsw.Connection(str(self._folder / "packets.db"))
            database.pragma("journal_mode", "wal")
            database.pragma("synchronous", "full")
            database.execute(
                "CREATE TABLE IF NOT EXISTS part(id INTEGER PRIMARY KEY, address TEXT NOT NULL, payload BLOB NOT NULL)"
            )
            self._bytes = database.execute("SELECT coalesce(sum(length(payload)), 0) FROM part").get
            self._connection = database
        return self._connection
