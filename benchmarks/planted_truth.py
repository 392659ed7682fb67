"""A world whose truth is known, for elections: clusters of sites, a drift, liars; and one in which nothing helps."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from pipelines.elections.election import Election, replay
from pipelines.elections.networks import EVERYONE, Network
from qis_connectors.outcome import compact_json
from qis_connectors.similarity import Definition

DOMAIN = "planted.truth"
CLUSTERS = 4
CENTRES = np.array([-0.6, -0.2, 0.2, 0.6])
WITHIN = 0.1
"""Standard deviation of the true effects of a cluster's sites."""


@dataclass(frozen=True)
class World:
    """`kind` and `region` are two labels of every site, drawn independently. Before the drift the effect of a site
    follows its kind, from the round `drift` on its region; where `helps` is false neither label means anything and
    every site keeps an effect of its own. Every tenth site lies: one in two of these is 1 off with near certainty, the
    others anything up to 20."""

    sites: int = 40
    rounds: int = 64
    drift: int = 40
    liars: float = 0.1
    helps: bool = True


def packets(world: World, seeds: Sequence[int]) -> pa.Table:
    """One packet a site and round, each seed at an address of its own; `truth` is the site's effect, `centre` its
    cluster's, and `honest` whether it says so."""
    return pa.concat_tables([_packets(world, seed) for seed in seeds])


def _packets(world: World, seed: int) -> pa.Table:
    draw = np.random.default_rng(seed)
    sites, rounds = world.sites, world.rounds
    kind, region = (draw.permutation(np.arange(sites) % CLUSTERS) for _ in range(2))
    own = draw.normal(0, WITHIN if world.helps else CENTRES.std(), sites)
    when = np.arange(rounds)[:, None]
    centre = np.where(when < world.drift, CENTRES[kind], CENTRES[region]) if world.helps else np.zeros((rounds, sites))
    truth = centre + own
    stderr = draw.uniform(0.3, 0.6, (rounds, sites))
    effect = draw.normal(truth, stderr)
    liars = draw.choice(sites, round(world.liars * sites), replace=False)
    for at, liar in enumerate(liars):
        effect[:, liar] = truth[:, liar] + 1 if at % 2 else draw.uniform(-20, 20, rounds)
        stderr[:, liar] = 0.01
    honest = ~np.isin(np.arange(sites), liars)
    contexts = [
        compact_json({"kind": f"k{one}", "region": f"r{other}"}) for one, other in zip(kind, region, strict=True)
    ]
    return pa.table(
        {
            "address": [f"{DOMAIN}/seed-{seed}"] * (rounds * sites),
            "metric_name": ["effect"] * (rounds * sites),
            "intervention_type": ["none"] * (rounds * sites),
            "node_id": [f"site-{site}" for _ in range(rounds) for site in range(sites)],
            "packet_id": [f"{seed}-{turn}-{site}" for turn in range(rounds) for site in range(sites)],
            "timestamp_utc": np.repeat(np.arange(rounds), sites),
            "metric_delta": effect.ravel(),
            "metric_stderr": stderr.ravel(),
            "sample_count": np.full(rounds * sites, 100),
            "context": contexts * rounds,
            "truth": truth.ravel(),
            "centre": (truth - own).ravel(),
            "honest": np.tile(honest, rounds),
        }
    )


def candidates(*fields: str) -> list[Network]:
    """Everyone, and a network for each field that counts sites similar where they say the same."""
    return [_network(EVERYONE), *(_network(f"same-{field}", field) for field in fields)]


def _network(name: str, *fields: str) -> Network:
    said = {
        "name": name,
        "version": 1,
        "author": "planted",
        "domain": DOMAIN,
        "threshold": 1.0 if fields else 0.0,
        "fields": {field: {"kernel": "exact"} for field in fields},
    }
    return Network(Definition.model_validate(said))


def hold(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, networks: list[Network], controls: int
) -> dict[str, pa.Table]:
    """The election over `table`; what sql/elections made on the way stays behind on `connection`."""
    connection.register("packets", table)
    addresses = sorted(set(table["address"].to_pylist()))
    election = Election(connection, dict.fromkeys(addresses, networks), controls)
    forecasts = replay(election.foreseen())
    return {**election.answers(forecasts), "forecasts": forecasts}


