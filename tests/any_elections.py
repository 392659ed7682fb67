"""Packets, networks and elections for the tests of pipelines/elections."""

import json
from contextlib import contextmanager

import duckdb
import numpy as np
import pyarrow as pa
from meta_analysis import packets

from pipelines.elections.election import Election, replay
from pipelines.elections.networks import Network
from qis_connectors.similarity import Definition

DOMAIN, ADDRESS = "test", "test/x"


def network(name="everyone", threshold=0.5, domain=DOMAIN, version=1, **fields):
    """A network that compares the fields exactly, or by the scale that is given."""
    kernels = {
        field: {"kernel": "numeric", "scale": float(scale)} if scale else {"kernel": "exact"}
        for field, scale in fields.items()
    }
    said = {"name": name, "version": version, "author": "x", "domain": domain, "threshold": threshold}
    return Network(Definition.model_validate({**said, "fields": kernels}))


def table(rows):
    """Packets from dicts of node, time, y, v and context, numbered in this order."""
    found = packets(
        [(row["y"], row["v"] ** 0.5) for row in rows],
        address=ADDRESS,
        times=[row["time"] for row in rows],
        contexts=[row["context"] for row in rows],
    )
    ids = [f"{number:04}" for number in range(len(rows))]
    for name, values in (("node_id", [row["node"] for row in rows]), ("packet_id", ids)):
        found = found.set_column(found.column_names.index(name), name, pa.array(values))
    return found


@contextmanager
def election(rows, *networks, controls=0):
    """(connection, forecasts, answers) of the election over the rows; all steps are there as relations."""
    with duckdb.connect() as connection:
        connection.register("packets", rows if isinstance(rows, pa.Table) else table(rows))
        addresses = connection.sql("SELECT DISTINCT address FROM packets").fetchall()
        held = Election(connection, {address: [network(), *networks] for (address,) in addresses}, controls)
        forecasts = held.foreseen()
        yield connection, forecasts, held.answers(replay(forecasts))


def expected(forecasts, design="in_time", control=0):
    """(packet_id, network) -> (mean, variance)."""
    return {
        (row["packet_id"], row["network"]): (row["mean"], row["variance"])
        for row in forecasts.to_pylist()
        if (row["design"], row["control"]) == (design, control)
    }


def any_rows(seed, sites=6, rounds=5, liar=False):
    """A year of a small network: sites of two kinds, at places on a line, some rounds without some sites."""
    draw = np.random.default_rng(seed)
    rows = []
    for time in range(rounds):
        for site in range(sites):
            if draw.random() < 0.85:
                y = (site % 2) + draw.normal(0, 0.4)
                rows.append(
                    {
                        "node": f"s{site}",
                        "time": time,
                        "y": float(1e6 if liar and site == 0 else y),
                        "v": float(draw.uniform(0.01, 0.3)),
                        "context": {"kind": site % 2, "place": site, "said": json.dumps(site)},
                    }
                )
    return rows
