"""What one more node costs: networks of 100 to 100,000 nodes on a real router and its index of contexts.

    python benchmarks/nodes.py [--quick] [--json]

Each node has a context of its own and deposits one packet a round. Some of them then do what a node does each round:
look up who is similar, and read what the similar ones have deposited since the round began. Two kinds of growth:

    crowded   more nodes in the same range of contexts: the similar ones grow with the network
    local     more nodes in a larger range: each has about as many similar ones as before

An exponent is the slope of a line through the logarithms of size and figure: 0 does not grow, 1 grows with the network.
The field counts N(N-1)/2 comparisons; beside them stands what really travelled. Bytes are those that the router sent.

Last, the index alone: going through all contexts by the formula against candidates from the graph, and how many of the
similar ones these miss. That is where contexts.EXACT_ROWS is from.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from counting_proxy import counting_proxy
from figures import Figure, main
from load import packets

from qis_connectors.client import RouterClient
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, conform
from qis_connectors.request import similar
from qis_connectors.router import Router
from qis_connectors.router.nearest import Nearest
from qis_connectors.similarity import Context, Definition

HERE = "clinical.tuberculosis/bcg_vaccine"
DEFINITION = Definition.model_validate(
    {
        "name": "near",
        "version": 1,
        "author": "benchmark",
        "domain": "clinical.tuberculosis",
        "threshold": 0.7,
        "fields": {
            "latitude": {"kernel": "numeric", "scale": 2, "weight": 2},
            "age": {"kernel": "numeric", "scale": 10},
            "place": {"kernel": "path"},
        },
    }
)
CROWDED_RANGE = 60.0
LOCAL_RANGE = 0.2
"""Of latitude, a node."""

ASKING = 20
RECALL = 0.97


@dataclass(frozen=True)
class Round:
    """Of one node: milliseconds and numbers; times are the medians of those that were asked, numbers their means."""

    lookup_ms: float
    read_ms: float
    packets: float
    bytes: float


def contexts(nodes: int, reach: float, seed: int = 1) -> list[Context]:
    draw = np.random.default_rng(seed)
    latitudes, ages = draw.uniform(0, reach, nodes).round(4).tolist(), draw.normal(50, 12, nodes).round(2).tolist()
    hospitals = draw.integers(9, size=nodes).tolist()
    places = [f"c{latitude // 4:.0f}/h{hospital}" for latitude, hospital in zip(latitudes, hospitals, strict=True)]
    columns = zip(latitudes, ages, places, strict=True)
    return [{"latitude": latitude, "age": age, "place": place} for latitude, age, place in columns]


def measured(nodes: int, reach: float) -> Round:
    """One round of a network."""
    sites = contexts(nodes, reach)
    with tempfile.TemporaryDirectory(prefix="qis-nodes-") as folder:
        (Path(folder) / "definitions").mkdir()
        (Path(folder) / "definitions" / f"{DEFINITION.domain}.yaml").write_text(DEFINITION.model_dump_json())
        store = Path(folder) / "store"
        with (
            Router(store, "grpc://127.0.0.1:0", similarity=Path(folder) / "definitions") as router,
            RouterClient(router.url) as client,
            counting_proxy(router.url) as (url, sent),
            RouterClient(url) as counted,
        ):
            for _ in range(2):  # what is measured is not a node's first round
                began = client.stats()["cursor"]
                client.deposit(deposits(sites))
                asked = np.random.default_rng(2).choice(nodes, ASKING)
                found = [one_node(client, counted, sites[at], began, sent) for at in asked]
    return Round(*np.median(found, axis=0)[:2].tolist(), *np.mean(found, axis=0)[2:].tolist())


def one_node(client: RouterClient, counted: RouterClient, own: Context, since: int, sent: list[int]) -> list[float]:
    """The figures of a Round. Bytes are counted on a second read: the way that counts them takes time of its own."""
    start = time.perf_counter()
    client.similar(own, DEFINITION.name)
    middle = time.perf_counter()
    received = client.read(HERE, since=since, similar_to=similar(own)).table.num_rows
    end = time.perf_counter()
    before = sum(sent)
    counted.read(HERE, since=since, similar_to=similar(own))
    return [(middle - start) * 1e3, (end - middle) * 1e3, received, sum(sent) - before]


def deposits(sites: list[Context]) -> pa.Table:
    batch = packets(len(sites))
    table = pa.Table.from_batches([batch]).set_column(0, "node_id", pa.array([f"n{at}" for at in range(len(sites))]))
    table = table.append_column("context", pa.array([json.dumps(site) for site in sites]))
    return conform(table).select([name for name in OUTCOME_PACKET_SCHEMA.names if name in table.column_names])


def exponent(sizes: list[int], values: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def growth(name: str, reach_of: Callable[[int], float], sizes: list[int]) -> Iterator[Figure]:
    rounds = []
    for nodes in sizes:
        one = measured(nodes, reach_of(nodes))
        rounds.append(one)
        comparisons = nodes * (nodes - 1) // 2
        behind = (
            f"look-up {one.lookup_ms:.1f} ms, read {one.read_ms:.1f} ms, {one.packets:.0f} packets; "
            f"{comparisons:,} comparisons, {nodes * one.packets:,.0f} packets delivered"
        )
        yield Figure(f"{name}, {nodes:,} nodes: bytes a node and round", one.bytes, "", behind)
    held = {"packets": "<= 0.1", "bytes": "<= 0.1"} if name == "local" else {}
    for what in ("packets", "bytes", "lookup_ms", "read_ms"):
        values = [getattr(one, what) for one in rounds]
        yield Figure(f"{name}: exponent of {what}", exponent(sizes, values), held.get(what, ""))


def index(rows: int) -> Iterator[Figure]:
    """The formula over all contexts against candidates and the formula over those."""
    found = contexts(rows, CROWDED_RANGE * rows / 1000)
    encoded = DEFINITION.encode(found)
    nearest = Nearest(DEFINITION, encoded)
    start = time.perf_counter()
    nearest.grow(rows)
    nearest.wait()
    build = (time.perf_counter() - start) / rows * 1e6
    exact, approximate, hits, total = [], [], 0, 0
    for own in found[:100]:
        start = time.perf_counter()
        wanted = np.flatnonzero(DEFINITION.scores(own, encoded) >= DEFINITION.threshold)
        exact.append(time.perf_counter() - start)
        start = time.perf_counter()
        candidates = nearest.candidates(own, rows, DEFINITION.threshold, 100)
        if candidates is not None:
            candidates = candidates[DEFINITION.scores(own, encoded, candidates) >= DEFINITION.threshold]
            hits, total = hits + len(np.intersect1d(wanted, candidates)), total + len(wanted)
        approximate.append(time.perf_counter() - start)
    nearest.close()
    formula, graph = np.median(exact) * 1e3, np.median(approximate) * 1e3
    times = f"p50 of a look-up {formula:.2f} ms exact, {graph:.2f} approximate"
    yield Figure(f"index, {rows:,} contexts: exact / approximate time", formula / graph, "", times)
    behind = f"{total} similar; {build:.0f} us a context to put into the graph"
    yield Figure(f"index, {rows:,} contexts: recall", hits / max(total, 1), f">= {RECALL}", behind)


def figures(quick: bool) -> Iterator[Figure]:
    sizes = [100, 1000, 10_000] if quick else [100, 1000, 10_000, 100_000]
    yield from growth("crowded", lambda _: CROWDED_RANGE, sizes)
    yield from growth("local", lambda nodes: nodes * LOCAL_RANGE, sizes)
    for rows in (10_000,) if quick else (10_000, 100_000, 300_000):
        yield from index(rows)


if __name__ == "__main__":
    main("Cost per node", figures)