def switched(world: World, seeds: Sequence[int], at_once: int = 20) -> tuple[int, int]:
    """In how many worlds a network other than everyone reached the needed evidence, and in how many its switch stands
    beside 19 shuffled controls."""
    reached = stands = 0
    networks = candidates("kind", "region", "lot")
    for first in range(0, len(seeds), at_once):
        with duckdb.connect() as connection:
            found = packets(world, seeds[first : first + at_once])
            verdicts = hold(connection, found, networks, 19)["election"].to_pylist()
            reached += connection.execute(
                "SELECT count(DISTINCT election) FROM incumbents WHERE control = 0 AND number > 0"
            ).fetchall()[0][0]
        stands += len({row["address"] for row in verdicts if row["verdict"] == "has the say: it reached the margin"})
    return reached, stands


def followed(connection: duckdb.DuckDBPyConnection, drift: int) -> None:
    """Makes the relation `followed` after `hold`: the error of what each way to forecast expected of each honest site's
    packet. Ways: every network; 'elected', the network that had the say; 'by shares', the mean weighted by shares;
    'right network', the one by the label that is true at the time;
    'oracle', the true mean of the site's cluster."""
    connection.execute(_FOLLOWED, {"drift": drift})


_FOLLOWED = """
CREATE OR REPLACE TEMP TABLE followed AS
WITH truths AS (SELECT address, packet_id, node_id, timestamp_utc AS turn, truth FROM packets WHERE honest),
terms AS (
    SELECT address, incumbent, number, coalesce(min(timestamp_utc) FILTER (round = since), -1) AS since
    FROM incumbents
    JOIN arrivals USING (election)
    WHERE control = 0
    GROUP BY address, incumbent, number
),
ruling AS (
    SELECT address, turn, max_by(incumbent, since) AS network
    FROM (SELECT DISTINCT address, turn FROM truths) AS turns
    JOIN terms USING (address)
    WHERE since < turn
    GROUP BY address, turn
),
errors AS (
    SELECT address, network, packet_id, node_id, turn, mean - truth AS error
    FROM forecasts
    JOIN truths USING (address, packet_id, node_id)
    WHERE control = 0 AND mean IS NOT NULL
)
SELECT address, network, node_id, turn, error FROM errors
UNION ALL
SELECT address, 'elected', node_id, turn, error
FROM errors
JOIN ruling USING (address, turn, network)
UNION ALL
SELECT address, 'by shares', node_id, turn, sum(share_before * error)
FROM errors
JOIN (SELECT address, network, timestamp_utc AS turn, share_before FROM shares) USING (address, network, turn)
GROUP BY address, packet_id, node_id, turn
UNION ALL
SELECT address, 'oracle', node_id, timestamp_utc, centre - truth
FROM packets
WHERE honest
UNION ALL
SELECT address, 'right network', node_id, turn, error
FROM errors
WHERE network = CASE WHEN turn < $drift THEN 'same-kind' ELSE 'same-region' END
"""

ERRORS = """
SELECT
    network,
    sqrt(avg(error ** 2) FILTER (turn < $drift)) AS before,
    sqrt(avg(error ** 2) FILTER (turn >= $drift AND turn < $drift + 8)) AS drifting,
    sqrt(avg(error ** 2) FILTER (turn >= $drift + 8)) AS after
FROM followed
GROUP BY network
"""
"""Root mean square error of each way before the drift, in the eight rounds from it on, and after these."""

WORSE_THAN_ALONE = """
WITH sites AS (SELECT address, node_id, network, sum(error ** 2) AS error FROM followed GROUP BY ALL)
SELECT theirs.network, avg((theirs.error > alone.error)::INT)
FROM sites AS theirs
JOIN sites AS alone USING (address, node_id)
WHERE alone.network = 'same-node_id'
GROUP BY theirs.network
"""
"""Of each way the share of honest sites that it serves worse than their own history does."""

RECOVERY = """
WITH turns AS (SELECT turn, sqrt(avg(error ** 2)) AS error FROM followed WHERE network = $way GROUP BY turn)
SELECT min(turn) - $drift + 1
FROM turns
WHERE turn >= $drift AND error <= 1.2 * (SELECT avg(error) FROM turns WHERE turn BETWEEN $drift - 10 AND $drift - 1)
"""
"""Rounds until the error of a way is within a fifth of what it was in the ten rounds before the drift."""
