"""No packet tells of one contributor: whoever has more than the gate's share of a cell keeps it at the site."""

from pathlib import Path

import polars as pl
import pytest
from visits import COLUMNS

from pipelines.distill import distill
from pipelines.engine import spark_is_here
from pipelines.study import Study, StudyError
from pipelines.study_fields import Gate

PLAN = {**COLUMNS, "linter": {"too_few": "send", "why": "test"}}
BINARY = {"outcome": {"column": "sick", "event": True, "better": "lower"}, "effect": "log_odds_ratio"}
CONTINUOUS = {
    "outcome": {"kind": "continuous", "column": "cost", "better": "lower"},
    "effect": "mean_difference",
}
COUNT = {"outcome": {"kind": "count", "column": "falls", "better": "lower"}, "effect": "log_rate_ratio"}
SURVIVAL = {
    "outcome": {"kind": "time_to_event", "column": "sick", "event": True, "duration": "week", "better": "lower"},
    "effect": "log_hazard_ratio",
}


def study(of: dict[str, object], **gate: object) -> Study:
    return Study.model_validate({**PLAN, **of, "gate": {"contributor": "physician", **gate}})


def write(path: Path, **changes: pl.Expr) -> Path:
    """40 rows in each of eight cells (two wards, two arms, sick or not), of ten physicians; 4 rows each in a cell."""
    at = pl.int_range(320)
    rows = pl.select(
        arm=at % 2,
        sick=at // 2 % 2 == 0,
        ward=pl.when(at // 4 % 2 == 0).then(pl.lit("w")).otherwise(pl.lit("v")),
        physician=pl.concat_str(pl.lit("Dr Ж"), (at // 8 % 10).cast(pl.String)),
        week=at % 13 + 1,
        cost=100.0 + at % 17,
        falls=(at // 2 % 2 == 0).cast(pl.Int64),
    )
    rows.with_columns(**changes).write_parquet(path)
    return path


def in_cell(share: float, event: str = "sick") -> pl.Expr:
    """Dr X has that share of the treated who are sick, and nobody else's."""
    cell = (pl.col("arm") == 1) & pl.col(event).cast(pl.Boolean)
    first = pl.int_range(pl.len()) < share * 320
    return pl.when(cell & first).then(pl.lit("Dr X")).otherwise("physician").alias("physician")


# On Spark the kind that has the most columns: each costs it seconds.
SPARK = pytest.param(
    "spark", SURVIVAL, marks=pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))
)


@pytest.mark.parametrize(
    ("engine", "of"),
    [*((engine, of) for engine in ("polars", "duckdb") for of in (BINARY, SURVIVAL, COUNT)), SPARK],
)
def test_most_of_a_cell_by_one_contributor_stays(tmp_path, engine, of):
    plan = study(of)
    more = distill(plan, "x", write(tmp_path / "more.parquet", physician=in_cell(0.55)), engine)
    assert more.packets.num_rows == 0
    assert more.withheld.startswith("one physician has more than 50% of those treated with")
    assert "Dr" not in more.withheld
    if engine != "spark":
        half = distill(plan, "x", write(tmp_path / "half.parquet", physician=in_cell(0.5)), engine)
        assert (half.withheld, half.packets["sample_count"].to_pylist()) == (None, [320])


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_most_of_an_arms_total_by_one_contributor_stays(tmp_path, engine):
    """Dr Ж3 has a tenth of the rows: no cell and no single row is too much."""
    file = write(
        tmp_path / "t.parquet",
        cost=pl.when(pl.col("physician") == "Dr Ж3").then(pl.col("cost") * 20).otherwise("cost"),
    )
    assert distill(study(CONTINUOUS), "x", file, engine).withheld == (
        "one physician has more than 50% of the treated arm's total"
    )
    assert distill(study(CONTINUOUS, max_share=0.8), "x", file, engine).withheld is None


def test_engines_count_the_same_and_the_effect_is_the_same_without(tmp_path):
    file = write(tmp_path / "t.parquet", physician=in_cell(0.4))
    for of in (BINARY, CONTINUOUS, COUNT, SURVIVAL):
        plan = study(of, max_share=0.3)
        open_ = plan.model_copy(update={"gate": Gate(max_share=1, contributor="physician")})
        plain = plan.model_copy(update={"gate": Gate()})
        assert distill(plan, "x", file).packets.num_rows == (1 if of is CONTINUOUS else 0)
        one, other = (distill(open_, "x", file, engine).packets for engine in ("polars", "duckdb"))
        reference = distill(plain, "x", file).packets
        assert one["raw_data_hash"] == other["raw_data_hash"]
        for column in ("metric_delta", "metric_stderr", "metric_value", "sample_count"):
            assert one[column].to_pylist() == pytest.approx(reference[column].to_pylist(), rel=2e-7)


def test_who_has_most_of_a_ward_may_have_little_of_the_hospital(tmp_path):
    """Dr X has all of the treated sick in ward w, and half of them in both wards: rolled up, they leave."""
    mine = (pl.col("arm") == 1) & pl.col("sick") & (pl.col("ward") == "w")
    file = write(tmp_path / "t.parquet", physician=pl.when(mine).then(pl.lit("Dr X")).otherwise("physician"))
    alone = study({**BINARY, "strata": ["ward"]})
    assert distill(alone, "x", file).kept_back == (
        ("ward w", "one physician has more than 50% of those treated with the event"),
    )
    together = distill(study({**BINARY, "rollup": ["ward"]}), "x", file)
    assert (together.withheld, together.packets["sample_count"].to_pylist()) == (None, [320])
    stricter = distill(study({**BINARY, "rollup": ["ward"]}, max_share=0.49), "x", file)
    assert stricter.packets.num_rows == 0


def test_rows_that_name_no_contributor_may_be_one_contributors(tmp_path):
    file = write(
        tmp_path / "t.parquet",
        physician=pl.when((pl.col("arm") == 1) & (pl.col("week") % 5 != 0)).then(None).otherwise("physician"),
    )
    assert "one physician has more than 50%" in str(distill(study(BINARY), "x", file).withheld)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_rows_that_are_in_no_cell_hide_nobody(tmp_path, engine):
    """Dr X has a fifth of the rows and most of those whose cost is known."""
    mine = pl.int_range(pl.len()) % 10 < 2
    file = write(
        tmp_path / "t.parquet",
        physician=pl.when(mine).then(pl.lit("Dr X")).otherwise("physician"),
        cost=pl.when(mine | (pl.col("week") < 3)).then("cost"),
    )
    assert distill(study(CONTINUOUS), "x", file, engine).withheld == "one physician has more than 50% of those treated"


def test_most_of_those_with_an_event_by_one_contributor_stays(tmp_path):
    """Dr X has most of the treated who fell, one fall each; the others fell often."""
    others = pl.int_range(pl.len()) >= 176
    file = write(
        tmp_path / "t.parquet",
        physician=in_cell(0.55, "falls"),
        falls=pl.when(others).then(pl.col("falls") * 9).otherwise("falls"),
    )
    assert distill(study(COUNT), "x", file).withheld == "one physician has more than 50% of those treated with an event"


def test_a_contributor_column_that_is_not_there_is_named(tmp_path):
    file = write(tmp_path / "t.parquet")
    with pytest.raises(StudyError, match="there is no column 'practice'; there are arm, sick"):
        distill(study(BINARY, contributor="practice"), "x", file)
