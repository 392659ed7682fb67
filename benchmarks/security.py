"""What a network's strictness costs, beside plain mode: python benchmarks/security.py [--quick] [--json]

The routers are processes of their own on the same disk, measured in turns by the same client, which differs in its
certificate and token only: every call over mutual TLS, proved by a token and decided by the policy. A third router has
the TLS and none of the rest, so that what encryption costs is told from what is ours. On loopback, where memory is
all that a read waits for, encryption is most of its time; between institutions, a link is.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Thread

import pyarrow as pa
from counting_proxy import counting_proxy
from figures import Figure, main
from load import ADDRESS, CLIENTS, WINDOW, batches, packets, paired
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.network import folder
from qis_connectors.network.folder import NetworkFolder
from qis_connectors.packet import INTERCHANGE_SCHEMA

READ = "clinical.tuberculosis/read"
"""Where nothing lies but what is read: the same at each router."""

BLOCK = 50_000
LINK = 125_000_000
"""Bytes a second."""

SERVE = """
import sys
from pathlib import Path
from qis_connectors.router import Router
from qis_connectors.router.access import Access
store, listen, kind, *network = sys.argv[1:]
router = Router(Path(store), listen, network=Path(network[0]) if network else None)
if kind == "encrypted":
    router._server._access = Access(None)
