"""Which network foresees best: the BCG trials, a year of flights, and a world whose truth is known.

python benchmarks/elections.py [--json] [--quick]
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import planted_truth
import pyarrow as pa
from figures import Figure, main
from planted_truth import ERRORS, RECOVERY, WORSE_THAN_ALONE, World

from pipelines.demo import Loop, site_rows, staged_packets
from pipelines.elections.networks import Network, networks_of
from pipelines.shipped import shipped
from pipelines.sources import BCG, FLIGHTS
from qis_connectors import address

WAYS = {
    "by shares": "following the shares",
    "elected": "following who has the say",
    "same-node_id": "own history",
    "everyone": "everyone",
    "right network": "the network that is right",
    "oracle": "oracle, the clusters' true means",
}


def measure(quick: bool) -> Iterable[Figure]:
    with TemporaryDirectory() as folder:
        trials = _packets(Loop(Path(folder) / "bcg", "", "polars", BCG))
        yield from _bcg(trials, 499 if quick else 4999)
        flights = _packets(Loop(Path(folder) / "flights", "", "polars", FLIGHTS))
        yield from _flights(flights)
    yield from _planted(range(1 if quick else 20))
    yield from _null(range(3 if quick else 200))
    yield from _power(range(1 if quick else 40))


def _packets(loop: Loop) -> pa.Table:
    """What the sites of a study would send."""
    found = []
    for site in loop.source.sites:
        for month in loop.source.months or ("",):
            site_rows(loop, site, month)
            found.append(staged_packets(loop, site, month).packets)
    table = pa.concat_tables(found).combine_chunks()
    columns = (table[name].combine_chunks() for name in ("domain", "problem_type"))
    return table.append_column("address", address.column(*columns))


def _bcg(packets: pa.Table, controls: int) -> Iterable[Figure]:
    answers = _answers(packets, networks_of("clinical.tuberculosis"), controls)
    for row in answers["election"].to_pylist():
        design = "left out" if row["design"] == "left_out" else "in time"
        yield from _row(f"BCG, {design}", row, f"of {controls:,} shuffles")


def _flights(packets: pa.Table) -> Iterable[Figure]:
    # The rivals alone: the domain's own definition finds the same sites similar as same-airport.
    networks = networks_of("transport.flights", shipped("data/networks"))
    answers = _answers(packets, networks, 99)
    for row in answers["election"].to_pylist():
        yield from _row("flights", row, "of 99 shuffles")
    shares = answers["shares"].to_pylist()
    for network in sorted({row["network"] for row in shares}):
        over = " ".join(f"{row['share_after']:.2f}" for row in shares if row["network"] == network)
        yield Figure(f"flights, {network}: share in the end", float(over.split()[-1]), "", f"by month: {over}")
    yield Figure(
        "flights, regret of following the shares", shares[-1]["regret"], "", "summed score, to the best network"
    )


def _row(study: str, row: dict[str, object], controls: str) -> Iterable[Figure]:
    evidence = "" if row["evidence"] is None else f"evidence {row['evidence']:.2f} of {row['needed']:.0f}; "
    share = "" if row["share"] is None else f"share {row['share']:.2f}; "
    shuffled = "" if row["shuffled"] is None else f"p {row['shuffled']:.3f} {controls}; "
    behind = f"score {row['score']:.4f}; {share}{evidence}{shuffled}{row['verdict']}"
    yield Figure(f"{study}, {row['network']}: gain", float(str(row["gain"])), "", behind)


def _answers(packets: pa.Table, networks: list[Network], controls: int) -> dict[str, pa.Table]:
    with duckdb.connect() as connection:
        return planted_truth.hold(connection, packets, networks, controls)


def _planted(seeds: Sequence[int]) -> Iterable[Figure]:
    """Four clusters, a drift after which other sites are alike, one site in ten a liar."""
    world = World()
    given = {"drift": world.drift}
    with duckdb.connect() as connection:
        networks = planted_truth.candidates("node_id", "kind", "region", "lot")
        planted_truth.hold(connection, planted_truth.packets(world, seeds), networks, 0)
        planted_truth.followed(connection, world.drift)
        errors = {name: row for name, *row in connection.execute(ERRORS, given).fetchall()}
        worse = dict(connection.execute(WORSE_THAN_ALONE).fetchall())
        recovery = {way: connection.execute(RECOVERY, {**given, "way": way}).fetchall()[0][0] for way in WAYS}
    for way, title in WAYS.items():
        before, drifting, after = errors[way]
        behind = f"RMSE {before:.3f} before the drift, {drifting:.3f} in 8 rounds from it, then this"
        yield Figure(f"planted, {title}: error", after, "", behind)
    for way in ("by shares", "elected", "everyone"):
        yield Figure(f"planted, {WAYS[way]}: sites worse than alone", worse[way], "", f"share, {len(seeds)} seeds")
    for way in ("by shares", "elected", "same-node_id"):
        yield Figure(f"planted, {WAYS[way]}: rounds to recover", recovery[way] or world.rounds)


def _null(seeds: Sequence[int]) -> Iterable[Figure]:
    world = World(sites=12, rounds=48, liars=0.0, helps=False)
    reached, stands = planted_truth.switched(world, seeds)
    behind = f"{stands} of {len(seeds)} seeds; {reached} reached the evidence needed"
    yield Figure("null world: switches that stand", stands / len(seeds), "<= 0.05", behind)


def _power(seeds: Sequence[int]) -> Iterable[Figure]:
    """The same small network where the kind does help, for comparison."""
    world = World(sites=12, rounds=48, drift=48, liars=0.0)
    reached, stands = planted_truth.switched(world, seeds)
    behind = f"{stands} of {len(seeds)} seeds; {reached} reached the evidence needed"
    yield Figure("the same with clusters: switches that stand", stands / len(seeds), "", behind)


if __name__ == "__main__":
    main("Elections", measure)
