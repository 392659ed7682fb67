"""Noise on the cells: what it costs is counted, and what it adds to the error is told."""

import json
import sys
from math import exp, sqrt

import numpy as np
import polars as pl
import pytest
from visits import SICK

from pipelines import ledger
from pipelines.audit import audit
from pipelines.cohorts import Cohort
from pipelines.distill import distill
from pipelines.effects import MEASURES, Cells
from pipelines.noise import DERIVATIVES, NoiseError, NoisyCells, hidden
from pipelines.study import Study
from pipelines.study_fields import Noise

pytest.importorskip("opendp")

PLAN = {**SICK, "noise": {"epsilon": 1.0, "budget": 2.0}}


def study(**changes):
    return Study.model_validate({**PLAN, **changes})


def write(path, *cells, ward="w"):
    kinds = ((1, True), (1, False), (0, True), (0, False))
    rows = [(ward, *kind) for kind, n in zip(kinds, cells, strict=True) for _ in range(n)]
    pl.DataFrame(rows, schema=["ward", "arm", "sick"], orient="row").write_parquet(path)
    return path


def with_noise(tables, epsilon):
    found = [Cohort((), None, (), frozenset(), cells, ()) for cells in tables]
    cohorts, cost = hidden(found, Noise(epsilon=epsilon, budget=epsilon))
    assert cost == pytest.approx(epsilon)
    return [cohort.summary for cohort in cohorts]


@pytest.mark.parametrize("measure", MEASURES)
def test_derivatives_give_the_sampling_variance_and_are_differences(measure):
    """Sum of n_i times derivative squared is the textbook's variance: two derivations of one number."""
    cells = Cells(14, 131, 37, 122)
    effect, stderr = MEASURES[measure](cells)
    slopes = DERIVATIVES[measure](cells)
    assert sum(n * slope**2 for n, slope in zip(cells.counts(), slopes, strict=True)) == pytest.approx(stderr**2)
    for at, slope in enumerate(slopes):
        moved = [n + 1e-5 * (at == other) for other, n in enumerate(cells.counts())]
        assert (MEASURES[measure](Cells(*moved))[0] - effect) / 1e-5 == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_the_noise_is_as_large_as_it_is_said_to_be(epsilon):
    noisy = with_noise([Cells(100, 200, 300, 400)] * 1000, epsilon)
    counts = np.array([one.counts() for one in noisy])
    assert np.abs(counts.mean(0) - [100, 200, 300, 400]).max() < 5 * sqrt(noisy[0].variance / 1000)
    assert counts.var(0) == pytest.approx(noisy[0].variance, rel=0.3)
    assert noisy[0].variance == pytest.approx(2 * exp(-epsilon) / (1 - exp(-epsilon)) ** 2)


def test_intervals_hold_what_they_say_with_the_noise_and_not_without():
    draw, truth, held, bare = np.random.default_rng(1), np.log(0.2 / 0.8 / (0.3 / 0.7)), 0, 0
    events = zip(draw.binomial(1000, 0.2, 1500), draw.binomial(1000, 0.3, 1500), strict=True)
    for noisy in with_noise([Cells(int(a), int(1000 - a), int(c), int(1000 - c)) for a, c in events], 0.1):
        effect, stderr = noisy.effect("log_odds_ratio")
        held += abs(effect - truth) < 1.96 * stderr
        bare += abs(effect - truth) < 1.96 * Cells(*noisy.counts()).effect("log_odds_ratio")[1]
    assert 0.935 < held / 1500 < 0.99
    assert bare / 1500 < 0.9


def test_each_release_costs_and_what_is_spent_is_refused(tmp_path):
    file = write(tmp_path / "t.parquet", 400, 600, 500, 500)
    first = distill(study(), "x", file)
    assert "any table fits" in str(first.findings[0])
    assert ledger.spending("x", 1.0).epsilon == first.entries[0].epsilon == pytest.approx(1.0)
    ledger.record(file, first.entries)
    distill(study(), "x", file)  # looked at and not recorded: nothing left, and nothing is spent
    second = distill(study(), "x", file)
    assert second.packets["packet_id"] != first.packets["packet_id"]
    ledger.record(file, second.entries)
    third = distill(study(), "x", file)
    assert third.packets.num_rows == 0
    assert third.withheld == "of the noise's budget of 2 2 is spent, and a release costs 1"
    assert distill(study(), "another site", file).withheld is None
    assert distill(study(noise={"epsilon": 0.5, "budget": 2.5}), "x", file).withheld is None


