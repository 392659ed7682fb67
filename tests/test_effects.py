"""Effect measures against other programs' numbers and against their own definitions, on tables of every kind."""

import json
from datetime import date
from math import exp, log, sqrt
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visits import BASE, KINDS, SPARK, VISITS, study, visits

from pipelines.distill import distill
from pipelines.effects import MEASURES, Cells
from pipelines.means import Means, Moments, mean_difference, standardised_mean_difference
from pipelines.rates import Events, Rates, log_rate_ratio
from pipelines.shipped import shipped
from pipelines.study import EFFECTS
from pipelines.study_fields import Query
from pipelines.survival import AtTime, Survival, log_hazard_ratio, log_rank
from qis_connectors.packet import MAX_BYTES_WITH_LIKELIHOOD, wire_bytes

ROSSI = {
    **BASE,
    "rows": "rossi.csv",
    "arms": {"column": "fin", "treated": 1, "control": 0},
    "outcome": {"kind": "time_to_event", "column": "arrest", "event": 1, "duration": "week", "better": "lower"},
    "effect": "log_hazard_ratio",
}
PENGUINS = {
    **BASE,
    "rows": "penguins.csv",
    "arms": {"column": "sex", "treated": "male", "control": "female"},
    "outcome": {"kind": "continuous", "column": "body_mass_g", "better": "higher"},
    "effect": "mean_difference",
    "strata": ["species"],
}


@pytest.mark.parametrize("engine", ["polars", "duckdb", SPARK])
def test_financial_aid_and_arrest_as_lifelines_has_them(engine):
    """lifelines 0.30.3: logrank_test 3.837569576549049 on 216 and 216, 48 and 66 arrested."""
    release = distill(study(ROSSI), "x", _copied("rossi.csv"), engine)
    (packet,) = release.packets.to_pylist()
    z = packet["metric_delta"] / packet["metric_stderr"]
    assert z * z == pytest.approx(3.837569576549049, rel=1e-6)
    assert packet["metric_delta"] == pytest.approx(-0.36907, abs=0.005)  # Cox's estimate, which one step comes near
    assert packet["sample_count"] == release.rows == 432


@pytest.mark.parametrize("engine", ["polars", "duckdb", SPARK])
def test_penguins_by_species_as_scipy_has_them(engine):
    """scipy's Welch test, species by species; two birds have no sex or mass and are in no arm."""
    packets = distill(study(PENGUINS), "x", _copied("penguins.csv"), engine).packets.to_pylist()
    found = {json.loads(row["context"])["species"]: row for row in packets}
    expected = {
        "Adelie": (146, 674.6575342465753, 51.39744312894034),
        "Chinstrap": (68, 411.76470588235316, 79.06792432604854),
        "Gentoo": (119, 805.0946862634255, 54.54065393220759),
    }
    assert set(found) == set(expected)
    for species, (n, difference, stderr) in expected.items():
        row = found[species]
        assert (row["sample_count"], row["metric_delta"], row["metric_stderr"]) == (
            n,
            pytest.approx(difference, rel=1e-6),
            pytest.approx(stderr, rel=1e-6),
        )
    assert [found[species]["outcome_decile"] for species in ("Chinstrap", "Adelie", "Gentoo")] == [2, 5, 9]


_FOLDER: dict[str, Path] = {}


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    _FOLDER["here"] = tmp_path


def _copied(name: str) -> Path:
    """The salt is kept beside the rows, and the repository is no place for one."""
    path = _FOLDER["here"] / name
    path.write_bytes(shipped(f"data/{name}").read_bytes())
    return path


@pytest.mark.parametrize("engine", ["duckdb", SPARK])
@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_on_every_kind_stratum_and_period(tmp_path, kind, engine):
    visits().write_parquet(tmp_path / "visits.parquet")
    for effect in EFFECTS[kind][:1] if engine == "spark" else EFFECTS[kind]:
        plan = study(VISITS, outcome=KINDS[kind], effect=effect, strata=["ward"], time="day", period="quarter")
        reference = distill(plan, "x", tmp_path / "visits.parquet").packets
        other = distill(plan, "x", tmp_path / "visits.parquet", engine).packets
        assert reference.num_rows == 6
        assert set(reference["training_phase"].to_pylist()) == {"2026-Q1", "2026-Q2"}
        assert other.drop(["packet_id", "metric_delta", "metric_stderr", "metric_value", "confidence"]).equals(
            reference.drop(["packet_id", "metric_delta", "metric_stderr", "metric_value", "confidence"])
        )
        for column in ("metric_delta", "metric_stderr", "metric_value"):
            assert other[column].to_pylist() == pytest.approx(reference[column].to_pylist(), rel=2e-7)


