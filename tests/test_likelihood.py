"""Likelihood packets: what sites too sparse for a standard error say together, on eight points and between them."""

import json

import numpy as np
import polars as pl
import pytest
from meta_analysis import packets, run
from visits import SICK

from pipelines.distill import distill
from pipelines.effects import Cells
from pipelines.means import Means, Moments
from pipelines.publishing import POINTS, Rounding, is_told_by, publish
from pipelines.rates import Events, Rates
from pipelines.study import Study
from pipelines.survival import AtTime, Survival
from qis_connectors.packet import MAX_BYTES_WITH_LIKELIHOOD, wire_bytes

GRID = np.linspace(-3, 3, POINTS)
PLAN = {**SICK, "likelihood": {"gradients": True}}
COUNT = {"outcome": {"kind": "count", "column": "falls", "better": "lower"}, "effect": "log_rate_ratio"}
MEAN = {"outcome": {"kind": "continuous", "column": "cost", "better": "lower"}, "effect": "mean_difference"}
TIME = {
    "outcome": {"kind": "time_to_event", "column": "sick", "event": True, "duration": "week", "better": "lower"},
    "effect": "log_hazard_ratio",
}


def profile(cells, grid):
    """Log-likelihood of the log odds ratio with the control risk at its best, and its derivative, in closed form: the
    expected treated events solve a quadratic (Barndorff-Nielsen & Cox 1994), and the score is observed - expected."""
    a, b, c, d = cells
    treated, control, events, odds = a + b, c + d, a + c, np.exp(grid)
    middle = odds * (treated + events) + control - events
    root = np.sqrt(middle**2 - 4 * (odds - 1) * odds * treated * events)
    expected = 2 * odds * treated * events / (middle + root)
    risks = expected / treated, 1 - expected / treated, (events - expected) / control, 1 - (events - expected) / control
    height = sum(n * np.log(risk) for n, risk in zip(cells, risks, strict=True) if n)
    return height, a - expected


@pytest.mark.parametrize("cells", [(4, 119, 11, 128), (0, 60, 2, 58), (30, 0, 12, 18), (1, 9, 0, 10)])
def test_what_is_sent_is_the_profile_and_its_derivative(cells):
    published = publish(Cells(*cells), Study.model_validate(PLAN)).likelihood
    height, derivative = profile(cells, GRID)
    assert published[:POINTS] == pytest.approx(height - height.max(), rel=1e-6, abs=1e-9)
    assert published[POINTS:] == pytest.approx(derivative, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "summary"),
    [
        (COUNT, Rates(Events(200, 30, 40, 200.0), Events(210, 45, 61, 210.0))),
        (MEAN, Means(Moments(100, 1.0, 250.0, 100.0, 5.0), Moments(90, 0.2, 300.0, 90.0, 6.0))),
        (TIME, Survival((AtTime(1, 3, 1, 5, 0), AtTime(2, 4, 9, 6, 2), AtTime(5, 1, 20, 3, 18)))),
        ({"effect": "risk_difference", "likelihood": {"from": -0.9, "to": 0.9, "gradients": True}}, Cells(4, 19, 9, 8)),
    ],
    ids=["count", "continuous", "time_to_event", "risk_difference"],
)
def test_every_kinds_gradients_are_its_likelihoods(changes, summary):
    """As far as wider differences tell, and a packet is known again by what it tells, rounded or not."""
    plan = Study.model_validate(PLAN | changes)
    for rounding in (Rounding(), Rounding(3)):
        published = publish(summary, plan, rounding)
        assert is_told_by(summary, plan, rounding, published)
    grid = np.linspace(plan.likelihood.start, plan.likelihood.end, POINTS)
    near = 1e-3 * (grid[1] - grid[0])
    for at, slope in zip(grid[1:-1], publish(summary, plan).likelihood[POINTS + 1 : -1], strict=True):
        rise = summary.log_likelihood(plan.effect, at + near) - summary.log_likelihood(plan.effect, at - near)
        assert slope == pytest.approx(rise / (2 * near), rel=1e-4, abs=1e-4)


def hospitals(people, risk, effect, seed):
    """464 hospitals with so many people an arm, those with no event left out, and the exact answer to all of them."""
    draw, odds = np.random.default_rng(seed), risk / (1 - risk) * np.exp(effect)
    drawn = zip(draw.binomial(people, odds / (1 + odds), 464), draw.binomial(people, risk, 464), strict=True)
    cells = [(int(a), people - int(a), int(c), people - int(c)) for a, c in drawn if a or c]
    fine = np.linspace(0, 3, 30_001)
    exact = sum(profile(one, fine)[0] for one in cells)
    inside = fine[exact >= exact.max() - 1.920729410347062]
    return cells, (fine[exact.argmax()], inside[0], inside[-1])


