"""What liars do to each answer: 300 sites, all honest, one liar, a tenth, three tenths; and sql/ against plain numpy on
whatever effects come."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_analysis import METHODS, packets, run

SITES, TRUTH, DRAWS = 300, 0.2, 30
TWINS = ("median", "trimmed_10", "winsorised_10", "weighted_median_capped", "huber", "median_of_means")
# Liars -> the root mean square error that each answer must stay below; one packet has a standard deviation of 0.2.
BOUNDS = {
    0: dict.fromkeys(TWINS, 0.02) | {"REML": 0.016},
    1: dict.fromkeys(TWINS, 0.03),
    30: {"median": 0.05, "trimmed_10": 0.15, "weighted_median_capped": 0.1, "huber": 0.1, "median_of_means": 0.1},
    90: {"median": 0.2, "huber": 0.35},
}
BROKEN = {
    1: ["REML"],
    30: ["REML"],
    90: ["REML", "trimmed_10", "winsorised_10", "weighted_median_capped", "median_of_means"],
}
"""And those that are of no use any more: off by more than a thousand. Weights of twice the median's let
three tenths of the sites weigh nearly as much as the rest."""


@pytest.fixture(scope="module")
def errors():
    """(liars, answer) -> root mean square error, over seeded draws, each an address of its own."""
    tables = []
    for liars in BOUNDS:
        for draw in range(DRAWS):
            random = np.random.default_rng([liars, draw])
            effects = random.normal(TRUTH, 0.2, SITES)
            # A liar claims a huge effect, a hundredth of the others' standard error, and a hundred times the records.
            effects[:liars] = 1e6
            stderr = np.where(np.arange(SITES) < liars, 0.002, random.uniform(0.15, 0.25, SITES))
            records = np.where(np.arange(SITES) < liars, 100_000, 1000)
            rows = zip(effects, stderr, records, strict=True)
            tables.append(packets([(y, s, int(n)) for y, s, n in rows], address=f"{liars}/{draw}"))
    found = run(pa.concat_tables(tables), "robust", "pooled", "disagreement")
    squares: dict[tuple[int, str], list[float]] = {}
    for row in found["robust"]:
        for twin in TWINS:
            squares.setdefault((int(row["address"].split("/")[0]), twin), []).append((row[twin] - TRUTH) ** 2)
    for row in found["pooled"]:
        key = int(row["address"].split("/")[0]), row["method"]
        squares.setdefault(key, []).append((row["estimate"] - TRUTH) ** 2)
    flags = {row["address"]: row["disagrees"] for row in found["disagreement"] if row["twin"] == "median"}
    return {key: float(np.sqrt(np.mean(one))) for key, one in squares.items()}, flags


def test_the_table_of_liars(errors):
    found, _ = errors
    for liars, bounds in BOUNDS.items():
        for answer, bound in bounds.items():
            assert found[liars, answer] < bound, (liars, answer, found[liars, answer])
    for liars, broken in BROKEN.items():
        for answer in broken:
            assert found[liars, answer] > 1000, (liars, answer, found[liars, answer])


def test_the_flag_goes_up_where_somebody_lies_and_nowhere_else(errors):
    _, flags = errors
    assert len(flags) == len(BOUNDS) * DRAWS
    for address, disagrees in flags.items():
        assert disagrees == (not address.startswith("0/")), address


def reference(y, v, tau2):
    """estimate, se, Q at these weights, from the definition, on centred effects."""
    w = 1 / (v + tau2)
    shift = y[0]
    estimate = (w * (y - shift)).sum() / w.sum()
    return estimate + shift, 1 / np.sqrt(w.sum()), (w * (y - shift - estimate) ** 2).sum()


EFFECTS = st.lists(
    st.tuples(st.floats(-5, 5, width=32), st.floats(0.015625, 4, width=32), st.integers(1, 10_000)),
    min_size=2,
    max_size=25,
)


@settings(max_examples=12, deadline=None)
@given(EFFECTS)
def test_any_effects_give_what_numpy_gives(effects):
    y, s, _ = np.array(effects, dtype=float).T
    v, k = s * s, len(y)
    found = run(packets(effects), "pooled", "robust")
    pooled = {row["method"]: row for row in found["pooled"]}
    fixed, fixed_se, q = reference(y, v, 0.0)
    assert (pooled["FE"]["estimate"], pooled["FE"]["se"]) == pytest.approx((fixed, fixed_se), rel=1e-9, abs=1e-10)
    assert pooled["FE"]["q"] == pytest.approx(q, rel=1e-9, abs=1e-9)
    w = 1 / v
    dl = max(0.0, (q - (k - 1)) / (w.sum() - (w * w).sum() / w.sum()))
    assert pooled["DL"]["tau2"] == pytest.approx(dl, rel=1e-8, abs=1e-10)
    for method in METHODS:
        row = pooled[method]
        estimate, se, _ = reference(y, v, row["tau2"])
        assert (row["estimate"], row["se"]) == pytest.approx((estimate, se), rel=1e-9, abs=1e-10)
        assert row["hk_ci_lb"] <= row["ci_lb"] <= row["ci_ub"] <= row["hk_ci_ub"]
    (robust,) = found["robust"]
    assert robust["median"] == pytest.approx(np.median(y), abs=1e-12)
    tail = k // 10
    assert robust["trimmed_10"] == pytest.approx(np.sort(y)[tail : k - tail].mean(), abs=1e-9)
    assert robust["winsorised_10"] == pytest.approx(
        np.clip(y, np.sort(y)[tail], np.sort(y)[k - tail - 1]).mean(), abs=1e-9
    )
    assert y.min() - 1e-12 <= robust["median_of_means"] <= y.max() + 1e-12
    assert y.min() - 1e-12 <= robust["huber"] <= y.max() + 1e-12