def test_noise_is_in_the_packet_and_in_its_error(tmp_path):
    file = write(tmp_path / "t.parquet", 400, 600, 500, 500)
    exact = Cells(400, 600, 500, 500).effect("log_odds_ratio")
    (packet,) = distill(study(noise={"epsilon": 0.05, "budget": 1}), "x", file).packets.to_pylist()
    assert packet["metric_delta"] != pytest.approx(exact[0], abs=1e-9)
    assert packet["metric_delta"] == pytest.approx(exact[0], abs=8 * packet["metric_stderr"])
    noise = sqrt(packet["metric_stderr"] ** 2 - exact[1] ** 2)
    assert noise == pytest.approx(sqrt(2) * 20 * sqrt(1 / 400**2 + 1 / 600**2 + 2 / 500**2), rel=0.5)


def test_the_gate_looks_at_what_noise_left(tmp_path):
    """An empty cell is not told from a small one, so neither leaves; whether an arm of a stratum is empty is
    not told."""
    file = write(tmp_path / "t.parquet", 0, 600, 500, 500)
    told = distill(study(noise={"epsilon": 20, "budget": 20}), "x", file)
    assert told.withheld == "noise has left a cell without people"
    assert [one.kind for one in told.entries] == [ledger.SPENDING]
    rows = pl.concat(
        [pl.read_parquet(write(file, 400, 600, 500, 500)), pl.read_parquet(write(file, 9, 9, 0, 0, ward="v"))]
    )
    rows.write_parquet(file)
    told = distill(study(strata=["ward"], noise={"epsilon": 20, "budget": 20}), "x", file)
    assert [json.loads(one)["ward"] for one in told.packets["context"].to_pylist()] == ["w"]
    assert dict(told.kept_back)["ward v"] in (
        "noise has left a cell without people",
        "fewer than 11 people are treated with the event",
    )
    assert [one.kind for one in told.entries] == [ledger.SPENDING, NoisyCells.__name__]


def test_noise_hides_no_difference_of_exact_releases(tmp_path):
    file = write(tmp_path / "t.parquet", 400, 600, 500, 500)
    exact = study(noise=None, linter={"too_few": "send", "why": "test"})
    ledger.record(file, distill(exact, "x", file).entries)
    ledger.record(file, distill(study(), "x", file).entries)
    write(file, 401, 602, 501, 501)
    assert "fewer than 11" in str(distill(exact, "x", file).withheld)
    assert distill(study(), "x", file).withheld is None


def test_an_auditor_opens_what_noise_was_added_to(tmp_path):
    file = write(tmp_path / "t.parquet", 400, 600, 500, 500)
    plan = study(noise={"epsilon": 1, "budget": 1})
    release = distill(plan, "x", file)
    ledger.record(file, release.entries)
    assert audit(plan, tmp_path, release.packets)["holds"].to_pylist() == [True]
    write(file, 400, 600, 500, 501)
    assert audit(plan, tmp_path, release.packets)["holds"].to_pylist() == [False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"likelihood": {}}, "'noise' goes with none of"),
        ({"rollup": ["ward"]}, "'noise' goes with none of"),
        ({"gate": {"contributor": "ward"}}, "'noise' goes with none of"),
        ({"noise": {"epsilon": 3, "budget": 2}}, "above the 'budget'"),
        ({"noise": {"epsilon": 0, "budget": 2}}, "greater than 0"),
    ],
)
def test_what_noise_does_not_cover_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        study(**changes)


def test_without_opendp_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(NoiseError, match=r"pip install 'qis-connectors\[privacy\]'"):
        distill(study(), "x", write(tmp_path / "t.parquet", 400, 600, 500, 500))
