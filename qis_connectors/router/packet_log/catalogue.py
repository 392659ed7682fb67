"""The catalogue: where in the packs the packets of an address are. A SQLite database that the packs can remake.

Every page has a checksum, which SQLite verifies as it reads.
"""

import ctypes
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, cast

import apsw
import apsw.sqlite_extra

from qis_connectors.router.packet_log.chunk import SPAN
from qis_connectors.router.packet_log.packs import Run

_TABLES = f"""
CREATE TABLE state(flushed INTEGER NOT NULL);
INSERT INTO state VALUES (0);
CREATE TABLE address(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE flush(upto INTEGER PRIMARY KEY, at REAL NOT NULL); -- every packet up to that cursor was stored by then
CREATE TABLE pack(id INTEGER PRIMARY KEY, span INTEGER NOT NULL, packets INTEGER NOT NULL);
CREATE INDEX pack_by_span ON pack(span);
CREATE TABLE id_run(id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL);
CREATE TABLE run(
    address INTEGER NOT NULL REFERENCES address(id),
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    packets INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    pack INTEGER NOT NULL REFERENCES pack(id),
    position INTEGER NOT NULL,
    start INTEGER NOT NULL,
    PRIMARY KEY (address, first)
) WITHOUT ROWID;
CREATE INDEX run_by_span ON run(first / {SPAN}, address);
CREATE TABLE committed(id TEXT PRIMARY KEY, receipt TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
"""
_CHECKSUM_BYTES = 8
_IDLE = 4  # each keeps some pages at hand
apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")


class Piece(NamedTuple):
    """Rows of a record in a pack, up to the cursor `last`."""

    pack: int
    position: int
    start: int
    packets: int
    last: int


