"""The line through the effects against a number that sites told of themselves: metafor's, and numpy's."""

import math

import numpy as np
import pytest
import scipy.stats
from meta_analysis import bcg, packets, run


@pytest.fixture(scope="module")
def answers():
    return run(bcg(), "meta_regression")


def latitude(answers):
    (row,) = answers["meta_regression"]
    assert row["variable"] == "latitude"
    return row


def test_meta_regression_equals_metafor(answers):
    """rma(yi, vi, mods = ~ ablat, data = dat.bcg), as printed in metafor's documentation."""
    row = latitude(answers)
    assert row["tau2"] == pytest.approx(0.0764, abs=1e-4)  # metafor stops a step early, at 1e-5
    printed = {"slope": -0.0291, "slope_se": 0.0072, "intercept": 0.2515, "intercept_se": 0.2491}
    for column, value in printed.items():
        assert row[column] == pytest.approx(value, abs=5e-5), column
    assert row["slope_ci_lb"] == pytest.approx(-0.0432, abs=5e-5)
    assert row["slope_ci_ub"] == pytest.approx(-0.0150, abs=5e-5)
    assert row["z"] ** 2 == pytest.approx(16.3571, abs=2e-3)  # as tau2
    assert row["r2"] == pytest.approx(75.62, abs=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_meta_regression_equals_numpy(seed):
    """The root of the REML equation with the design's own projection matrix, and weighted least squares at it."""
    draw = np.random.default_rng(seed)
    k = 4 + 6 * seed
    x = draw.normal(2000, 9, k).round(1)
    s = draw.lognormal(-1.5, 0.7, k)
    y = 0.02 * (x - 2000) + draw.normal(0, np.sqrt(s * s + 0.1 * seed))
    design = np.column_stack([np.ones(k), (x - x.mean()) / x.std()])

    def projection(tau2):
        w = np.diag(1 / (s * s + tau2))
        return w - w @ design @ np.linalg.inv(design.T @ w @ design) @ design.T @ w

    (row,) = run(
        packets(list(zip(y, s, strict=True)), contexts=[{"year": float(one)} for one in x]), "meta_regression"
    )["meta_regression"]
    p = projection(row["tau2"])
    excess = y @ p @ p @ y / np.trace(p) - 1
    assert abs(excess) < 1e-8 or (row["tau2"] == 0 and excess < 0)
    weights = 1 / (s * s + row["tau2"])
    raw = np.column_stack([np.ones(k), x])
    covariance = np.linalg.inv(raw.T @ (weights[:, None] * raw))
    intercept, slope = covariance @ raw.T @ (weights * y)
    assert (row["intercept"], row["slope"]) == pytest.approx((intercept, slope), rel=1e-7)
    assert (row["intercept_se"], row["slope_se"]) == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-6)
    wider = math.sqrt(max(1.0, (weights * (y - intercept - slope * x) ** 2).sum() / (k - 2)))
    assert (row["intercept_hk_se"], row["slope_hk_se"]) == pytest.approx(wider * np.sqrt(np.diag(covariance)), rel=1e-6)
    t = student_t(k - 2)
    assert (row["slope_hk_ci_lb"], row["slope_hk_ci_ub"]) == pytest.approx(
        (slope - t * row["slope_hk_se"], slope + t * row["slope_hk_se"]), rel=1e-6, abs=1e-9
    )
    assert row["slope_hk_ci_lb"] < row["slope_ci_lb"]
    assert row["slope_hk_ci_ub"] > row["slope_ci_ub"]


def student_t(df):
    """The 97.5 % point, by scipy: not from the table that the SQL has it from."""
    return scipy.stats.t.ppf(0.975, df)


def test_knapp_hartung_on_thousands_of_sites():
    """Beyond the table of t, and with more unexplained than tau2 = 0 allows: standard errors that are too small."""
    draw, k = np.random.default_rng(2), 4000
    x = draw.normal(0, 1, k)
    y = 0.5 * x + draw.normal(0, 0.1, k)
    effects = list(zip(y, np.full(k, 0.1), strict=True))
    (row,) = run(packets(effects, contexts=[{"x": float(one)} for one in x]), "meta_regression")["meta_regression"]
    half = (row["slope_hk_ci_ub"] - row["slope_hk_ci_lb"]) / 2
    assert half / row["slope_hk_se"] == pytest.approx(student_t(k - 2), rel=2e-7)


def test_knapp_hartung_as_metafor_prints_it(answers):
    """rma(yi, vi, mods = ~ ablat, data = dat, test = "knha") of metafor's README."""
    row = latitude(answers)
    printed = {"slope_hk_se": 0.0082, "slope_hk_ci_lb": -0.0472, "slope_hk_ci_ub": -0.0111, "intercept_hk_se": 0.2839}
    for column, value in printed.items():
        assert row[column] == pytest.approx(value, abs=5.1e-5), column
    assert (row["slope"] / row["slope_hk_se"]) ** 2 == pytest.approx(12.5905, abs=1e-3)  # as tau2


def test_what_cannot_be_regressed_is_left_out():
    same = packets([(0.1, 0.1), (0.2, 0.1), (0.4, 0.1)], contexts=[{"x": 1}] * 3)
    two = packets([(0.1, 0.1), (0.2, 0.1)], contexts=[{"x": 1}, {"x": 2}])
    mixed = packets([(0.1, 0.1), (0.2, 0.1), (0.4, 0.1)], contexts=[{"x": 1}, {"x": 2}, {"x": "old"}])
    assert [run(one, "meta_regression")["meta_regression"] for one in (same, two, mixed)] == [[], [], []]
