"""An election over a packet table, with its record beside it: forecasts are written once and never again.

In the folder `TABLE-elections`, both append-only:
    forecasts     what each network expected of each packet, by the name, version and SHA-256 of its definition
    definitions   when each definition was made known: forecasts of packets that were there by then are replayed ones
and the newest result, election.parquet and shares.parquet, which the report reads.
"""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.elections.election import ANSWERS, KEY, Election, is_true_in_time, replay
from pipelines.elections.networks import CONTROLS, FEW_CONTROLS, Network, NetworkError, networks_of
from pipelines.files import write_parquet
from qis_connectors import address as addresses
from qis_connectors.delta import PacketTable
from qis_connectors.delta_appends import AppendOnlyTable

DEFINITIONS = pa.schema(
    [
        ("network", pa.string()),
        ("version", pa.int64()),
        ("definition", pa.string()),
        ("domain", pa.string()),
        ("said", pa.string()),
        ("table_version", pa.int64()),
    ]
)
"""definition: the SHA-256 of `said`, which is the definition as JSON; table_version: of the packet table then."""
FORECASTS = pa.schema(
    [
        ("network", pa.string()),
        ("version", pa.int64()),
        ("definition", pa.string()),
        ("address", pa.string()),
        ("metric_name", pa.string()),
        ("intervention_type", pa.string()),
        ("packet_id", pa.string()),
        ("node_id", pa.string()),
        ("timestamp_utc", pa.int64()),
        ("mean", pa.float64()),
        ("variance", pa.float64()),
        ("neighbours", pa.float64()),
        ("trust", pa.float64()),
        ("replayed", pa.bool_()),
        ("table_version", pa.int64()),
    ]
)
"""Of the true effect, as sql/elections/foreseen.sql; mean and variance NULL where too little was known."""


MANY = 1000
"""With more packets than that an election has fewer controls: it would take minutes."""


def folder_of(table: Path) -> Path:
    """Where the record of the elections over the packet table at `table` is."""
    whole = table.resolve()
    return whole.with_name(f"{whole.name}-elections")


def elect(table: Path, folder: Path | None = None) -> dict[str, pa.Table]:
    """The answers `election` and `shares` of sql/elections over the packet table at `table`, whose record grows by it.

    `folder`: the networks, else those that are shipped. A packet that a network has a forecast of keeps it, whatever
    is known by now. Raises PacketTableError where there is no packet table; SimilarityError and NetworkError, naming
    the file or the network, also for a definition that was changed without a new version; WriteConflictError where
    another election wrote just now.
    """
    snapshot = PacketTable(table)
    forecasts = AppendOnlyTable(folder_of(table) / "forecasts", FORECASTS)
    definitions = AppendOnlyTable(folder_of(table) / "definitions", DEFINITIONS)
    with duckdb.connect() as connection:
        snapshot.relation(connection).create_view("packets")
        found = connection.sql("SELECT DISTINCT address FROM packets ORDER BY address").fetchall()
        domains = {address: addresses.parts(address)[0] for (address,) in found}
        candidates = {domain: networks_of(domain, folder) for domain in set(domains.values())}
        # Everyone alone is no election.
        networks = {address: candidates[domain] for address, domain in domains.items() if len(candidates[domain]) > 1}
        new = _unknown(networks, definitions.rows())
        ((packets,),) = connection.sql("SELECT count(*) FROM packets").fetchall()
        election = Election(connection, networks, CONTROLS if packets <= MANY else FEW_CONTROLS)
        foreseen = election.foreseen()
        kept = _kept(forecasts, _written(foreseen.filter(is_true_in_time(foreseen)), networks, new, snapshot.version))
        # Only now: were this the end, the next election would take the definition for a new one, and its forecasts
        # for replayed ones.
        if new:
            definitions.append(_entries(new, snapshot.version))
        answers = election.answers(_scored(foreseen, kept))
    for name, rows in answers.items():
        write_parquet(rows, folder_of(table) / f"{name}.parquet")
    return answers


def newest(table: Path) -> dict[str, pa.Table]:
    """What the last `elect` over the packet table at `table` found; empty where there was none."""
    paths = {name: folder_of(table) / f"{name}.parquet" for name in ANSWERS}
    return {name: pq.read_table(path) for name, path in paths.items()} if all(map(Path.exists, paths.values())) else {}


def _unknown(networks: dict[str, list[Network]], known: pa.Table) -> dict[str, Network]:
    """The networks, by digest, that no election has seen; NetworkError where one has another meaning than it had."""
    said = {(row["network"], row["version"], row["domain"]): row["definition"] for row in known.to_pylist()}
    new = {}
    for network in {one.digest: one for several in networks.values() for one in several}.values():
        definition = network.definition
        before = said.get((definition.name, definition.version, definition.domain))
        if before is None:
            new[network.digest] = network
        elif before != network.digest:
            raise NetworkError(
                f"network {network.name!r} says something else than its version {definition.version} did, which has "
                "forecasts already; give it the next version"
            )
    return new


def _entries(new: dict[str, Network], version: int | None) -> pa.Table:
    rows = [
        {
            "network": network.name,
            "version": network.definition.version,
            "definition": digest,
            "domain": network.definition.domain,
            "said": network.said,
            "table_version": version,
        }
        for digest, network in new.items()
    ]
    return pa.Table.from_pylist(rows, DEFINITIONS)


def _written(
    foreseen: pa.Table, networks: dict[str, list[Network]], new: dict[str, Network], version: int | None
) -> pa.Table:
    """What `foreseen` would be in the record."""
    by_name = {(address, one.name): one for address, several in networks.items() for one in several}
    pairs = zip(foreseen["address"].to_pylist(), foreseen["network"].to_pylist(), strict=True)
    made_by = [by_name[pair] for pair in pairs]
    columns = {
        "version": [one.definition.version for one in made_by],
        "definition": [one.digest for one in made_by],
        "replayed": [one.digest in new for one in made_by],
        "table_version": [version] * len(made_by),
    }
    for name, values in columns.items():
        foreseen = foreseen.append_column(name, pa.array(values, FORECASTS.field(name).type))
    return foreseen.select(FORECASTS.names)


def _kept(record: AppendOnlyTable, written: pa.Table) -> pa.Table:
    """The record's forecasts by these networks, those it lacked having been added."""
    before = record.rows()
    with duckdb.connect() as connection:
        connection.register("before", before)
        connection.register("written", written)
        same = f"definition, {', '.join(KEY[1:])}"
        added = connection.sql(f"FROM written ANTI JOIN before USING ({same})").to_arrow_table().cast(FORECASTS)
        if added.num_rows:
            record.append(added)
        ours = connection.sql("FROM before SEMI JOIN written USING (definition)").to_arrow_table().cast(FORECASTS)
    return pa.concat_tables([ours, added])


def _scored(foreseen: pa.Table, kept: pa.Table) -> pa.Table:
    """What is scored: the record where the election is the true one in time, elsewhere what was computed now."""
    columns = [*KEY, "mean", "variance", "replayed"]
    ours = kept.select(columns)
    ours = ours.append_column("control", pa.repeat(pa.scalar(0, pa.int64()), ours.num_rows))
    ours = ours.append_column("design", pa.repeat(pa.scalar("in_time"), ours.num_rows))
    others = replay(foreseen.filter(pc.invert(is_true_in_time(foreseen))))
    return pa.concat_tables([ours, others.select(ours.column_names)])
