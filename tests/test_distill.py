"""Rows become packets: the same packet on every engine, nothing that is not one leaves."""

import json
from datetime import UTC, date, datetime
from math import exp, log, sqrt
from pathlib import Path

import polars as pl
import pytest

from pipelines import bcg
from pipelines.distill import distill
from pipelines.effects import MEASURES, Cells, correct_empty_cells
from pipelines.engine import EngineError, spark_is_here
from pipelines.privacy import too_small
from pipelines.shipped import shipped
from pipelines.study import Gate, Study, StudyError, load
from qis_connectors.packet import MAX_BYTES, OUTCOME_PACKET_SCHEMA, wire_bytes

ENGINES = [
    "polars",
    pytest.param("spark", marks=pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))),
]


@pytest.fixture(scope="module")
def study() -> Study:
    return load(shipped("data/bcg.yaml"))


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The thirteen trials' rows, written once."""
    folder = tmp_path_factory.mktemp("sites")
    files = {site: folder / site / "rows.parquet" for site in bcg.trials()}
    assert sum(bcg.write_rows(trial, files[site]) for site, trial in bcg.trials().items()) == 357_347
    return files


def rows(path: Path, cells: tuple[int, int, int, int], **columns: object) -> Path:
    arms = [(True, True), (True, False), (False, True), (False, False)]
    people = [arm for arm, n in zip(arms, cells, strict=True) for _ in range(n)]
    constant = {"latitude": 10, "allocation": "random", "year": 1999} | columns
    frame = pl.DataFrame(people, schema=["vaccinated", "tuberculosis"], orient="row")
    frame.with_columns(**{name: pl.lit(value) for name, value in constant.items()}).write_parquet(path)
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_every_trial_gives_its_published_effect(study, sites, engine):
    some = sites if engine == "polars" else dict(list(sites.items())[:2])
    for site, file in some.items():
        release = distill(study, site, file, engine)
        a, b, c, d = bcg.trials()[site].cells.counts()
        (packet,) = release.packets.to_pylist()
        assert release.rows == packet["sample_count"] == a + b + c + d
        assert packet["metric_delta"] == pytest.approx(log(a / (a + b)) - log(c / (c + d)), rel=1e-7)
        assert packet["metric_stderr"] == pytest.approx(sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)), rel=1e-7)
        assert packet["metric_value"] == pytest.approx(a / (a + b), rel=1e-7)
        assert json.loads(packet["context"])["latitude"] == bcg.trials()[site].latitude
    assert len(some) >= 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_engines_and_formats_give_the_same_packet_to_the_bit(study, sites, tmp_path, engine, suffix):
    file = tmp_path / f"rows.{suffix}"
    frame = pl.read_parquet(sites["aronson-1948"]).sample(fraction=1, shuffle=True, seed=1)
    frame.write_parquet(file) if suffix == "parquet" else frame.write_csv(file)
    reference = distill(study, "aronson-1948", sites["aronson-1948"]).packets
    file.with_name(file.name + ".salt").write_bytes((sites["aronson-1948"].parent / "rows.parquet.salt").read_bytes())
    assert distill(study, "aronson-1948", file, engine).packets.equals(reference)


def test_packets_fit_and_hold_no_row(study, sites):
    for site, file in sites.items():
        packets = distill(study, site, file).packets
        assert packets.schema == OUTCOME_PACKET_SCHEMA
        assert packets.num_rows == 1
        assert max(wire_bytes(packets.to_pydict())) <= MAX_BYTES


def test_the_salt_is_secret_stable_and_of_this_site(study, sites):
    one, other = sites["aronson-1948"], sites["stein-aronson-1953"]
    salt = one.with_name("rows.parquet.salt")
    commitments = [distill(study, "x", file).packets["raw_data_hash"][0].as_py() for file in (one, one, other)]
    assert commitments[0] == commitments[1] != commitments[2]
    assert salt.stat().st_mode & 0o777 == 0o600
    kept = salt.read_bytes()
    salt.write_bytes(b"short")
    with pytest.raises(Exception, match="a salt is 32 bytes"):
        distill(study, "x", one)
    salt.write_bytes(kept)


def test_other_rows_are_another_commitment(study, tmp_path):
    before = distill(study, "x", rows(tmp_path / "r.parquet", (20, 80, 30, 70))).packets
    after = distill(study, "x", rows(tmp_path / "r.parquet", (20, 80, 30, 70), latitude=11)).packets
    assert before["raw_data_hash"] != after["raw_data_hash"]


@pytest.mark.parametrize("cells", [(10, 90, 30, 70), (30, 70, 30, 1), (30, 5, 30, 70)])
def test_small_cells_stay_at_home_under_the_default_gate(study, tmp_path, cells):
    gated = study.model_copy(update={"gate": Gate()})
    release = distill(gated, "x", rows(tmp_path / "r.parquet", cells))
    assert release.packets.num_rows == 0
    assert release.withheld.startswith("fewer than 11 people are")


def test_the_gate_lets_nought_and_eleven_pass():
    assert too_small(Cells(0, 11, 11, 200), Gate()) is None
    assert too_small(Cells(0, 11, 10, 200), Gate()) == "fewer than 11 people are control with the event"


def test_nobody_with_the_event_is_no_packet(study, tmp_path):
    release = distill(study, "x", rows(tmp_path / "r.parquet", (0, 50, 0, 50)))
    assert (release.packets.num_rows, release.withheld) == (0, "nobody in either arm has the event")


