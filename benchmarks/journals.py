"""What a durable commit costs, by what it is written with: python benchmarks/journals.py [--quick] [--json]

The same packets, in commits of 1, 16, 128 and 1024, as one Arrow message a commit, each with its fsync: into the
router's journal, into SQLite (WAL, synchronous=full) and into LMDB, all over a bare append and fdatasync of the same
bytes, in turns, in one folder. Once more into SQLite with an index of the packets' ids, a tree that the router has not.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import apsw
import lmdb
import pyarrow as pa
from figures import Figure, main
from load import ADDRESS, packets

from qis_connectors import packet
from qis_connectors.router.packet_log.journal import Journal

COMMITS = 40
Write = Callable[[pa.RecordBatch, int], None]


def bare(folder: Path) -> Write:
    file = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(batch: pa.RecordBatch, _: int) -> None:
        os.write(file, batch.serialize())
        os.fdatasync(file)

    return write


def journal(folder: Path) -> Write:
    log = Journal(folder / "journal")

    def write(batch: pa.RecordBatch, first: int) -> None:
        log.append(batch, ((ADDRESS, batch.num_rows),), first)

    return write


def sqlite(folder: Path) -> Write:
    database = apsw.Connection(str(folder / "sqlite.db"))
    database.pragma("journal_mode", "wal")
    database.pragma("synchronous", "full")
    database.execute("CREATE TABLE segment(first INTEGER PRIMARY KEY, payload BLOB NOT NULL)")

    def write(batch: pa.RecordBatch, first: int) -> None:
        with database:
            database.execute("INSERT INTO segment VALUES (?, ?)", (first, memoryview(batch.serialize())))

    return write


def indexed(folder: Path) -> Write:
    database = apsw.Connection(str(folder / "indexed.db"))
    database.pragma("journal_mode", "wal")
    database.pragma("synchronous", "full")
    database.execute("CREATE TABLE segment(first INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
    database.execute("CREATE TABLE seen(packet_id BLOB PRIMARY KEY) WITHOUT ROWID")

    def write(batch: pa.RecordBatch, first: int) -> None:
        ids = [(os.urandom(16),) for _ in range(batch.num_rows)]
        with database:
            database.executemany("INSERT OR IGNORE INTO seen VALUES (?)", sorted(ids))
            database.execute("INSERT INTO segment VALUES (?, ?)", (first, memoryview(batch.serialize())))

    return write


def lightning(folder: Path) -> Write:
    environment = lmdb.open(str(folder / "lmdb"), map_size=4 << 30)

    def write(batch: pa.RecordBatch, first: int) -> None:
        with environment.begin(write=True) as transaction:
            transaction.put(first.to_bytes(8, "big"), batch.serialize(), append=True)

    return write


def measure(quick: bool) -> Iterator[Figure]:
    with TemporaryDirectory(prefix="qis-benchmark-") as name:
        kinds = {"journal": journal, "SQLite": sqlite, "LMDB": lightning, "SQLite with ids": indexed, "bare": bare}
        writers = {kind: make(Path(name)) for kind, make in kinds.items()}
        block = packet.complete(packets(4096))
        first = 1
        for rows in (1, 16, 128, 1024):
            seconds: dict[str, list[float]] = {kind: [] for kind in writers}
            for at in range(COMMITS * (1 if quick else 10)):
                batch = block.slice(at * rows % 3072, rows)
                for kind, write in writers.items():
                    started = perf_counter()
                    write(batch, first)
                    seconds[kind].append(perf_counter() - started)
                first += rows
            floor = median(seconds["bare"])
            for kind in list(kinds)[:-1]:
                took = median(seconds[kind])
                yield Figure(
                    f"{kind}, {rows} packets a commit / bare append + fdatasync",
                    took / floor,
                    "",
                    f"{1000 * took:.2f} ms, bare {1000 * floor:.2f} ms",
                )


if __name__ == "__main__":
    main("A durable commit", measure)
