"""What signatures cost: python benchmarks/signing.py [--json] [--quick]

Both routers get the same signed packets; one of them has the sites' keys and checks every signature and chain.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pyarrow as pa
from figures import Figure, main
from load import CLIENTS, WINDOW, packets
from signed_load import awaited_milliseconds, make_sites, packets_per_second, signed
from stores import server

from qis_connectors import chain
from qis_connectors.keys import PublicKeys
from qis_connectors.packet import SIZE_ROWS, ipc_bytes
from qis_connectors.router.packet_log.chains import remembered
from qis_connectors.signing import sign, verify

SHARE = ">= 0.5"


def measure(quick: bool) -> Iterator[Figure]:
    with TemporaryDirectory(prefix="qis-benchmark-") as name:
        folder = Path(name)
        sites = make_sites(folder, CLIENTS)
        yield from alone(folder, sites[0])
        yield from deposits(folder, sites, 200 if quick else 2000, 2 if quick else 5)


def alone(folder: Path, site: str) -> Iterator[Figure]:
    keys = PublicKeys(folder / "keys")
    block = signed(folder, site, SIZE_ROWS)
    yield Figure(f"a signed packet, bytes at {SIZE_ROWS} a batch", ipc_bytes(block) / SIZE_ROWS, "<= 512")
    unsigned = packets(SIZE_ROWS).set_column(0, "node_id", pa.array([site] * SIZE_ROWS))
    yield Figure("signing, us a packet", seconds(partial(sign, unsigned, folder / "secret"), 1) / SIZE_ROWS * 1e6)
    for rows in (1, SIZE_ROWS):
        some = block.slice(0, rows)
        each = seconds(partial(verify, some, keys)) / rows * 1e6
        yield Figure(f"checking signatures, us a packet at {rows} a batch", each)
    both = seconds(lambda: remembered(block)) / SIZE_ROWS * 1e6
    form = seconds(lambda: chain.places(block)) / SIZE_ROWS * 1e6
    yield Figure("its place in the chain, us a packet", both, "", f"{form:.1f} us of them its canonical form")


def deposits(folder: Path, sites: list[str], each: int, rounds: int) -> Iterator[Figure]:
    with ExitStack() as stack:
        plain, checked = (stack.enter_context(server(kind, folder / kind)) for kind in ("router", "signed"))
        one = partial(paired_on, (plain, checked), rounds, folder=folder, each=each)
        floor, mine = one(lambda url, blocks: awaited_milliseconds(url, blocks[0]), sites=sites[:1])
        behind = f"{mine:.2f} ms, unchecked {floor:.2f} ms"
        yield Figure("awaited deposit p50, checked / unchecked", mine / floor, "<= 2", behind)
        # Of many packets a batch the signatures are nearly all the work there is: no share of it can be held.
        for name, rows, window, hold in (
            (f"{CLIENTS} clients awaited", 1, 1, SHARE),
            (f"{CLIENTS} clients pipelined", 1, WINDOW, SHARE),
            (f"{CLIENTS} clients, 100 packets a batch", 100, 8, ""),
        ):
            floor, mine = one(partial(packets_per_second, rows=rows, window=window), sites=sites)
            behind = f"{mine:,.0f}/s, unchecked {floor:,.0f}/s"
            yield Figure(f"{name}, checked / unchecked", mine / floor, hold, behind)


def paired_on(
    urls: tuple[str, ...],
    rounds: int,
    measure_one: Callable[[str, list[pa.RecordBatch]], float],
    folder: Path,
    sites: list[str],
    each: int,
) -> list[float]:
    """The medians at each router, in turns, of packets that are new to both."""
    found = []
    for _ in range(rounds):
        blocks = [signed(folder, site, each) for site in sites]
        found.append([measure_one(url, blocks) for url in urls])
    return [median(column) for column in zip(*found, strict=True)]


def seconds(call: Callable[[], object], rounds: int = 20) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)


if __name__ == "__main__":
    main("What signatures cost", measure)