class Catalogue:
    """The one in the file `path`, made if there is none. apsw.Error where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[apsw.Connection] = deque()
        self._writing = RLock()
        is_new = not path.exists()
        self._writer = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        if is_new:
            self._make()
        self._writer.pragma("synchronous", "full")
        self._writer.pragma("journal_size_limit", 16 << 20)

    def copy_to(self, path: Path) -> None:
        """As it is at one moment, into a new file."""
        path.unlink(missing_ok=True)
        with self.reading() as connection:
            copy = apsw.Connection(str(path))
            try:
                with copy.backup("main", connection, "main") as backup:
                    backup.step()
            finally:
                copy.close()

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A connection of one's own. Keep no statement open in it: that would hold the WAL's checkpoint up."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _connect(self._path, apsw.SQLITE_OPEN_READONLY)
        try:
            yield connection
        finally:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """A transaction: all of it is on the disk afterwards, or none of it where this raises."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk makes SQLite roll back by itself
                    self._writer.execute("ROLLBACK")
                raise

    def is_sound(self) -> bool:
        """Whether it can be read to its end and agrees with itself."""
        with self.reading() as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").get == "ok")

    def flushed(self) -> int:
        """Every packet up to this cursor is in a pack."""
        with self.reading() as connection:
            return cast(int, connection.execute("SELECT flushed FROM state").get)

    def packs(self) -> list[int]:
        """The numbers of those that count."""
        with self.reading() as connection:
            return [number for (number,) in connection.execute("SELECT id FROM pack")]

    def id_runs(self) -> list[tuple[int, int]]:
        """Number and checksum of those that count."""
        with self.reading() as connection:
            return cast(list[tuple[int, int]], connection.execute("SELECT id, checksum FROM id_run").fetchall())

    def addresses(self) -> list[tuple[int, str]]:
        with self.reading() as connection:
            return cast(list[tuple[int, str]], connection.execute("SELECT id, name FROM address").fetchall())

    def address(self, name: str) -> int | None:
        with self.reading() as connection:
            return cast(int | None, connection.execute("SELECT id FROM address WHERE name = ?", (name,)).get)

    def pieces_of(self, address: int, position: int, head: int, rows: int) -> list[Piece]:
        """Where the packets of one address after `position`, up to `head`, are: the next `rows` or a run more."""
        found: list[Piece] = []
        with self.reading() as connection:
            # The run in which `position` lies, if any, and those after it.
            cursor = connection.execute(
                "SELECT pack, position, start, packets, last FROM run WHERE address = ?1 AND first <= ?3 AND last > ?2 "
                "AND first >= coalesce((SELECT max(first) FROM run WHERE address = ?1 AND first <= ?2), 0) "
                "ORDER BY first",
                (address, position, head),
            )
            for piece in cursor:
                found.append(Piece(*piece))
                rows -= found[-1].packets
                if rows <= 0:
                    break
            cursor.close()
        return found

    def summaries(self, addresses: str, upto: int) -> list[tuple[str, int, int, int, int]]:
        """Of each of the addresses, a JSON array of ids, up to a cursor: name, packets, bytes, first and last time."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT name, sum(packets), sum(bytes), min(first_time), max(last_time) "
                "FROM address JOIN run ON run.address = address.id "
                "WHERE address.id IN (SELECT value FROM json_each(?)) AND first <= ? GROUP BY address.id",
                (addresses, upto),
            ).fetchall()
        return cast(list[tuple[str, int, int, int, int]], rows)

    def packets_by_span(self, addresses: str, position: int, head: int) -> list[tuple[int, int]]:
        """Spans and how many packets the addresses have in each, in the runs between `position` and `head`."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT first / {SPAN}, sum(packets) FROM run WHERE address IN (SELECT value FROM json_each(?)) "
                f"AND first / {SPAN} >= ? AND first <= ? AND last > ? GROUP BY 1",
                (addresses, (position + 1) // SPAN, head, position),
            ).fetchall()
        return cast(list[tuple[int, int]], rows)

    def next_span(self, addresses: str, position: int, head: int) -> int | None:
        """The first span in which any of the addresses has packets after `position`, up to `head`."""
        with self.reading() as connection:
            found = connection.execute(
                f"SELECT first / {SPAN} FROM run WHERE first / {SPAN} >= ? AND last > ? AND first <= ? "
                f"AND address IN (SELECT value FROM json_each(?)) ORDER BY first / {SPAN} LIMIT 1",
                ((position + 1) // SPAN, position, head, addresses),
            ).get
        return cast(int | None, found)

    def pieces_in(self, span: int, addresses: str, head: int) -> list[Piece]:
        """Where the packets of several addresses are in a span, up to `head`; neighbours are one piece."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT pack, position, start, packets, last FROM run WHERE first / {SPAN} = ? "
                "AND first <= ? AND address IN (SELECT value FROM json_each(?)) ORDER BY pack, position, start",
                (span, head, addresses),
            ).fetchall()
        return _joined(cast(list[tuple[int, ...]], rows))

    def due_for_merge(self, count: int) -> tuple[int, list[int]] | None:
        """A span with so many packs, or more than one where the span is over; and the packs."""
        with self.reading() as connection:
            found = connection.execute(
                "SELECT span, json_group_array(id) FROM pack GROUP BY span "
                "HAVING count(*) >= ? OR (count(*) > 1 AND span < (SELECT max(span) FROM pack)) LIMIT 1",
                (count,),
            ).fetchall()
        return _spans(found)[0] if found else None

    def hollow(self) -> list[tuple[int, list[int]]]:
        """The spans half of whose packets are let go, and the packs of each."""
        with self.reading() as connection:
            found = connection.execute(
                "SELECT span, json_group_array(id) FROM pack GROUP BY span "
                f"HAVING sum(packets) > 2 * (SELECT sum(packets) FROM run WHERE first / {SPAN} = span)"
            ).fetchall()
        return _spans(found)

    def runs_in(self, span: int) -> list[tuple[Piece, str]]:
        """Every run of a span with its address, in the order in which they stand in the packs."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT pack, position, start, packets, last, name FROM run JOIN address ON address.id = run.address "
                f"WHERE first / {SPAN} = ? ORDER BY pack, position, start",
                (span,),
            ).fetchall()
        return [(Piece(*numbers), name) for *numbers, name in cast(list[tuple[Any, ...]], rows)]

    def add(self, writer: apsw.Connection, pack: int, runs: Sequence[Run]) -> None:
        """A new pack and what is in it, all of one span."""
        packets = sum(run.packets for run in runs)
        writer.execute("INSERT INTO pack VALUES (?, ?, ?)", (pack, runs[0].first // SPAN, packets))
        names = json.dumps(sorted({run.address for run in runs}))
        writer.execute("INSERT OR IGNORE INTO address(name) SELECT value FROM json_each(?)", (names,))
        found = writer.execute(
            "SELECT name, id FROM address WHERE name IN (SELECT value FROM json_each(?))", (names,)
        ).fetchall()
        ids = dict(cast(list[tuple[str, int]], found))
        writer.executemany(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((ids[run.address], *run.numbers, pack, run.position, run.start) for run in runs),
        )

    def remove(self, writer: apsw.Connection, span: int, packs: Iterable[int]) -> None:
        """Packs of a span and what is in them."""
        numbers = json.dumps(list(packs))
        writer.execute(
            f"DELETE FROM run WHERE first / {SPAN} = ? AND pack IN (SELECT value FROM json_each(?))", (span, numbers)
        )
        writer.execute("DELETE FROM pack WHERE id IN (SELECT value FROM json_each(?))", (numbers,))

    def drop_empty(self, writer: apsw.Connection) -> list[int]:
        """Take the packs in which nothing is left out of the catalogue; their numbers."""
        gone = writer.execute("DELETE FROM pack WHERE id NOT IN (SELECT pack FROM run) RETURNING id").fetchall()
        return [number for (number,) in cast(list[tuple[int]], gone)]

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        self._writer.close()

    def _make(self) -> None:
        reserved = ctypes.c_int(_CHECKSUM_BYTES)
        self._writer.file_control("main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(reserved))
        self._writer.pragma("journal_mode", "wal")
        with self._writer:
            self._writer.execute(_TABLES)


def _connect(path: Path, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags, vfs="cksmvfs")
    connection.set_busy_timeout(5000)
    return connection


def _spans(rows: Iterable[Sequence[Any]]) -> list[tuple[int, list[int]]]:
    return [(span, sorted(json.loads(packs))) for span, packs in rows]


def _joined(rows: Iterable[Sequence[int]]) -> list[Piece]:
    found: list[Piece] = []
    for row in rows:
        piece = Piece(*row)
        if found and found[-1][:2] == piece[:2] and found[-1].start + found[-1].packets == piece.start:
            last = max(found[-1].last, piece.last)
            found[-1] = found[-1]._replace(packets=found[-1].packets + piece.packets, last=last)
        else:
            found.append(piece)
    return found