def pooled(cells, gradients):
    sent = [
        np.concatenate([height - height.max(), *([slope] if gradients else [])])
        for height, slope in (profile(one, GRID) for one in cells)
    ]
    contexts = [{"likelihood_gradients": True} if gradients else {}] * len(cells)
    (row,) = run(
        packets([(0.0, None)] * len(cells), contexts=contexts, likelihoods=[one.astype("float32") for one in sent]),
        "likelihood",
    )["likelihood"]
    assert (row["k"], row["points"]) == (len(cells), POINTS)
    return row["estimate"], row["ci_lb"], row["ci_ub"]


@pytest.mark.parametrize(("people", "risk"), [(20, 0.01), (60, 0.02), (250, 0.02), (2000, 0.02)])
def test_small_hospitals_add_up_to_the_exact_answer(people, risk):
    """To 0.3 of a standard error from the points alone, to 0.1 with gradients, however narrow the answer is beside the
    grid; (estimate, standard error) packets of the smallest are off by several."""
    cells, exact = hospitals(people, risk, 1.9, seed=5)
    stderr = (exact[2] - exact[1]) / (2 * 1.96)
    alone, helped = (np.abs(np.subtract(pooled(cells, gradients), exact)) / stderr for gradients in (False, True))
    assert max(alone) < 0.3
    assert max(helped) < 0.1
    assert max(helped) < max(alone) / 2
    if people <= 60:
        effects = [Cells(*one).effect("log_odds_ratio") for one in cells]
        (fixed,) = [row for row in run(packets(effects), "pooled")["pooled"] if row["method"] == "FE"]
        assert abs(fixed["estimate"] - exact[0]) > 4 * stderr


def test_packets_with_and_without_gradients_add_up():
    cells, exact = hospitals(60, 0.02, 1.9, seed=6)
    rows = []
    for at, one in enumerate(cells):
        height, slope = profile(one, GRID)
        with_gradients = at % 2 == 0
        rows.append(({"likelihood_gradients": with_gradients}, [*height, *slope] if with_gradients else list(height)))
    contexts, likelihoods = zip(*rows, strict=True)
    mixed = packets([(0.0, None)] * len(cells), contexts=list(contexts), likelihoods=list(likelihoods))
    (row,) = run(mixed, "likelihood")["likelihood"]
    assert row["k"] == len(cells)
    assert (row["estimate"], row["ci_lb"], row["ci_ub"]) == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize("points", [3, 4, 5, 8, 40])
def test_a_cubic_is_its_own_curve(points):
    """Through four points or more nothing is lost of a polynomial of the third degree; through three, of the second."""
    cubic = 0.0 if points == 3 else 0.02
    grid = np.linspace(-2, 2, points)
    height = [-(3 * (t - 0.4) ** 2) + cubic * (t - 0.4) ** 3 for t in grid]
    context = {"likelihood_from": -2, "likelihood_to": 2}
    (row,) = run(packets([(0.0, None)], contexts=[context], likelihoods=[height]), "likelihood")["likelihood"]
    assert row["estimate"] == pytest.approx(0.4, abs=1e-5)
    for bound in (row["ci_lb"] - 0.4, row["ci_ub"] - 0.4):
        assert -3 * bound**2 + cubic * bound**3 == pytest.approx(-1.920729410347062, abs=1e-5)


def test_eight_numbers_more_need_eighty_records_more_and_fit(tmp_path):
    rows = [
        (arm, sick) for arm, sick, n in ((1, True, 40), (1, False, 60), (0, True, 50), (0, False, 40)) for _ in range(n)
    ]
    file = tmp_path / "t.parquet"
    pl.DataFrame(rows, schema=["arm", "sick"], orient="row").write_parquet(file)
    assert distill(Study.model_validate(PLAN), "x", file).withheld == "20 numbers need 200 records"
    pl.DataFrame(rows * 2, schema=["arm", "sick"], orient="row").write_parquet(file)
    release = distill(Study.model_validate(PLAN), "x", file)
    (packet,) = release.packets.to_pylist()
    assert len(packet["likelihood"]) == 2 * POINTS
    assert json.loads(packet["context"]) == {"likelihood_gradients": True}
    assert wire_bytes(release.packets.to_pydict())[0] <= MAX_BYTES_WITH_LIKELIHOOD
