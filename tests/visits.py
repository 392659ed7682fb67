"""Studies and rows to distill, for the tests of it: people of two arms with outcomes of every kind."""

import polars as pl
import pytest

from pipelines.engine import spark_is_here
from pipelines.study import Study

SPARK = pytest.param("spark", marks=pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here())))
EXACT = {"too_few": "send", "why": "public"}
BASE = {
    "study": "s",
    "domain": "a.b",
    "problem_type": "p",
    "site": "x",
    "intervention": {"type": "t"},
    "time": 1974,
    "linter": EXACT,
}
COLUMNS = {
    "study": "s",
    "domain": "a.b",
    "problem_type": "p",
    "rows": "t.parquet",
    "site": "x",
    "arms": {"column": "arm", "treated": 1, "control": 0},
    "intervention": {"type": "t"},
    "time": 2026,
}
"""A study of the columns arm and whatever its outcome is."""
SICK = {**COLUMNS, "outcome": {"column": "sick", "event": True, "better": "lower"}, "effect": "log_odds_ratio"}


def study(of: dict[str, object], **changes: object) -> Study:
    return Study.model_validate({**of, **changes})


def visits(n: int = 4000) -> pl.DataFrame:
    """People of two arms in three wards over two quarters, with outcomes of every kind, some missing."""
    at = pl.int_range(n)
    return pl.select(
        arm=pl.when(at % 2 == 0).then(pl.lit("new")).otherwise(pl.lit("old")),
        ward=pl.concat_str(pl.lit("Ж"), (at // 7 % 3).cast(pl.String)),
        day=pl.date(2026, 1, 1) + pl.duration(days=at % 170),
        cured=pl.when(at % 97 == 0).then(None).otherwise((at * 7919 % 10) < 4 + at % 2),
        pressure=pl.when(at % 89 == 0).then(None).otherwise(120 + (at * 104729 % 1000) / 37 - 3.0 * (at % 2)),
        falls=(at * 31 % 11 == 0).cast(pl.Int64) + (at * 17 % 13 == 0).cast(pl.Int64),
        years=0.5 + (at % 8) / 4,
        ended=(at * 7919 % 10) < 3 + at % 2,
        weeks=(at * 13 % 52) + 1,
    )


KINDS = {
    "binary": {"column": "cured", "event": True, "better": "higher"},
    "continuous": {"kind": "continuous", "column": "pressure", "better": "lower"},
    "count": {"kind": "count", "column": "falls", "exposure": "years", "better": "lower"},
    "time_to_event": {
        "kind": "time_to_event",
        "column": "ended",
        "event": True,
        "duration": "weeks",
        "better": "lower",
    },
}
VISITS = {**BASE, "rows": "visits.parquet", "arms": {"column": "arm", "treated": "new", "control": "old"}}
