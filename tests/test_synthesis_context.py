"""Answers that read more than effect and standard error, against metafor's published numbers: what its own test suite
and documentation state for the thirteen BCG trials (Colditz 1994), and against plain Python where it states none."""

import math

import numpy as np
import pyarrow as pa
import pytest
from meta_analysis import bcg, packets, run

from pipelines import bcg as trials


@pytest.fixture(scope="module")
def answers():
    return run(bcg())


def only(rows, **wanted):
    (found,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return found


def test_influence_equals_metafor(answers):
    """metafor's tests/testthat/test_misc_influence.r, the first trial."""
    first = only(answers["influence"], method="REML", node_id="aronson-1948")
    metafor = {
        "rstudent": -0.218142474344442,
        "dffits": -0.0407075604868486,
        "cooks_distance": 0.00171654236729195,
        "cov_ratio": 1.11644891104804,
        "tau2_without": 0.336156745300306,
        "q_without": 151.582572747109,
        "hat": 0.0505948307931551,
        "dfbetas": -0.0402659025974144,
    }
    for column, value in metafor.items():
        # To the six digits that metafor's Fisher scoring, which stops at 1e-5, gives.
        assert first[column] == pytest.approx(value, rel=2e-6), column
    assert not any(row["influential"] for row in answers["influence"] if row["method"] == "REML")
    assert sum(row["hat"] for row in answers["influence"] if row["method"] == "DL") == pytest.approx(1, abs=1e-12)


def test_influence_marks_the_packet_that_is_out_of_line():
    found = run(packets([(0.1 * n, 0.1) for n in range(10)] + [(9.0, 0.1)]), "influence")["influence"]
    marked = {row["packet_id"].split()[-1] for row in found if row["influential"] and row["method"] != "FE"}
    assert marked == {"10"}
    assert run(packets([(0.1, 0.1)]), "influence")["influence"] == []
    assert len(run(packets([(0.1, 0.1), (0.4, 0.1)]), "influence")["influence"]) == 4 * 2


def test_tau2_interval_equals_metafor(answers):
    """metafor's test_misc_confint.r, whose root finder stops at 1e-4; test_q_profile_solves_its_equation is exact."""
    row = only(answers["tau2_interval"], method="DL")
    for column, value in {"tau2": 0.3088, "tau2_lb": 0.1197, "tau2_ub": 1.1115, "i2": 92.1173, "h2": 12.6861}.items():
        assert row[column] == pytest.approx(value, abs=5e-5), column
    for column, value in {"i2_lb": 81.9177, "i2_ub": 97.6781, "h2_lb": 5.5303, "h2_ub": 43.0680}.items():
        assert row[column] == pytest.approx(value, rel=2e-4), column


@pytest.mark.parametrize(
    "effects",
    [
        [(0.1, 0.1), (0.9, 0.2)],
        [(0.0, 0.1), (1.0, 0.3), (2.0, 0.01), (5.0, 2.0)],
        [(n * 1e-9, 1e-10 * (n + 1)) for n in range(12)],
        [(math.sin(n) * 1e6, 1e3 * (1 + n % 7)) for n in range(60)],
    ],
)
def test_q_profile_solves_its_equation(effects):
    (row,) = {tuple(sorted(row.items())) for row in map(without_method, run(packets(effects))["tau2_interval"])}
    row = dict(row)
    y, s = np.array(effects).T
    with (trials.shipped("data/chi2_crit.csv")).open() as file:
        points = {int(line.split(",")[0]): line.split(",") for line in file.readlines()[1:]}
    for bound, column in (("tau2_lb", 3), ("tau2_ub", 1)):
        w = 1 / (s * s + row[bound])
        q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
        target = float(points[len(effects) - 1][column])
        assert q == pytest.approx(target, rel=1e-9) or (row[bound] == 0 and q < target), bound


def without_method(row):
    return {name: value for name, value in row.items() if name not in ("method", "tau2")}


def test_an_interval_that_is_empty_is_zero():
    for row in run(packets([(0.3, 0.1), (0.3, 0.2), (0.3, 0.4)]), "tau2_interval")["tau2_interval"]:
        assert (row["tau2_lb"], row["tau2_ub"], row["i2_ub"], row["h2"], row["h2_lb"]) == (0, 0, 0, 1, 1)


def test_mantel_haenszel_and_peto_equal_metafor(answers):
    """metafor's test_misc_metan_vs_rma.mh_with_dat.bcg.r and ...rma.peto..., which are Stata's metan."""
    published = {
        ("log_risk_ratio", "MH"): (-0.4537, -0.5308, -0.3766),
        ("log_odds_ratio", "MH"): (-0.4734, -0.5538, -0.3930),
        ("risk_difference", "MH"): (-0.0033, -0.0039, -0.0027),
        ("log_odds_ratio", "Peto"): (-0.4744, -0.5541, -0.3948),
    }
    found = {(row["measure"], row["method"]): row for row in answers["mantel_haenszel"]}
    assert found.keys() == published.keys()
    for key, values in published.items():
        assert [found[key][name] for name in ("estimate", "ci_lb", "ci_ub")] == pytest.approx(values, abs=5.1e-5), key
        assert (found[key]["k"], found[key]["participants"], found[key]["events"]) == (13, 357347, 2575)


def test_empty_cells_count_and_undefined_answers_are_null():
    empty = [{"cells": [0, 50, 5, 45]}, {"cells": [2, 48, 7, 43]}, {"cells": [1, 2]}, {"cells": [-1, 2, 3, 4]}]
    found = run(packets([(0.1, 0.1)] * 4, contexts=empty), "mantel_haenszel")["mantel_haenszel"]
    assert {row["k"] for row in found} == {2}
    odds = only(found, measure="log_odds_ratio", method="MH")["estimate"]
    assert odds == pytest.approx(math.log((0 * 45 / 100 + 2 * 43 / 100) / (50 * 5 / 100 + 48 * 7 / 100)))
    nobody = run(packets([(0.1, 0.1)], contexts=[{"cells": [0, 50, 0, 45]}]), "mantel_haenszel")["mantel_haenszel"]
    assert {row["estimate"] for row in nobody if row["measure"] != "risk_difference"} == {None}


def test_subgroups_are_pooled_by_themselves(answers):
    random = only(answers["subgroups"], value="random", method="REML")
    alone = run(bcg(lambda trial: trial.allocation == "random"), "pooled")["pooled"]
    for column in ("k", "estimate", "se", "tau2", "i2", "hk_ci_lb", "hk_ci_ub"):
        assert random[column] == pytest.approx(only(alone, method="REML")[column], abs=1e-12), column
    fixed = [row for row in answers["subgroups"] if row["method"] == "FE"]
    # With one common weighting Q splits: in all = within the groups + between them.
    within = sum(row["i2"] / 100 for row in fixed)
    assert 0 < within < 3
    assert {row["groups"] for row in fixed} == {3}
    q = {
        name: only(run(bcg(lambda trial, name=name: trial.allocation == name), "pooled")["pooled"], method="FE")["q"]
        for name in ("random", "alternate", "systematic")
    }
    in_all = only(run(bcg(), "pooled")["pooled"], method="FE")["q"]
    assert fixed[0]["q_between"] == pytest.approx(in_all - sum(q.values()), rel=1e-10)
    assert fixed[0]["differ"]
    assert not random["differ"]


def test_likelihoods_of_normal_effects_add_to_the_fixed_effect(answers):
    (row,), fixed = answers["likelihood"], only(answers["pooled"], method="FE")
    for column in ("estimate", "se", "ci_lb", "ci_ub"):
        assert row[column] == pytest.approx(fixed[column], abs=1e-9), column


def binomial_profile(cells, grid):
    """log-likelihood of the log odds ratio at `grid`, the control's risk at its best for each, highest 0."""
    a, b, c, d = cells
    baseline = np.linspace(-12, 8, 4001)
    control = c * baseline - (c + d) * np.logaddexp(0, baseline)
    found = [(a * (t + baseline) - (a + b) * np.logaddexp(0, t + baseline) + control).max() for t in grid]
    return np.array(found) - max(found)


def test_likelihoods_of_sparse_sites():
    """Twelve sites with an arm of ten and few events: near the answer of a hundredfold finer grid of their sum."""
    draw = np.random.default_rng(3)
    sites = [(int(draw.binomial(10, 0.3)), int(draw.binomial(10, 0.1))) for _ in range(12)]
    cells = [(a, 10 - a, c, 10 - c) for a, c in sites]
    grid, fine = np.linspace(-4, 6, 24), np.linspace(-4, 6, 601)
    exact = sum(binomial_profile(one, fine) for one in cells)
    inside = fine[exact >= exact.max() - 1.9207]
    packets_of_sites = packets(
        [(0.0, None)] * len(cells),
        contexts=[{"likelihood_from": -4, "likelihood_to": 6}] * len(cells),
        likelihoods=[binomial_profile(one, grid) for one in cells],
    )
    (row,) = run(packets_of_sites, "likelihood")["likelihood"]
    assert row["estimate"] == pytest.approx(fine[exact.argmax()], abs=0.02)
    assert (row["ci_lb"], row["ci_ub"]) == pytest.approx((inside[0], inside[-1]), abs=0.03)


def test_a_likelihood_that_the_grid_does_not_hold_is_null():
    grid = np.linspace(-3, 3, 8)
    rising = packets([(0.1, 0.1)], likelihoods=[list(grid)])
    (row,) = run(rising, "likelihood")["likelihood"]
    assert (row["estimate"], row["ci_ub"]) == (None, None)
    assert row["ci_lb"] == pytest.approx(3 - 1.920729410347062)
    (flat,) = run(packets([(0.1, 0.1)], likelihoods=[[0.0] * 8]), "likelihood")["likelihood"]
    assert (flat["estimate"], flat["ci_lb"], flat["ci_ub"]) == (None, None, None)
    short = packets([(0.1, 0.1)], likelihoods=[[0.0, 1.0]])
    assert run(short, "likelihood")["likelihood"] == []


def test_cumulative_equals_metafor(answers):
    """cumul(rma(yi, vi), order = year) of metafor's test_misc_cumul.r."""
    found = [row for row in answers["cumulative"] if row["method"] == "REML"]
    metafor = [-0.889311, -1.325003, -0.97208, -1.001094, -1.101424, -0.973464, -0.901251, -0.788566]
    metafor += [-0.865607, -0.785211, -0.708206, -0.794768, -0.714532]
    assert [row["estimate"] for row in found] == pytest.approx(metafor, abs=3e-6)
    assert [row["k"] for row in found] == list(range(1, 14))
    last = only(answers["pooled"], method="REML")
    for column in ("estimate", "se", "tau2", "hk_ci_lb", "hk_ci_ub"):
        assert found[-1][column] == pytest.approx(last[column], abs=1e-12)


def test_shrunk_equals_python(answers):
    """blup(rma(yi, vi)) of metafor, from its formula."""
    pooled = only(answers["pooled"], method="REML")
    effects = {row["packet_id"]: row for row in answers["sites"]}
    found = [row for row in answers["shrunk"] if row["method"] == "REML"]
    assert len(found) == 13
    for row in found:
        vi = effects[row["packet_id"]]["se"] ** 2
        trust = pooled["tau2"] / (pooled["tau2"] + vi)
        assert row["shrunk"] == pytest.approx(trust * row["own"] + (1 - trust) * pooled["estimate"], abs=1e-12)
        assert row["se"] ** 2 == pytest.approx(trust * vi + (1 - trust) ** 2 * pooled["se"] ** 2, abs=1e-12)
        assert (row["pi_lb"], row["pi_ub"]) == pytest.approx((pooled["pi_lb"], pooled["pi_ub"]), abs=1e-12)


def test_a_site_without_a_standard_error_is_told_what_the_others_say():
    found = run(packets([(0.1, 0.1), (0.9, 0.1), (5.0, None)]), "shrunk", "pooled")
    row = only(found["shrunk"], method="REML", own=5.0)
    pooled = only(found["pooled"], method="REML")
    assert (row["trust"], row["shrunk"], row["own_ci_lb"]) == (0, pytest.approx(pooled["estimate"]), None)
    assert row["se"] == pytest.approx(math.sqrt(pooled["tau2"] + pooled["se"] ** 2))


def test_the_best_intervention_is_not_the_wildest():
    sure = packets([(0.5, 0.05), (0.52, 0.05), (0.48, 0.05)], intervention="sure")
    wild = packets([(3.0, 2.0), (-1.0, 2.0)], intervention="wild")
    lucky = packets([(9.0, 0.1)], intervention="lucky")
    weak = packets([(0.1, 0.05), (0.12, 0.05)], intervention="weak")
    found = run(pa.concat_tables([sure, wild, lucky, weak]), "best_intervention")["best_intervention"]
    high = only(found, better="higher")
    assert (high["intervention_type"], high["candidates"]) == ("sure", 4)
    assert high["runner_up"] == "weak"
    assert high["difference"] == pytest.approx(0.39, abs=1e-9)
    assert high["separated"]
    assert only(found, better="lower")["intervention_type"] == "weak"
    assert run(lucky, "best_intervention")["best_intervention"][0]["runner_up"] is None


@pytest.mark.parametrize("sites", [1, 2, 13, 1000])
def test_comparisons(sites):
    (row,) = run(packets([(0.1, 0.1, 20)] * sites), "comparisons")["comparisons"]
    assert (row["sites"], row["packets"], row["records"]) == (sites, sites, 20 * sites)
    assert row["comparisons"] == sites * (sites - 1) // 2
