"""sql/elections against the same algebra in plain numpy, and what must hold of it whatever the packets are."""

import math

import numpy as np
import plain_elections as plain
import pytest
from any_elections import any_rows, election, expected, network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RIVALS = (
    network("kind", kind=None),
    network("near", threshold=0.2, place=1.5),
    network("own", node_id=None),
    network("both", threshold=0.3, kind=None, node_id=None),
)


def scores_of(rows, rival):
    contexts = [{**row["context"], "node_id": row["node"]} for row in rows]
    encoded = rival.definition.encode(contexts)
    matrix = np.array([rival.definition.scores(context, encoded) for context in contexts])
    return np.where(matrix < rival.definition.threshold, 0.0, matrix)


def plainly(rows, **more):
    return plain.foreseen(
        rows,
        {rival.name: scores_of(rows, rival) for rival in RIVALS},
        {rival.name: rival.uses_own for rival in RIVALS},
        **more,
    )


def assert_foreseen(found, wanted):
    compared = 0
    for number, forecast in enumerate(wanted):
        for name in ("everyone", *(rival.name for rival in RIVALS)):
            mean, variance = found[f"{number:04}", name]
            if forecast is None:
                assert mean is variance is None
                continue
            assert (mean, variance) == pytest.approx(forecast[name], rel=1e-9, abs=1e-9), (number, name)
            compared += 1
    return compared


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(4, 7), st.integers(2, 12), st.booleans())
def test_sql_is_what_plain_numpy_computes(seed, sites, rounds, liar):
    rows = any_rows(seed, sites, rounds, liar)
    wanted = plainly(rows)
    with election(rows, *RIVALS) as (connection, forecasts, answers):
        compared = assert_foreseen(expected(forecasts), wanted)
        scored = plain.scored(rows, wanted)
        assert compared == 5 * len(scored)
        if not scored:
            assert answers["shares"].num_rows == 0
            return
        found = connection.sql(
            "SELECT packet_id, network, score FROM normal_scores JOIN arrivals USING (election, packet_id) "
            "WHERE design = 'in_time'"
        ).fetchall()
        named = {(packet_id, name): score for packet_id, name, score in found}
        kept = [number for number, forecast in enumerate(wanted) if forecast is not None]
        for number, (_, row) in zip(kept, scored, strict=True):
            for name, (score, _, _) in row.items():
                assert named[f"{number:04}", name] == pytest.approx(score, abs=1e-9)
        rounds_found = answers["shares"].to_pylist()
        for number, (before, after, regret) in enumerate(plain.shares(scored), 1):
            here = {row["network"]: row for row in rounds_found if row["round"] == number}
            assert sum(row["share_after"] for row in here.values()) == pytest.approx(1)
            for name, row in here.items():
                shown = (row["share_before"], row["share_after"], row["regret"])
                assert shown == pytest.approx((before[name], after[name], regret), abs=1e-9)


def test_left_out_knows_all_others():
    rows = any_rows(7, sites=9, rounds=1)
    with election(rows, *RIVALS) as (_, forecasts, _):
        assert assert_foreseen(expected(forecasts, "left_out"), plainly(rows, left_out=True)) == 5 * len(rows)
        # Of one and the same time nothing is known in time.
        assert {mean for mean, _ in expected(forecasts).values()} == {None}


def test_terms_are_what_plain_numpy_computes():
    rows = any_rows(3, sites=8, rounds=60)
    for row in rows:  # the kinds lie further apart for a while, then not at all
        row["y"] = row["y"] * 3 if row["time"] < 30 else row["y"] - (row["context"]["kind"]) + int(row["node"][1:]) % 3
    with election(rows, *RIVALS) as (connection, _, _):
        found = connection.sql(
            "SELECT incumbent, since, evidence FROM incumbents WHERE control = 0 ORDER BY number"
        ).fetchall()
        first = connection.sql("SELECT min(round) FROM normal_scores").fetchall()[0][0]
    wanted = plain.terms(plain.scored(rows, plainly(rows)))
    assert len(wanted) > 2
    assert [(name, since and since - first + 1) for name, since, _ in found] == [one[:2] for one in wanted]
    assert [evidence for *_, evidence in found[1:]] == pytest.approx([evidence for *_, evidence in wanted[1:]])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(*[st.floats(-5, 5)] * 2, *[st.floats(0.05, 5)] * 2, st.floats(-1e3, 1e3))
def test_no_outcome_takes_two_scores_further_apart_than_the_bound(mean1, mean2, sd1, sd2, y):
    bound = abs(mean1 - mean2) + abs(sd1 - sd2) / math.sqrt(math.pi)
    assert abs(plain.crps(mean1, sd1, y) - plain.crps(mean2, sd2, y)) <= bound * (1 + 1e-9) + 1e-9


def test_crps_is_the_area_between_the_forecast_and_what_came():
    """Gneiting and Raftery's definition, integrated on a grid."""
    x = np.linspace(-30, 30, 600_001)
    for mean, sd, y in ((0.0, 1.0, 0.0), (0.5, 2.0, -3.0), (-1.0, 0.3, 1.0)):
        below = np.array([0.5 * (1 + math.erf((one - mean) / sd / math.sqrt(2))) for one in x[::100]])
        area = np.trapezoid((below - (x[::100] >= y)) ** 2, x[::100])
        assert plain.crps(mean, sd, y) == pytest.approx(area, abs=0.01)