@pytest.mark.parametrize("measure", list(MEASURES))
@pytest.mark.parametrize("cells", [(0, 50, 20, 50), (50, 0, 20, 50), (50, 0, 50, 0), (0, 50, 50, 0)])
def test_an_empty_cell_is_never_an_infinite_weight(measure, cells):
    effect, stderr = MEASURES[measure](correct_empty_cells(Cells(*cells)))
    assert abs(effect) < 10
    assert 0 < stderr < 10


def test_measures_against_a_worked_example():
    """Rothman, Greenland & Lash's estimators on the cells 4/119/11/128 (Aronson 1948), by hand."""
    cells = Cells(4, 119, 11, 128)
    assert exp(MEASURES["log_risk_ratio"](cells)[0]) == pytest.approx((4 / 123) / (11 / 139))
    assert exp(MEASURES["log_odds_ratio"](cells)[0]) == pytest.approx(4 * 128 / (119 * 11))
    assert MEASURES["log_odds_ratio"](cells)[1] == pytest.approx(sqrt(1 / 4 + 1 / 119 + 1 / 11 + 1 / 128))
    effect, stderr = MEASURES["risk_difference"](cells)
    assert effect == pytest.approx(4 / 123 - 11 / 139)
    p, q = 4 / 123, 11 / 139
    assert stderr == pytest.approx(sqrt(p * (1 - p) / 123 + q * (1 - q) / 139))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_table_lacks_is_named(study, tmp_path, engine):
    file = rows(tmp_path / "r.parquet", (20, 80, 30, 70))
    pl.read_parquet(file).drop("tuberculosis").write_parquet(tmp_path / "lacks.parquet")
    with pytest.raises(StudyError, match=r"lacks\.parquet: there is no column 'tuberculosis'"):
        distill(study, "x", tmp_path / "lacks.parquet", engine)
    pl.read_parquet(file).clear().write_parquet(tmp_path / "empty.parquet")
    with pytest.raises(StudyError, match="is empty"):
        distill(study, "x", tmp_path / "empty.parquet", engine)
    pl.read_parquet(file).filter("vaccinated").write_parquet(tmp_path / "one_arm.parquet")
    with pytest.raises(StudyError, match=r"no row has vaccinated = False \(control\); it holds True"):
        distill(study, "x", tmp_path / "one_arm.parquet", engine)


def test_a_site_column_that_varies_is_refused(study, tmp_path):
    file = rows(tmp_path / "r.parquet", (20, 80, 30, 70))
    pl.read_parquet(file).with_columns(latitude=pl.int_range(pl.len()) % 2).write_parquet(file)
    with pytest.raises(StudyError, match="'latitude' must be the same in all of a site's rows; it holds 0, 1"):
        distill(study, "x", file)


def test_context_may_be_a_date_and_may_not_be_infinite(study, tmp_path):
    dated = rows(tmp_path / "r.parquet", (20, 80, 30, 70), allocation=date(1999, 5, 1))
    assert '"allocation":"1999-05-01"' in distill(study, "x", dated).packets["context"][0].as_py()
    with pytest.raises(StudyError, match=r"r\.parquet: context: .*not JSON compliant"):
        distill(study, "x", rows(tmp_path / "r.parquet", (20, 80, 30, 70), allocation=float("inf")))


@pytest.mark.parametrize(
    ("time", "milliseconds"),
    [
        (1969, -365 * 86_400_000),
        (date(1970, 1, 2), 86_400_000),
        (datetime(1970, 1, 1, 0, 0, 1), 1000),
        (datetime(1970, 1, 1, 1, tzinfo=UTC), 3_600_000),
    ],
)
def test_time_is_a_year_a_date_or_a_time(study, tmp_path, time, milliseconds):
    packets = distill(study, "x", rows(tmp_path / "r.parquet", (20, 80, 30, 70), year=time)).packets
    assert packets["timestamp_utc"].to_pylist() == [milliseconds]


@pytest.mark.parametrize("time", [0, 12_345, "soon", True, 1999.5])
def test_what_is_no_time_is_refused(study, tmp_path, time):
    with pytest.raises(StudyError, match="'year' must hold a year, a date or a time"):
        distill(study, "x", rows(tmp_path / "r.parquet", (20, 80, 30, 70), year=time))


def test_missing_values_are_in_no_cell(study, tmp_path):
    file = rows(tmp_path / "r.parquet", (20, 80, 30, 70))
    missing = pl.DataFrame({"vaccinated": [None, True], "tuberculosis": [True, None]})
    constant = {"latitude": pl.lit(10), "allocation": pl.lit("random"), "year": pl.lit(1999)}
    pl.concat([pl.read_parquet(file), missing.with_columns(**constant)]).write_parquet(file)
    release = distill(study, "x", file)
    assert (release.rows, release.packets["sample_count"][0].as_py()) == (202, 200)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_broken_file_is_one_line(study, tmp_path, engine):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(EngineError, match=r"rows\.parquet cannot be read as a table: [^\n]+$"):
        distill(study, "x", tmp_path / "rows.parquet", engine)


def test_a_file_of_another_kind_is_refused(study, tmp_path):
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(EngineError, match=r"\.parquet or \.csv file or a Delta folder"):
        distill(study, "x", tmp_path / "rows.xlsx")
