"""The four classic data sets as packets, and the answers to them, for the tests of sql/."""

import csv
import json
import math
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipelines.bcg import trials
from pipelines.effects import log_risk_ratio
from pipelines.synthesize import synthesize
from qis_connectors.similarity import Definition, Definitions

GROUND_TRUTH = Path(__file__).parent / "ground_truth"
METHODS = ("FE", "DL", "PM", "REML")
# metafor's Fisher scoring stops short of the REML optimum by 8e-11 (magnesium16; 3e-10 in leave-one-out), which
# test_reml_solves_its_equation shows with 50 digits: there the reference is the one that is off.
TOLERANCE = {"FE": 1e-11, "DL": 1e-11, "PM": 1e-11, "REML": 5e-10}
# Ground-truth column -> ours, by the inference of the row.
COLUMNS = {
    "z": {
        "k": "k",
        "estimate": "estimate",
        "se": "se",
        "ci_lb": "ci_lb",
        "ci_ub": "ci_ub",
        "tau2": "tau2",
        "Q": "q",
        "I2_from_Q": "i2",
        "pi_tkm1_lb": "pi_lb",
        "pi_tkm1_ub": "pi_ub",
    },
    "hk_adhoc_ge_z": {"se": "hk_se", "ci_lb": "hk_ci_lb", "ci_ub": "hk_ci_ub"},
}
# The tests' own domain, where who is near the same latitude, or of the same ward, is similar.
NEAR = Definition.model_validate(
    {
        "name": "near",
        "version": 1,
        "author": "tests",
        "domain": "test",
        "threshold": 0.3,
        "fields": {"latitude": {"kernel": "numeric", "scale": 10}, "ward": {"kernel": "exact"}},
    }
)
DEFINITIONS = Definitions([NEAR], {"test": NEAR})
HIGHEST_ERROR = {pa.float64(): TOLERANCE, pa.float32(): dict.fromkeys(METHODS, 1e-6)}


def rows(name: str) -> list[dict[str, str]]:
    with (GROUND_TRUTH / name).open(newline="") as file:
        return list(csv.DictReader(file))


def packets(
    effects,
    *,
    address="test/x",
    metric="log_risk_ratio",
    intervention="drug",
    real=None,
    times=None,
    contexts=None,
    likelihoods=None,
) -> pa.Table:
    """Packets from (effect, standard error or None[, sample count]) tuples, node and packet numbered from 0.

    `times` (ms; else their numbers), `contexts` (dicts) and `likelihoods` (lists): one a packet.
    """
    real = real or pa.float64()
    names = [f"{address} {metric} {intervention} {number}" for number in range(len(effects))]
    return pa.table(
        {
            "address": pa.array([address] * len(effects)),
            "metric_name": pa.array([metric] * len(effects)),
            "intervention_type": pa.array([intervention] * len(effects)),
            "node_id": pa.array([f"site-{number}" for number in range(len(effects))]),
            "packet_id": pa.array(names),
            "metric_delta": pa.array([float(effect[0]) for effect in effects], pa.float64()).cast(real),
            "metric_stderr": pa.array([effect[1] for effect in effects], pa.float64()).cast(real),
            "sample_count": pa.array([(*effect, 100)[2] for effect in effects], pa.int32()),
            "timestamp_utc": pa.array(times or range(len(effects)), pa.int64()),
            "context": pa.array(
                [json.dumps(one) for one in contexts] if contexts else [None] * len(effects), pa.string()
            ),
            "likelihood": pa.array(likelihoods or [None] * len(effects), pa.list_(real)),
        }
    )


def classic(real=None) -> pa.Table:
    """The four data sets, each at its own address; packet ids end in the row's number in its data set."""
    sets: dict[str, list] = {}
    for row in rows("meta_inputs.csv"):
        effects = sets.setdefault(row["dataset"], [])
        effects.append((float(row["yi"]), math.sqrt(float(row["vi"])), int(float(row["n"]))))
    return pa.concat_tables(packets(effects, address=f"test/{name}", real=real) for name, effects in sets.items())


def run(table: pa.Table, *names: str) -> dict[str, list[dict]]:
    with duckdb.connect() as connection:
        connection.register("packets", table)
        return {name: found.to_pylist() for name, found in synthesize(connection, names or None, DEFINITIONS).items()}


def pooled(table: pa.Table) -> dict[str, dict]:
    return {row["method"]: row for row in run(table, "pooled")["pooled"]}


def bcg(which=bool) -> pa.Table:
    """The thirteen BCG trials with all that a packet may carry: year, context, cells, a log-likelihood on 16 points."""
    effects, times, contexts, likelihoods, names = [], [], [], [], []
    for trial in filter(which, trials().values()):
        a, b, c, d = trial.cells.counts()
        effect, stderr = log_risk_ratio(trial.cells)
        effects.append((effect, stderr, a + b + c + d))
        times.append(trial.year)
        contexts.append({"latitude": trial.latitude, "allocation": trial.allocation, "cells": [a, b, c, d]})
        likelihoods.append([-((6 * at / 15 - 3 - effect) ** 2) / (2 * stderr**2) for at in range(16)])
        names.append(trial.site)
    table = packets(effects, times=times, contexts=contexts, likelihoods=likelihoods)
    return table.set_column(table.column_names.index("node_id"), "node_id", pa.array(names))


def assert_alike(found: list[dict], wanted: list[dict], rel=1e-12) -> None:
    """Row by row, floats to `rel` (engines and threads add up in orders of their own), all else exactly."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for column, value in other.items():
            assert one[column] == (pytest.approx(value, rel=rel, abs=1e-13) if isinstance(value, float) else value), (
                column
            )