def test_a_query_gives_the_packets_of_its_table(tmp_path):
    visits().write_parquet(tmp_path / "visits.parquet")
    with duckdb.connect(str(tmp_path / "h.duckdb")) as connection:
        connection.execute(f"CREATE TABLE visits AS FROM '{tmp_path / 'visits.parquet'}'")
    plan = study(VISITS, outcome=KINDS["continuous"], effect="mean_difference")
    reference = distill(plan, "x", tmp_path / "visits.parquet").packets
    asked = plan.model_copy(update={"rows": Query(query="SELECT * FROM visits", database="h.duckdb")})
    assert asked.row_files(tmp_path) == {"x": tmp_path / "h.duckdb"}
    for engine in ("polars", "duckdb"):
        packets = distill(asked, "x", tmp_path / "h.duckdb", engine).packets
        assert packets["metric_delta"].to_pylist() == pytest.approx(reference["metric_delta"].to_pylist(), rel=2e-7)


def test_a_column_may_tell_the_sites_apart(tmp_path):
    visits().write_parquet(tmp_path / "visits.parquet")
    plan = study(VISITS, outcome=KINDS["binary"], effect="log_odds_ratio", site=None, site_column="ward")
    packets = distill(plan, "Ж1", tmp_path / "visits.parquet").packets
    assert packets["node_id"].to_pylist() == ["Ж1"]
    assert packets["sample_count"].to_pylist() == [visits().filter(ward="Ж1")["cured"].count()]


def test_hedges_g_by_its_own_definition():
    means = Means(Moments(10, 5.0, 9 * 4.0), Moments(12, 3.0, 11 * 2.25))
    pooled = sqrt((9 * 4.0 + 11 * 2.25) / 20)
    g, stderr = standardised_mean_difference(means)
    assert g == pytest.approx((1 - 3 / (4 * 20 - 1)) * 2 / pooled, rel=1e-3)
    assert stderr == pytest.approx(sqrt(1 / 10 + 1 / 12 + g * g / 44))
    assert mean_difference(means) == (2.0, pytest.approx(sqrt(4 / 10 + 2.25 / 12)))


def test_rates_and_an_arm_without_events():
    rates = Rates(Events(100, 8, 10, 50.0), Events(100, 15, 20, 40.0))
    assert log_rate_ratio(rates) == (pytest.approx(log((10 / 50) / (20 / 40))), pytest.approx(sqrt(1 / 10 + 1 / 20)))
    none = Rates(Events(100, 0, 0, 50.0), Events(100, 15, 20, 40.0))
    assert log_rate_ratio(none) == (pytest.approx(log((0.5 / 50) / (20.5 / 40))), pytest.approx(sqrt(2 + 1 / 20.5)))
    assert Rates(Events(10, 0, 0, 5.0), Events(10, 0, 0, 5.0)).undefined() == "neither arm has an event"


def test_log_rank_by_hand():
    """Two event times: at 1 one of 2 treated and 2 controls (treated), at 2 one of 1 and 2 (control)."""
    survival = Survival((AtTime(1, 1, 0, 0, 0), AtTime(2, 0, 0, 1, 0), AtTime(3, 0, 1, 0, 1)))
    excess, variance = 1 - 2 / 4 - 1 / 3, 1 / 4 + 2 / 9
    assert log_rank(survival) == (pytest.approx(excess), pytest.approx(variance))
    assert log_hazard_ratio(survival) == (pytest.approx(excess / variance), pytest.approx(variance**-0.5))


