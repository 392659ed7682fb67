"""sql/ against metafor and against published numbers, on four classic data sets."""

import math
import random
import statistics
from decimal import Decimal, localcontext

import pytest
from meta_analysis import COLUMNS, HIGHEST_ERROR, METHODS, TOLERANCE, classic, packets, rows, run


@pytest.mark.parametrize("real", HIGHEST_ERROR, ids=str)
def test_pooled_equals_metafor(real):
    found = {(row["address"], row["method"]): row for row in run(classic(real), "pooled")["pooled"]}
    compared = 0
    for expected in rows("meta_outputs.csv"):
        method = expected["method"]
        for theirs, ours in COLUMNS.get(expected["inference"], {}).items() if method in METHODS else ():
            got, want = found[f"test/{expected['dataset']}", method][ours], float(expected[theirs])
            # Q and I2 are sums of squares over variances: float32 inputs move them by their own size, not by 1.
            scale = max(1.0, abs(want))
            assert abs(got - want) <= HIGHEST_ERROR[real][method] * scale, (expected["dataset"], method, ours)
            compared += 1
    assert compared == 4 * (4 * 10 + 3 * 3)


def test_leave_one_out_equals_metafor(classic_answers):
    found = {
        (row["address"], row["method"], int(row["packet_id"].split()[-1]) + 1): row
        for row in classic_answers["leave_one_out"]
    }
    expected_rows = rows("meta_loo.csv")
    assert len(found) == len(expected_rows) == 4 * (13 + 16 + 21 + 6)
    for expected in expected_rows:
        key = (f"test/{expected['dataset']}", expected["method"], int(expected["left_out_row"]))
        for column in ("estimate", "se", "ci_lb", "ci_ub", "tau2"):
            error = abs(found[key][column] - float(expected[column]))
            assert error <= TOLERANCE[expected["method"]], (key, column)


def test_robust_equals_r(classic_answers):
    found = {row["address"]: row for row in classic_answers["robust"]}
    expected_rows = rows("meta_robust_outputs.csv")
    assert len(expected_rows) == len(found) == 4
    columns = {"trimmed": "trimmed_10", "winsorised": "winsorised_10"}
    for expected in expected_rows:
        for theirs in ("median", "trimmed", "winsorised", "huber", "mad"):
            got = found[f"test/{expected['dataset']}"][columns.get(theirs, theirs)]
            assert got == pytest.approx(float(expected[theirs]), abs=1e-11), (expected["dataset"], theirs)


def test_published_numbers(classic_answers):
    found = {(row["address"], row["method"]): row for row in classic_answers["pooled"]}
    columns = {"Q": "q", "I2_from_Q": "i2"}
    compared = 0
    for check in rows("meta_published_checks.csv"):
        ours = columns.get(check["quantity"], check["quantity"])
        if check["inference"] == "z" and check["method"] in METHODS and ours in COLUMNS["z"].values():
            got = found[f"test/{check['dataset']}", check["method"]][ours]
            assert abs(got - float(check["published"])) <= float(check["tolerance"]), check
            compared += 1
    assert compared == 17


@pytest.mark.parametrize("dataset", ["bcg", "magnesium16"])
def test_reml_solves_its_equation(dataset, classic_answers):
    """The root of y'PPy = trace P by bisection in 50 digits."""
    inputs = [row for row in rows("meta_inputs.csv") if row["dataset"] == dataset]
    with localcontext(prec=50):
        y, v = ([Decimal(row[key]) for row in inputs] for key in ("yi", "vi"))

        def excess(tau2: Decimal) -> Decimal:
            w = [1 / (vi + tau2) for vi in v]
            mean = sum(a * b for a, b in zip(w, y, strict=True)) / sum(w)
            observed = sum((a * (b - mean)) ** 2 for a, b in zip(w, y, strict=True))
            return observed - sum(w) + sum(a * a for a in w) / sum(w)

        low, high = Decimal("0.1"), Decimal(1)
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    found = {(row["address"], row["method"]): row for row in classic_answers["pooled"]}
    assert found[f"test/{dataset}", "REML"]["tau2"] == pytest.approx(float(low), abs=1e-13)


def weighted_median_capped(effects) -> float:
    """The definition, in plain Python: floor each standard error, cap each weight, take the lower weighted median."""
    record_sd = statistics.median(se * math.sqrt(n) for _, se, n in effects)
    weights = [1 / max(se, record_sd / 2 / math.sqrt(n)) ** 2 for _, se, n in effects]
    cap = 2 * statistics.median(weights)
    ranked = sorted((y, min(w, cap)) for (y, _, _), w in zip(effects, weights, strict=True))
    below, half = 0.0, sum(w for _, w in ranked) / 2
    for y, w in ranked:
        below += w
        if below >= half * (1 - 1e-12):
            return y
    raise AssertionError("no weights")


def test_capped_weighted_median_equals_python(classic_answers):
    sets = classic().to_pylist()
    for row in classic_answers["robust"]:
        effects = [
            (p["metric_delta"], p["metric_stderr"], p["sample_count"]) for p in sets if p["address"] == row["address"]
        ]
        assert row["weighted_median_capped"] == pytest.approx(weighted_median_capped(effects), abs=1e-14)
    draw = random.Random(7)
    for size in (1, 2, 3, 10, 41):
        effects = [(draw.gauss(0, 1), draw.lognormvariate(-2, 2), draw.choice([11, 100, 5000])) for _ in range(size)]
        (row,) = run(packets(effects), "robust")["robust"]
        assert row["weighted_median_capped"] == pytest.approx(weighted_median_capped(effects), abs=1e-14)
