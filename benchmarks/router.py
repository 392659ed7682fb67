"""What the router's speed is, beside its floors: python benchmarks/router.py [--quick] [--json]

Every figure is a ratio, or is set beside another, out of the same run, measured in turns: no figure of one machine on
one day means anything by itself. Servers and clients are processes of their own.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import json_http
import pyarrow as pa
from figures import Figure, main
from load import ADDRESS, WINDOW, awaited_milliseconds, deposits_per_second, packets, paired, read_seconds
from pyarrow import flight
from stores import fill_many_addresses, fill_one_by_one, server, start_after_kill

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA


@dataclass(frozen=True)
class Size:
    seconds: float
    rounds: int
    read: tuple[int, ...]
    stores: tuple[int, ...]
    http: int


QUICK = Size(0.25, 3, (100_000,), (10_000, 100_000, 1_000_000), 10_000)
FULL = Size(3, 5, (100_000, 1_000_000), (10_000, 100_000, 1_000_000, 10_000_000), 100_000)


def measure(quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    with TemporaryDirectory(prefix="qis-benchmark-") as name:
        folder = Path(name)
        yield from deposits(folder, size)
        for rows in size.read:
            yield from reads(folder / f"read-{rows}", rows, size)
        yield from growth(folder, size)


def deposits(folder: Path, size: Size) -> Iterator[Figure]:
    with ExitStack() as stack:
        kinds = ("memory", "synced", "router", "ungrouped")
        memory, synced, ours, alone = (stack.enter_context(server(kind, folder / kind)) for kind in kinds)
        for url in (memory, synced, ours, alone):
            awaited_milliseconds(url, 0.1)
        unsynced, floor, mine = paired(
            size.rounds, *(lambda url=url: awaited_milliseconds(url, size.seconds) for url in (memory, synced, ours))
        )
        behind = f"{mine:.2f} ms, floor {floor:.2f} ms, acknowledged from memory {unsynced:.2f} ms"
        yield Figure("awaited deposit p50 / Flight ack + fdatasync", mine / floor, "<= 1.5", behind)
        for name, window in (("awaited", 1), ("pipelined", WINDOW)):
            floor, mine, single = paired(
                size.rounds,
                *(partial(deposits_per_second, url, size.seconds, window) for url in (memory, ours, alone)),
            )
            behind = f"{mine:,.0f}/s, from memory {floor:,.0f}/s, an fsync each {single:,.0f}/s"
            yield Figure(f"16 clients {name} / from memory", mine / floor, ">= 0.8", behind)
            yield Figure(f"16 clients {name} / an fsync per deposit", mine / single, ">= 5", behind)
        clear(memory)
        floor, mine = paired(
            size.rounds,
            *(lambda url=url: 1000 * deposits_per_second(url, size.seconds, 8, 1, 1000) for url in (memory, ours)),
        )
        yield Figure(
            "rows at 1,000 a batch / from memory", mine / floor, ">= 0.5", f"{mine:,.0f}/s, from memory {floor:,.0f}/s"
        )


def reads(folder: Path, rows: int, size: Size) -> Iterator[Figure]:
    bytes_each = fill_one_by_one(folder / "store", rows)
    with ExitStack() as stack:
        ours = stack.enter_context(server("router", folder / "store"))
        memory, article = (stack.enter_context(server(kind, folder / kind)) for kind in ("memory", "article"))
        _, table = read_seconds(ours)
        assert table.num_rows == rows
        table = table.combine_chunks()
        put(memory, table, 16_384)
        one_row = table.slice(0, rows if rows <= 100_000 else 100_000)
        put(article, one_row.slice(0, size.http), 1)
        floor, mine = paired(2 * size.rounds + 1, *(lambda url=url: read_seconds(url)[0] for url in (memory, ours)))
        yield Figure(
            f"DoGet of {rows:,} / from memory",
            floor / mine,
            ">= 0.9",
            f"{rows / mine:,.0f} rows/s, from memory {rows / floor:,.0f}",
        )
        yield Figure(f"bytes on disk a packet, {rows:,} deposits", bytes_each, "<= 640", "one-row deposits, merged")
        if rows == size.read[0]:
            yield from beside(folder, table, article, mine / rows, size)


def beside(folder: Path, table: pa.Table, article: str, ours_per_row: float, size: Size) -> Iterator[Figure]:
    (slow,) = paired(1, lambda: read_seconds(article)[0])
    behind = f"{size.http / slow:,.0f} rows/s out of a list of one-row batches, ours {1 / ours_per_row:,.0f}"
    yield Figure("article-style list, times slower to read", slow / size.http / ours_per_row, "", behind)
    with server("json", folder / "json") as url:
        part = table.slice(0, size.http)
        json_http.deposit(url, part.drop_columns(["signature"]))
        total, text = (median(one) for one in zip(*(json_http.read(url, part.schema) for _ in range(3)), strict=True))
    yield Figure(
        "JSON over HTTP, times slower to read", total / size.http / ours_per_row, "", f"{size.http / total:,.0f} rows/s"
    )
    yield Figure("JSON over HTTP, share of (de)serialising", text / total, "", f"{text:.2f} s of {total:.2f} s")


def growth(folder: Path, size: Size) -> Iterator[Figure]:
    with ExitStack() as stack:
        urls, names = [], []
        for rows in size.stores:
            names.append(fill_many_addresses(folder / f"store-{rows}", rows))
            urls.append(stack.enter_context(server("router", folder / f"store-{rows}")))
        found = paired(size.rounds, *(lambda at=at: look_up(urls[at], names[at]) for at in range(len(urls))))
    behind = ", ".join(f"{rows:.0e}: {1000 * one:.2f} ms" for rows, one in zip(size.stores, found, strict=True))
    yield Figure("look-up of an address, largest / smallest store", found[-1] / found[0], "<= 2", behind)
    largest = folder / f"store-{size.stores[-1]}"
    starts = [start_after_kill(largest, packets(1)) for _ in range(2)]
    yield Figure(
        f"seconds to start after kill -9, {size.stores[-1]:.0e} packets",
        median(starts),
        "<= 1",
        "process start included",
    )


def look_up(url: str, names: list[str]) -> float:
    """p50 of one DoGet, each of another address."""
    with flight.connect(url) as client:
        times = []
        for name in names[:: max(1, len(names) // 100)]:
            started = time.perf_counter()
            assert client.do_get(flight.Ticket(name)).read_all().num_rows > 0
            times.append(time.perf_counter() - started)
    return median(times)


def clear(url: str) -> None:
    with flight.connect(url) as client:
        client.do_put(flight.FlightDescriptor.for_path("clear"), OUTCOME_PACKET_SCHEMA)[0].close()


def put(url: str, table: pa.Table, rows: int) -> None:
    with flight.connect(url) as client:
        writer, _ = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), table.schema)
        with writer:
            writer.write_table(table, max_chunksize=rows)


if __name__ == "__main__":
    main("The router beside its floors", measure)