@pytest.mark.parametrize("effect", MEASURES)
@pytest.mark.parametrize("cells", [(30, 70, 40, 60), (12, 400, 25, 380)])
def test_the_likelihood_is_highest_at_the_estimate_and_as_wide_as_its_error(effect, cells):
    table = Cells(*cells)
    estimate, stderr = table.effect(effect)
    at = [table.log_likelihood(effect, estimate + z * stderr) for z in (-0.1, 0, 0.1, 1)]
    assert at[1] > max(at[0], at[2])
    assert at[1] - at[3] == pytest.approx(0.5, rel=0.15)


def test_likelihood_packets_fit_and_carry_the_grid_they_are_on(tmp_path):
    visits().write_parquet(tmp_path / "visits.parquet")
    for kind, outcome in KINDS.items():
        grid = {"from": -6, "to": 6} if kind == "continuous" else {}
        plan = study(VISITS, outcome=outcome, effect=EFFECTS[kind][0], likelihood=grid)
        packets = distill(plan, "x", tmp_path / "visits.parquet").packets
        (packet,) = packets.to_pylist()
        assert len(packet["likelihood"]) == 8
        assert max(packet["likelihood"]) == 0
        assert wire_bytes(packets.to_pydict())[0] <= MAX_BYTES_WITH_LIKELIHOOD
        assert ("likelihood_from" in json.loads(packet["context"])) == (kind == "continuous")


counts = st.integers(0, 200)


@settings(max_examples=200, deadline=None)
@given(st.tuples(counts, counts, counts, counts), st.sampled_from(sorted(MEASURES)))
def test_every_table_has_a_finite_weight_or_a_reason(cells, measure):
    table = Cells(*cells)
    if table.treated and table.control and table.undefined() is None:
        effect, stderr = table.effect(measure)
        assert abs(effect) < 20
        assert 0 < stderr < 20


def test_missing_values_are_declared_and_bounded(tmp_path):
    file = tmp_path / "visits.parquet"
    visits().with_columns(pressure=pl.col("pressure").fill_null(-9)).write_parquet(file)
    plan = study(VISITS, outcome=KINDS["continuous"], effect="mean_difference", missing={"values": [-9]})
    assert distill(plan, "x", file).packets["sample_count"].to_pylist() == [visits()["pressure"].count()]
    strict = plan.model_copy(update={"missing": plan.missing.model_copy(update={"at_most": 0.001})})
    with pytest.raises(Exception, match="1% of the rows lack arm or outcome; at most 0% may"):
        distill(strict, "x", file)


def test_what_does_not_vary_and_what_one_row_dominates_stays(tmp_path):
    file = tmp_path / "visits.parquet"
    plan = study(VISITS, outcome=KINDS["continuous"], effect="mean_difference")
    visits().with_columns(pressure=pl.lit(120.0)).write_parquet(file)
    assert distill(plan, "x", file).withheld == "the outcome does not vary in either arm"
    huge = pl.when(pl.int_range(pl.len()) == 2).then(1e9).otherwise("pressure")
    visits().with_columns(pressure=huge).write_parquet(file)
    assert distill(plan, "x", file).withheld == "one row makes up more than 50% of an arm's total"


def test_likelihoods_of_sparse_sites_add_up():
    """The sum of two sites' log-likelihoods peaks where the exact answer to both tables is."""
    sites = [Cells(1, 99, 3, 97), Cells(0, 120, 2, 118)]
    grid = [-3 + 6 * at / 700 for at in range(701)]
    best = max(grid, key=lambda effect: sum(one.log_likelihood("log_odds_ratio", effect) for one in sites))
    assert exp(best) == pytest.approx(0.19, abs=0.03)


def test_a_year_or_date_may_stand_in_the_study(tmp_path):
    visits().write_parquet(tmp_path / "visits.parquet")
    plan = study(VISITS, outcome=KINDS["binary"], effect="risk_difference", time=date(1970, 1, 2))
    assert distill(plan, "x", tmp_path / "visits.parquet").packets["timestamp_utc"].to_pylist() == [86_400_000]


@pytest.mark.slow
def test_ten_million_rows_pass_through_bounded_memory():
    """In a process of its own, imports and all."""
    from tempfile import TemporaryDirectory

    import distill as benchmark

    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.parquet"
        benchmark._write(rows, 10_000_000)
        assert max(benchmark._peak(rows, kind) for kind in benchmark.OUTCOMES) < 1.5
