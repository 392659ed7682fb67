"""Rows of a Delta folder: the same packets on every engine, whatever the folders of the table are named for."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from visits import SPARK

from pipelines.distill import distill
from pipelines.engine import scan
from pipelines.study import Study
from qis_connectors.delta_rows import DeltaRows, DeltaRowsError

WARDS = ("x y", "Ж/é", "01", None)
SCHEMA = pa.schema([("arm", pa.string()), ("ward", pa.string()), ("day", pa.date32()), ("pressure", pa.float64())])


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    at = pl.int_range(2000)
    return pl.select(
        arm=pl.when(at % 2 == 0).then(pl.lit("new")).otherwise(pl.lit("old")),
        ward=pl.lit(pl.Series(WARDS)).get(at // 2 % 4),
        day=pl.date(2026, 1, 1) + pl.duration(days=at % 150),
        pressure=pl.when(at % 89 == 0).then(None).otherwise(120 + (at * 7919 % 1000) / 37 - 3.0 * (at % 2)),
    )


@pytest.fixture(scope="module")
def table(rows, tmp_path_factory) -> Path:
    """In folders by ward, written in two goes, the second with one more column; what was deleted is not there."""
    path = tmp_path_factory.mktemp("delta") / "visits"
    whole = rows.to_arrow().cast(SCHEMA)
    write_deltalake(path, whole.slice(0, 1200), partition_by=["ward"])
    more = whole.slice(1200).append_column("extra", pa.array(["n"] * 800))
    write_deltalake(path, pa.concat_tables([more, more], promote_options="default").slice(0, 800), mode="append",
                    schema_mode="merge")  # fmt: skip
    write_deltalake(path, more.slice(0, 100).set_column(1, "ward", pa.array(["closed"] * 100)), mode="append")
    DeltaTable(path).delete("ward = 'closed'")
    return path


def study(**changes: object) -> Study:
    plan = {
        "study": "s",
        "domain": "a.b",
        "problem_type": "p",
        "rows": "visits",
        "site": "x",
        "arms": {"column": "arm", "treated": "new", "control": "old"},
        "outcome": {"kind": "continuous", "column": "pressure", "better": "lower"},
        "effect": "mean_difference",
        "intervention": {"type": "t"},
        "strata": ["ward"],
        "time": "day",
        "period": "quarter",
    }
    return Study.model_validate({**plan, **changes})


@pytest.mark.parametrize("engine", ["polars", "duckdb", SPARK])
def test_a_delta_folder_gives_the_packets_of_its_rows(rows, table, tmp_path, engine):
    file = tmp_path / "rows.parquet"
    rows.write_parquet(file)
    expected = distill(study(), "x", file).packets
    found = distill(study(), "x", table, engine).packets
    assert found.num_rows == expected.num_rows == 8
    for column in ("context", "training_phase", "sample_count"):
        assert found[column].to_pylist() == expected[column].to_pylist()
    for column in ("metric_delta", "metric_stderr", "metric_value"):
        assert found[column].to_pylist() == pytest.approx(expected[column].to_pylist(), rel=2e-7)


@pytest.mark.parametrize("engine", ["polars", "duckdb", SPARK])
def test_a_delta_folder_without_rows_is_empty(tmp_path, engine):
    write_deltalake(tmp_path / "visits", SCHEMA.empty_table())
    assert scan(tmp_path / "visits", engine).collect().shape == (0, 4)


def test_what_is_more_than_files_is_refused(tmp_path):
    other = tmp_path / "visits"
    write_deltalake(other, SCHEMA.empty_table(), configuration={"delta.enableDeletionVectors": "true"})
    with pytest.raises(DeltaRowsError, match=r"visits: this Delta table cannot be read file by file; [^\n]*$"):
        DeltaRows(other)
    (tmp_path / "no" / "_delta_log").mkdir(parents=True)
    with pytest.raises(DeltaRowsError, match="no: this Delta table cannot be read"):
        DeltaRows(tmp_path / "no")
