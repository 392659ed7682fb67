"""Tables of every kind, drawn by hypothesis: each engine makes the same of them, or says why not in one line."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visits import KINDS, VISITS, study, visits

from pipelines.distill import distill
from pipelines.engine import spark_is_here
from qis_connectors.errors import QisError

ANY_TABLE = {
    "arms": st.lists(st.sampled_from(["new", "old", "other", None]), min_size=1, max_size=60),
    "outcomes": st.lists(st.one_of(st.none(), st.floats(allow_infinity=False, width=32)), min_size=60, max_size=60),
    "name": st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable() and '"' not in text),
}


@settings(max_examples=30, deadline=None)
@given(**ANY_TABLE)
def test_any_table_gives_packets_or_one_line(tmp_path_factory, arms, outcomes, name):
    """Missing, constant, one arm, huge values, names in any script: the same on Polars and DuckDB, no traceback."""
    assert_alike_on("duckdb", tmp_path_factory, arms, outcomes, name)


@pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))
@settings(max_examples=3, deadline=None)
@given(**ANY_TABLE)
def test_any_table_gives_the_same_on_spark(tmp_path_factory, arms, outcomes, name):
    """Three in each run: each takes seconds."""
    assert_alike_on("spark", tmp_path_factory, arms, outcomes, name.translate({ord("."): "-", ord("`"): "-"}))


@pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))
@pytest.mark.parametrize("name", ["body.mass", "a`b"])
def test_names_that_are_paths_to_spark_are_refused_there(tmp_path, name):
    visits().rename({"pressure": name}).write_parquet(tmp_path / "visits.parquet")
    plan = study(VISITS, outcome={**KINDS["continuous"], "column": name}, effect="mean_difference")
    with pytest.raises(QisError, match=r"visits\.parquet: Spark reads '.*' as a path; --engine duckdb"):
        distill(plan, "x", tmp_path / "visits.parquet", "spark")
    assert distill(plan, "x", tmp_path / "visits.parquet", "duckdb").packets.num_rows == 1


def assert_alike_on(engine, tmp_path_factory, arms, outcomes, name):
    file = tmp_path_factory.mktemp("any") / "t.parquet"
    column = f"{name}!"
    pl.DataFrame(
        {"arm": arms, column: outcomes[: len(arms)]}, schema={"arm": pl.String, column: pl.Float64}
    ).write_parquet(file)
    outcome = {"kind": "continuous", "column": column, "better": "lower"}
    plan = study(
        VISITS, outcome=outcome, effect="mean_difference", gate={"min_cell": 1, "per_number": 0, "why": "test"}
    )
    said = []
    for one in ("polars", engine):
        try:
            release = distill(plan, "x", file, one)
            said.append(release.withheld or [f"{error:.5g}" for error in release.packets["metric_stderr"].to_pylist()])
        except QisError as error:
            said.append(str(error))
    assert said[0] == said[1]
    assert "\n" not in str(said[0])
