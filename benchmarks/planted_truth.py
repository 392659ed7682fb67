"""A world whose truth is known, for elections: clusters of sites, a drift, liars, and a world in which nothing helps."""

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
    """One packet a site and round, each seed at an address of its own; `truth` is the site's effect and `honest` so."""
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


ERRORS = """
WITH truths AS (SELECT address, packet_id, node_id, timestamp_utc AS turn, truth FROM packets WHERE honest),
terms AS (
    SELECT address, incumbent, min(timestamp_utc) AS since
    FROM incumbents
    JOIN arrivals ON arrivals.election = incumbents.election AND arrivals.round = greatest(since, 1)
    WHERE control = 0
    GROUP BY address, incumbent, number
),
ruling AS (
    SELECT address, turn, max_by(incumbent, since) AS network
    FROM (SELECT DISTINCT address, turn FROM truths) AS turns
    JOIN terms USING (address)
    WHERE since < turn OR (since = 0 AND turn = 0)
    GROUP BY address, turn
),
errors AS (
    SELECT address, network, packet_id, node_id, turn, mean, mean - truth AS error
    FROM forecasts
    JOIN truths USING (address, packet_id, node_id)
    WHERE control = 0 AND mean IS NOT NULL
),
followed AS (
    SELECT * FROM errors
    UNION ALL
    SELECT address, 'elected', packet_id, node_id, turn, mean, error
    FROM errors JOIN ruling USING (address, turn, network)
    UNION ALL
    SELECT address, 'by shares', packet_id, node_id, turn, NULL, sum(share_before * error)
    FROM errors
    JOIN (SELECT address, network, timestamp_utc AS turn, share_before FROM shares) USING (address, network, turn)
    GROUP BY address, packet_id, node_id, turn
    UNION ALL
    SELECT address, 'oracle', packet_id, node_id, turn, NULL, error
    FROM errors WHERE network = CASE WHEN turn < $drift THEN 'same-kind' ELSE 'same-region' END
)
"""
BY_PHASE = """
SELECT network,
    sqrt(avg(error ** 2) FILTER (turn < $drift)) AS before,
    sqrt(avg(error ** 2) FILTER (turn >= $drift AND turn < $drift + 8)) AS drifting,
    sqrt(avg(error ** 2) FILTER (turn >= $drift + 8)) AS after
FROM followed GROUP BY network ORDER BY after
"""
WORSE_THAN_ALONE = """
SELECT avg((theirs.error > alone.error)::INT)
FROM (SELECT address, node_id, sum(error ** 2) AS error FROM followed WHERE network = $followed GROUP BY ALL) AS theirs
JOIN (SELECT address, node_id, sum(error ** 2) AS error FROM followed WHERE network = 'same-node_id' GROUP BY ALL)
    AS alone USING (address, node_id)
"""
RECOVERY = """
SELECT min(turn) - $drift + 1
FROM (SELECT turn, network, sqrt(avg(error ** 2)) AS error FROM followed GROUP BY ALL) AS one
JOIN (SELECT turn, sqrt(avg(error ** 2)) AS best FROM followed WHERE network = 'oracle' GROUP BY ALL) AS oracle USING (turn)
WHERE turn >= $drift AND network = $followed AND error <= 1.2 * best
"""
SWITCHES = """
SELECT address, incumbent, min(timestamp_utc) AS turn
FROM incumbents
JOIN arrivals ON arrivals.election = incumbents.election AND arrivals.round = since
WHERE control = 0 AND number > 0
GROUP BY address, number, incumbent
ORDER BY address, turn
"""
