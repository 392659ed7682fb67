"""The store: one folder with one SQLite database, held by one router process at a time."""

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import apsw

from qis_connectors.errors import QisError

FORMAT = 1
_MARK = 0x51495331  # "QIS1": tells our database from any other
_TABLES = """
CREATE TABLE identity(store TEXT NOT NULL);
CREATE TABLE address(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE seen(packet_id BLOB PRIMARY KEY) WITHOUT ROWID;
-- A run of one address's packets in the order of their cursors. The payload comes last: a row's columns before it are
-- read without it.
CREATE TABLE segment(
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    address INTEGER NOT NULL REFERENCES address(id),
    packets INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX segment_by_address ON segment(address, first);
"""
# On its own, for the stores of format 1 that were made before there were transactions.
_COMMITTED = """
CREATE TABLE IF NOT EXISTS committed(id TEXT PRIMARY KEY, receipt TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
"""


class StoreError(QisError):
    """The store cannot be opened, read or written."""


class Store:
    """Opens the store in `folder`, made if there is none; SQLite recovers what a crash left.

    Raises StoreError where another router holds it, where a newer version wrote it, or where it is no store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _lock(folder)
        self._idle: deque[apsw.Connection] = deque()
        try:
            self.writer = _connect(folder / "packets.db", apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            _prepare(self.writer, folder)
            self.identity: str = self.writer.execute("SELECT store FROM identity").get
        except apsw.Error as error:
            os.close(self._lock)
            raise StoreError(f"store {folder} cannot be opened: {error}") from None
        except StoreError:
            os.close(self._lock)
            raise

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A connection of one's own. Keep no statement open in it: that would hold the WAL's checkpoint up."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _connect(self.folder / "packets.db", apsw.SQLITE_OPEN_READONLY)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """A transaction: all of it is on the disk afterwards, or none of it where this raises."""
        self.writer.execute("BEGIN IMMEDIATE")
        try:
            yield self.writer
            self.writer.execute("COMMIT")
        except BaseException:
            if self.writer.in_transaction:  # a full disk makes SQLite roll back by itself
                self.writer.execute("ROLLBACK")
            raise

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        self.writer.close()
        os.close(self._lock)


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"store {folder} cannot be opened: {error.strerror}") from None
    try:
        # Gone with the process, however it ends: a store needs no unlocking after a crash.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(f"store {folder} is in use by another router") from None
    return lock


def _connect(path: Path, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(5000)
    return connection


def _prepare(connection: apsw.Connection, folder: Path) -> None:
    mark, version = connection.pragma("application_id"), connection.pragma("user_version")
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if mark != _MARK and not is_empty:
        raise StoreError(f"store {folder} cannot be opened: it holds a database that is not a packet store")
    if version > FORMAT:
        raise StoreError(f"store {folder} was written by a newer version (format {version}; this one knows {FORMAT})")
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("journal_size_limit", 64 << 20)
    if is_empty:
        with connection:
            connection.execute(_TABLES)
            connection.execute("INSERT INTO identity VALUES (?)", (str(uuid4()),))
            connection.pragma("application_id", _MARK)
            connection.pragma("user_version", FORMAT)
    connection.execute(_COMMITTED)
