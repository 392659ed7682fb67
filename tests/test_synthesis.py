"""sql/ at its edges: one packet, two, none, liars, zeros; and the intervals."""

import math
import random

import duckdb
import pyarrow as pa
import pytest
from meta_analysis import packets, pooled, run

from pipelines.synthesize import answers, statements


def test_one_packet():
    for row in pooled(packets([(0.5, 0.2)])).values():
        assert (row["k"], row["estimate"], row["se"]) == (1, 0.5, pytest.approx(0.2))
        assert row["ci_ub"] == pytest.approx(0.5 + 1.959963984540054 * 0.2)
        assert row["tau2"] == (0 if row["method"] == "FE" else None)
        assert {row[c] for c in ("i2", "hk_se", "hk_ci_lb", "hk_ci_ub", "pi_lb", "pi_ub")} == {None}
    assert run(packets([(0.5, 0.2)]), "leave_one_out")["leave_one_out"] == []


def test_two_packets():
    """Two equal variances: every estimator is (y1 - y2)^2 / 2 - v."""
    found = pooled(packets([(0.0, 0.1), (1.0, 0.1)]))
    for method in ("DL", "PM", "REML"):
        assert found[method]["tau2"] == pytest.approx(0.49, abs=1e-12)
        assert found[method]["pi_ub"] == pytest.approx(0.5 + 12.7062047361747 * math.sqrt(0.49 + 0.25), abs=1e-9)


def test_equal_effects_and_zero_heterogeneity():
    for row in pooled(packets([(0.3, 0.1), (0.3, 0.2), (0.3, 0.4)])).values():
        assert (row["tau2"], row["i2"]) == (0, 0)
        assert row["q"] == pytest.approx(0, abs=1e-20)
        assert row["estimate"] == pytest.approx(0.3, abs=1e-15)
        assert row["hk_se"] == row["se"]
    (row,) = run(packets([(0.3, 0.1), (0.3, 0.2)]), "robust")["robust"]
    assert (row["mad"], row["huber"], row["median"]) == (0, 0.3, 0.3)


def test_unusable_standard_errors_count_only_where_nothing_is_weighted():
    bad = [(9.0, None), (9.0, 0.0), (9.0, -1.0), (9.0, math.inf), (9.0, math.nan)]
    found = run(packets([(0.1, 0.1), (0.2, 0.1), *bad, (math.nan, 0.1), (math.inf, 0.1)]), "pooled", "robust")
    assert {row["k"] for row in found["pooled"]} == {2}
    assert (found["robust"][0]["k"], found["robust"][0]["median"]) == (7, 9.0)
    assert found["robust"][0]["weighted_median_capped"] == 0.1
    alone = run(packets(bad[:1]))
    assert (alone["pooled"], alone["leave_one_out"]) == ([], [])
    assert alone["robust"][0]["weighted_median_capped"] is None


def test_no_packets():
    nothing = run(packets([(0.1, 0.1)]).slice(0, 0))
    assert nothing == {name: [] for name in answers()}


def test_a_packet_sent_twice_is_one_packet():
    once = packets([(0.1, 0.1), (0.5, 0.2), (0.9, 0.1)])
    expected, found = run(once), run(pa.concat_tables([once, once]))
    for name in answers():
        for first, second in zip(expected[name], found[name], strict=True):
            assert first == pytest.approx(second, abs=1e-13)


def test_keys_are_kept_apart():
    keys = [("a/x", "auc", "drug"), ("b/x", "auc", "drug"), ("a/x", "rr", "drug"), ("a/x", "auc", "diet")]
    tables = [
        packets([(n, 0.1), (n + 0.1, 0.1)], address=a, metric=m, intervention=i) for n, (a, m, i) in enumerate(keys)
    ]
    found = run(pa.concat_tables(tables))
    assert len(found["pooled"]) == 16
    for row in found["pooled"]:
        number = keys.index((row["address"], row["metric_name"], row["intervention_type"]))
        assert row["estimate"] == pytest.approx(number + 0.05)
    assert len(found["leave_one_out"]) == 4 * 4 * 2
    assert len(found["robust"]) == 4


