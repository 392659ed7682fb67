"""From deposit to delivery: one packet at a time, to 1 and to 100 subscribers.

    python benchmarks/delivery.py [--quick] [--json]

Each round is paired with its floor in the same run: a bare pyarrow Flight server that keeps nothing, checks nothing
and only forwards from memory. Both are met by the same client: one process, an open DoPut stream on which the next
packet is sent once the last one is acknowledged and has reached everybody, and a thread and a connection of its own
for each subscriber. A delay runs from just before the packet is written until it has been read, by one clock.

The router delivers what is on the disk, so its delay has an fsync in it and the forwarder's has not: what one of 4 kB
takes, appended in the same folder between the rounds, stands beside them. TMPDIR chooses the disk.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
from figures import Figure, main
from load import packets
from pyarrow import flight

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, complete
from qis_connectors.router import Router

HERE = "clinical.tuberculosis/bcg_vaccine"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
ROUNDS = 10
HOLD_ONE_MS = "<= 1"
HOLD_HUNDRED_RATIO = "<= 1.3"


class Forwarder(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """The floor."""

    def __init__(self, location: str) -> None:
        self._subscribers: list[SimpleQueue[pa.RecordBatch]] = []
        super().__init__(location)

    def do_put(self, _: Any, __: Any, reader: Any, writer: Any) -> None:  # noqa: ANN401
        for chunk in reader:
            for subscriber in self._subscribers:
                subscriber.put(chunk.data)
            writer.write(b"{}")

    def do_exchange(self, _: Any, __: Any, ___: Any, writer: Any) -> None:  # noqa: ANN401
        news: SimpleQueue[pa.RecordBatch] = SimpleQueue()
        writer.begin(OUTCOME_PACKET_SCHEMA)
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=OUTCOME_PACKET_SCHEMA))
        self._subscribers.append(news)
        while True:
            writer.write_with_metadata(news.get(), b"{}")


def serve_router(pipe: Connection, store: Path) -> None:
    with Router(store, "grpc://127.0.0.1:0") as router:
        pipe.send(router.url)
        pipe.recv()


def serve_forwarder(pipe: Connection, _: Path) -> None:
    server = Forwarder("grpc://127.0.0.1:0")
    pipe.send(f"grpc://127.0.0.1:{server.port}")
    pipe.recv()


class Load:
    """A depositor and its subscribers at one server."""

    def __init__(self, url: str, subscribers: int) -> None:
        self.delays: list[int] = []  # ns
        self._sent = 0
        self._delivered: SimpleQueue[int] = SimpleQueue()
        self._client = flight.connect(url)
        self._writer, self._acks = self._client.do_put(flight.FlightDescriptor.for_path(HERE), OUTCOME_PACKET_SCHEMA)
        self._streams = []
        for _ in range(subscribers):
            client = flight.connect(url, generic_options=OWN_CONNECTION)
            writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(HERE.encode()))
            while reader.read_chunk().data.num_rows:
                pass
            thread = threading.Thread(target=self._read, args=(reader,))
            thread.start()
            self._streams.append((client, writer, reader, thread))

    def deposit(self, number: int) -> None:
        """So many packets, one after the other, each to everybody."""
        for _ in range(number):
            batch = complete(packets(1))
            start = time.monotonic_ns()
            self._writer.write_batch(batch)
            self._acks.read()
            self.delays += [self._delivered.get(timeout=30) - start for _ in self._streams]

    def close(self) -> None:
        for client, writer, reader, thread in self._streams:
            reader.cancel()
            thread.join()
            with suppress(flight.FlightError, pa.ArrowException):
                writer.close()
            client.close()
        self._writer.close()
        self._client.close()

    def _read(self, reader: flight.FlightStreamReader) -> None:
        with suppress(flight.FlightError, StopIteration):
            while True:
                if reader.read_chunk().data.num_rows:
                    self._delivered.put(time.monotonic_ns())


@dataclass(frozen=True)
class Delays:
    """Milliseconds."""

    p50: float
    p99: float


@contextmanager
def serving(serve: Callable[[Connection, Path], None], store: Path) -> Iterator[str]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, store), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def fsyncs(folder: Path, number: int) -> list[int]:
    """What so many of them take, ns."""
    delays = []
    with (folder / "floor").open("ab", buffering=0) as file:
        for _ in range(number):
            start = time.monotonic_ns()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            delays.append(time.monotonic_ns() - start)
    return delays


def delays_of(nanoseconds: list[int]) -> Delays:
    return Delays(*map(float, np.percentile(np.array(nanoseconds) / 1e6, [50, 99])))


def measure(subscribers: int, deposits: int) -> tuple[Delays, Delays, Delays]:
    """Of the router, of its floor and of the disk, in turns."""
    with (
        tempfile.TemporaryDirectory(prefix="qis-delivery-") as folder,
        serving(serve_router, Path(folder)) as router,
        serving(serve_forwarder, Path(folder)) as forwarder,
    ):
        loads = [Load(router, subscribers), Load(forwarder, subscribers)]
        for load in loads:
            load.deposit(20)
            load.delays.clear()
        disk = []
        for at in range(ROUNDS):
            disk += fsyncs(Path(folder), 20)
            for load in loads if at % 2 else reversed(loads):
                load.deposit(deposits // ROUNDS)
        ours, floor = (delays_of(load.delays) for load in loads)
        loads[0].close()
        # The forwarder's threads do not see that their readers go; they end with it.
        threading.Thread(target=loads[1].close, daemon=True).start()
        time.sleep(0.5)
    return ours, floor, delays_of(disk)


def figures(quick: bool) -> Iterator[Figure]:
    share = 1 if quick else 5
    for subscribers, deposits in ((1, 400 * share), (100, 100 * share)):
        ours, floor, disk = measure(subscribers, deposits)
        ratio = ours.p50 / floor.p50
        behind = (
            f"p50 {ours.p50:.2f} ms, p99 {ours.p99:.2f}; bare forwarder {floor.p50:.2f}, {floor.p99:.2f}; "
            f"an fsync {disk.p50:.2f}"
        )
        if subscribers == 1:
            yield Figure("delivery to 1 subscriber, p50 in ms", ours.p50, HOLD_ONE_MS, behind)
        else:
            yield Figure(f"delivery to {subscribers} subscribers / a bare forwarder", ratio, HOLD_HUNDRED_RATIO, behind)


if __name__ == "__main__":
    main("Deposit to delivery", figures)