print(router.url, flush=True)
router.serve()
"""


@dataclass(frozen=True)
class Size:
    seconds: float
    rounds: int
    read: int
    calls: int


QUICK = Size(0.3, 4, 150_000, 50)
FULL = Size(3, 7, 1_000_000, 1000)


@dataclass(frozen=True)
class Side:
    """One router, and how its clients call it."""

    url: str
    network: NetworkFolder | None

    def client(self, site: int = 0) -> RouterClient:
        return RouterClient(self.url, self.network.bundle(name_of(site)) if self.network else None)


def name_of(site: int) -> str:
    return f"site-{site:04}"


def measure(quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    with TemporaryDirectory(prefix="qis-benchmark-") as name, ExitStack() as stack:
        root = Path(name)
        network = folder.init(root / "network")
        for site in range(CLIENTS):
            network.add(name_of(site))
        plain = Side(stack.enter_context(served(root / "plain", "grpc://127.0.0.1:0", "plain")), None)
        encrypted, strict = (
            Side(stack.enter_context(served(root / kind, "grpc+tls://127.0.0.1:0", kind, network.folder)), network)
            for kind in ("encrypted", "strict")
        )
        yield from deposits(plain, strict, size)
        yield from calls(plain, strict, size)
        yield from reads(plain, encrypted, strict, size)


def deposits(plain: Side, strict: Side, size: Size) -> Iterator[Figure]:
    for name, window in (("awaited", 1), ("pipelined", WINDOW)):
        yield faster(
            f"{CLIENTS} sites {name}, one packet a batch, strict / plain",
            *paired(size.rounds, *(partial(per_second, side, size.seconds, window, 1) for side in (plain, strict))),
        )
    yield faster(
        "packets a second at 1,000 a batch, strict / plain",
        *paired(size.rounds, *(partial(per_second, side, size.seconds, 8, 1000) for side in (plain, strict))),
    )


def faster(figure: str, plain: float, strict: float) -> Figure:
    return Figure(figure, strict / plain, ">= 0.5", f"{strict:,.0f}/s, plain {plain:,.0f}/s")


def calls(plain: Side, strict: Side, size: Size) -> Iterator[Figure]:
    """One deposit a call on a connection that is open already: each call is proved and decided anew."""
    found: list[list[float]] = [[], []]
    with plain.client() as one, strict.client() as two:
        for _ in range(size.calls):
            for client, times in zip((one, two), found, strict=True):
                table = pa.Table.from_batches([own(packets(1), 0)])
                began = time.perf_counter()
                assert client.deposit(table).stored == 1
                times.append(1000 * (time.perf_counter() - began))
    before, after = (median(times) for times in found)
    yield Figure("a call with one packet, p50, strict / plain", after / before, "", f"{after:.2f} ms, {before:.2f} ms")
    before, after = (quantiles(times, n=100)[98] for times in found)
    yield Figure("a call with one packet, p99, strict / plain", after / before, "", f"{after:.2f} ms, {before:.2f} ms")
    opened = paired(size.rounds, *(partial(connecting, side) for side in (plain, strict)))
    behind = "{1:.1f} ms, {0:.1f} ms".format(*opened)
    yield Figure("connecting and a first call, strict / plain", opened[1] / opened[0], "", behind)


def connecting(side: Side) -> float:
    began = time.perf_counter()
    with side.client() as client:
        client.head()
    return 1000 * (time.perf_counter() - began)


def reads(plain: Side, encrypted: Side, strict: Side, size: Size) -> Iterator[Figure]:
    for start in range(0, size.read, BLOCK):
        block = own(packets(min(BLOCK, size.read - start)), 0)
        problem = pa.repeat(pa.scalar("read", pa.string()), block.num_rows)
        table = pa.Table.from_batches([block.set_column(3, block.schema.field(3), problem)])
        for side in (plain, encrypted, strict):
            with side.client() as client:
                client.deposit(table)
    sides = (plain, encrypted, strict)
    before, tls, after = paired(2 * size.rounds + 1, *(partial(read_seconds, side, size) for side in sides))
    behind = f"{after:.3f} s, plain {before:.3f} s, TLS alone {tls:.3f} s"
    yield Figure(f"DoGet of {size.read:,} on loopback, strict / plain", after / before, "<= 1.1", behind)
    yield Figure(f"DoGet of {size.read:,} on loopback, strict / TLS alone", after / tls, "<= 1.1")
    with ExitStack() as stack:
        ways = [stack.enter_context(counting_proxy(side.url, LINK)) for side in (plain, strict)]
        ends = [Side(way, side.network) for (way, _), side in zip(ways, (plain, strict), strict=True)]
        before, after = paired(size.rounds, *(partial(read_seconds, side, size) for side in ends))
    behind = f"{after:.3f} s, plain {before:.3f} s"
    yield Figure(f"DoGet of {size.read:,} on a link of 1 Gbit/s, strict / plain", after / before, "<= 1.1", behind)
    before, after = paired(size.rounds, *(partial(bounded, side, size) for side in (plain, strict)))
    yield Figure("DoGet of 100, p50, strict / plain", after / before, "", f"{after:.2f} ms, plain {before:.2f} ms")


def bounded(side: Side, size: Size) -> float:
    with side.client() as client:
        times = []
        for _ in range(size.calls // 10):
            began = time.perf_counter()
            client.read(READ, limit=100)
            times.append(1000 * (time.perf_counter() - began))
    return median(times)


def read_seconds(side: Side, size: Size) -> float:
    with side.client() as client:
        began = time.perf_counter()
        table = client.read(READ).table
        elapsed = time.perf_counter() - began
    assert table.num_rows == size.read
    return elapsed


def per_second(side: Side, seconds: float, window: int, rows: int) -> float:
    """Packets that CLIENTS sites deposit in a second, each on an open stream with `window` batches under way."""
    found: list[tuple[float, float, int]] = []
    threads = [
        Thread(target=lambda site=site: found.append(send(side, site, seconds, window, rows)))
        for site in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == CLIENTS, "a client failed"
    return sum(count for _, _, count in found) / (max(end for _, end, _ in found) - min(begin for begin, _, _ in found))


def send(side: Side, site: int, seconds: float, window: int, rows: int) -> tuple[float, float, int]:
    """When it began, when the last acknowledgement came, and how many packets there were."""
    with side.client(site) as client:
        writer, acks = client._client.do_put(flight.FlightDescriptor.for_path(ADDRESS), INTERCHANGE_SCHEMA)
        with writer:
            source, under_way, count = (own(batch, site) for batch in batches(rows)), 0, 0
            ready = next(source)
            began = now = time.perf_counter()
            while now < began + seconds:
                writer.write_batch(ready)
                under_way, count = under_way + 1, count + rows
                ready = next(source)
                if under_way >= window:
                    assert acks.read() is not None, "the router has ended the stream"
                    under_way -= 1
                now = time.perf_counter()
            for _ in range(under_way):
                assert acks.read() is not None, "the router has ended the stream"
            now = time.perf_counter()
            writer.done_writing()
    return began, now, count


def own(batch: pa.RecordBatch, site: int) -> pa.RecordBatch:
    """The same packets as this site's."""
    column = pa.repeat(pa.scalar(name_of(site), pa.string()), batch.num_rows)
    return batch.set_column(0, batch.schema.field(0), column)


@contextmanager
def served(*arguments: Path | str) -> Iterator[str]:
    command = [sys.executable, "-c", SERVE, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


if __name__ == "__main__":
    main("A network's router beside one in plain mode", measure)