def test_one_liar_in_300_moves_the_pool_and_not_the_robust_answers():
    draw = random.Random(300)
    honest = [(draw.gauss(0.2, 0.1), 0.1, 100) for _ in range(299)]
    found = run(packets([*honest, (1e4, 1e-6, 2**31 - 1)]), "pooled", "robust")
    assert next(row for row in found["pooled"] if row["method"] == "FE")["estimate"] > 9999
    for column in ("median", "trimmed_10", "winsorised_10", "weighted_median_capped", "huber"):
        assert abs(found["robust"][0][column] - 0.2) < 0.03, column


def test_dersimonian_laird_survives_a_claim_of_certainty():
    """With a variance of nearly 0, Q = 1 + 4 and sum w - sum w^2 / sum w = 4, so tau2 = (5 - 2) / 4."""
    for se in (1e-9, 1e-20, 1e-38):
        found = pooled(packets([(0.0, se), (1.0, 1.0), (2.0, 1.0)]))
        assert found["DL"]["tau2"] == pytest.approx(0.75, rel=1e-12)


@pytest.mark.parametrize(
    "effects",
    [
        [(draw.gauss(0, 3) * scale, math.exp(draw.gauss(0, spread)) * scale) for _ in range(k)]
        for spread, scale in ((0.3, 1.0), (3.0, 1.0), (1.0, 1e-9), (1.0, 1e9))
        for k in (2, 3, 7, 40)
        for draw in [random.Random(f"{spread} {scale} {k}")]
    ],
    ids=lambda effects: f"{len(effects)}",
)
def test_paule_mandel_and_reml_solve_their_equations(effects):
    """Each tau2 is 0 with nothing left to explain, or a root: tiny, huge and very unequal variances too."""
    found = pooled(packets(effects))
    for method in ("PM", "REML"):
        tau2 = found[method]["tau2"]
        w = [1 / (se * se + tau2) for _, se in effects]
        mean = sum(a * y for a, (y, _) in zip(w, effects, strict=True)) / sum(w)
        power, trace = (1, len(w) - 1) if method == "PM" else (2, sum(w) - sum(a * a for a in w) / sum(w))
        excess = sum(a**power * (y - mean) ** 2 for a, (y, _) in zip(w, effects, strict=True)) / trace - 1
        assert abs(excess) < 1e-8 or (tau2 == 0 and excess < 0), method


def test_intervals_hartung_knapp_never_narrower(classic_answers):
    assert len(classic_answers["pooled"]) == 16
    for row in classic_answers["pooled"]:
        assert row["hk_ci_lb"] <= row["ci_lb"] < row["ci_ub"] <= row["hk_ci_ub"]
        assert row["pi_lb"] <= row["ci_lb"]


def test_t_quantile_beyond_the_table():
    """At df 2000 the expansion that takes over there must equal the table; at 2500 the tail beyond it must be 2.5 %."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE fixed_effect AS SELECT unnest([1, 2, 2001, 2501, 100001]) AS k")
        connection.execute("CREATE TABLE t_crit AS SELECT 1::BIGINT AS df, 12.7062047361747 AS t975")
        found = dict(connection.execute(statements()["t_quantiles"].text).fetchall())
    assert sorted(found) == [1, 2000, 2500, 100000]
    assert found[1] == 12.7062047361747
    assert found[2000] == pytest.approx(1.96115082609944, abs=1e-13)
    assert found[2500] == pytest.approx(t_quantile(2500), abs=1e-11)


def t_quantile(df: int) -> float:
    """The 97.5 % point by bisection on Simpson's rule over the density."""
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)

    def half_probability(t: float, steps: int = 2000) -> float:
        h = t / steps
        density = [(1 + (i * h) ** 2 / df) ** (-(df + 1) / 2) for i in range(steps + 1)]
        return constant * h / 3 * (density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]))

    low, high = 1.9, 2.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if half_probability(middle) < 0.475 else (low, middle)
    return low
