"""What one site that floods a router costs the others: python benchmarks/flood.py [--json] [--quick]

Four sites deposit a packet each every 20 ms, on a call of its own, and wait for it. Meanwhile a fifth, in a process of
its own, sends what it can on eight streams: single packets, then thousands in a batch. All packets are signed. With
quotas a site may have 200 packets a second; the table has the quiet sites' p99 without a flood, in the
flood, and in the flood with quotas.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread

import pyarrow as pa
from figures import Figure, main
from load import ADDRESS
from pyarrow import flight
from signed_load import make_sites, p99_milliseconds, pieces, signed
from stores import server

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

QUIET = 4
EVERY_SECONDS = 0.02
FLOOD_STREAMS = 8
UNDER_WAY = 128
"""Batches of each of the flood's streams: without a bound the quiet sites would wait for minutes, and so would we."""

QUOTAS = "default: {packets: 200, bytes: 400000, streams: 64}\nburst: 0.5\n"
ROWS = (1, 2000)


def measure(quick: bool) -> Iterator[Figure]:
    seconds, rounds = (1.0, 2) if quick else (5.0, 5)
    with TemporaryDirectory(prefix="qis-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "quotas.yaml").write_text(QUOTAS, encoding="utf-8")
        sites = make_sites(folder, QUIET + 1)
        urls = [stack.enter_context(server(kind, folder / kind)) for kind in ("signed", "bounded")]
        loud = [signed(folder, sites[QUIET], 4000 if quick else 20_000) for _ in ROWS]
        for rows, block in zip(ROWS, loud, strict=True):
            found: list[list[float]] = []
            for _ in range(rounds):
                found.append([])
                for url, is_flooded in product(urls, (False, True)):
                    quiet = [signed(folder, site, int(seconds / EVERY_SECONDS)) for site in sites[:QUIET]]
                    with flooding(url, block, rows) if is_flooded else ExitStack():
                        found[-1].append(p99_milliseconds(waited(url, quiet, seconds)))
            alone, flooded, bounded_alone, bounded = (median(column) for column in zip(*found, strict=True))
            behind = f"{flooded:.1f} ms, without {alone:.1f} ms"
            yield Figure(f"p99 in a flood of {rows} a batch / without", flooded / alone, "", behind)
            behind = f"{bounded:.1f} ms, without {bounded_alone:.1f} ms"
            yield Figure(f"the same with quotas, {rows} a batch", bounded / bounded_alone, "<= 2", behind)


def waited(url: str, blocks: list[pa.RecordBatch], seconds: float) -> list[float]:
    """Seconds each deposit of the quiet sites took, for so long."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    def site(block: pa.RecordBatch) -> None:
        with flight.connect(url) as client:
            for batch in pieces(block, 1):
                if time.perf_counter() > end:
                    break
                started = time.perf_counter()
                writer, acks = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), OUTCOME_PACKET_SCHEMA)
                with writer:
                    writer.write_batch(batch)
                    assert acks.read() is not None
                took.append(time.perf_counter() - started)
                time.sleep(max(0.0, EVERY_SECONDS - took[-1]))

    threads = [Thread(target=site, args=(block,)) for block in blocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert took, "the quiet sites were refused"
    return took


@contextmanager
def flooding(url: str, block: pa.RecordBatch, rows: int) -> Iterator[None]:
    context = get_context("spawn")
    begun = context.Event()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_batch(block)
    process = context.Process(target=flood, args=(url, sink.getvalue().to_pybytes(), rows, begun))
    process.start()
    begun.wait()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def flood(url: str, data: bytes, rows: int, begun: Event) -> None:
    """Until it is killed, send the block again and again: a packet that was seen costs the router as much to check."""
    (block,) = pa.ipc.open_stream(data).read_all().combine_chunks().to_batches()

    def stream() -> None:
        with flight.connect(url) as client:
            while True:
                with suppress(flight.FlightError, pa.ArrowException, OSError):
                    writer, acks = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), OUTCOME_PACKET_SCHEMA)
                    with writer:
                        for at, batch in enumerate(pieces(block, rows)):
                            writer.write_batch(batch)
                            if at >= UNDER_WAY and acks.read() is None:
                                break

    for _ in range(FLOOD_STREAMS):
        Thread(target=stream, daemon=True).start()
    time.sleep(1.5)  # what may come at once has come
    begun.set()
    time.sleep(3600)


if __name__ == "__main__":
    sys.setswitchinterval(0.001)  # the quiet sites share an interpreter, and their delays are what is measured
    main("One flooding site, and what the others notice", measure)
