"""A site's rows, counted: the one pass over them, the same on every engine. What comes back is small."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import narwhals as nw

from pipelines.contributors import CONTRIBUTOR, with_heavy_contributors
from pipelines.engine import Engine, readable, scan
from pipelines.study import AnyStudy, Study, StudyError
from pipelines.study_fields import Continuous, Count, Query, TimeToEvent
from pipelines.study_mistakes import NothingToCompareError

MAX_GROUPS = 100_000
"""Distinct combinations of a study's columns; beyond it a column is no arm, outcome, stratum or site constant."""

Value = bool | int | float | str | date | None
EVERY = {"year": "1y", "quarter": "1q", "month": "1mo", "day": "1d"}


@dataclass(frozen=True)
class Groups:
    """Distinct combinations of `names`, how many rows have each, and sums over these rows.

    `names` are the study's columns, and CONTRIBUTOR where its gate names one.
    """

    names: tuple[str, ...]
    keys: list[tuple[Value, ...]]
    rows: list[int]
    sums: list[dict[str, Any]]

    def __iter__(self) -> Iterator[tuple[tuple[Value, ...], int, dict[str, Any]]]:
        return zip(self.keys, self.rows, self.sums, strict=True)


def count(study: AnyStudy, rows: Path, engine: Engine) -> dict[str | None, Groups]:
    """Site -> its groups; the site is None where the study has no `site_column`.

    Raises StudyError where the table lacks a column, is empty or has too many groups, and EngineError.
    """
    with readable(rows, engine):
        frame = scan(rows, engine, study.rows if isinstance(study.rows, Query) else None)
        counted = grouped(study, frame, rows).head(MAX_GROUPS + 1)
        # Rows larger than memory pass through in pieces; the other engines do so by themselves.
        streamed = {"engine": "streaming"} if engine == "polars" else {}
        table = counted.collect(backend="pyarrow", **streamed).to_arrow()
    return by_site(study, table, rows)


def grouped(study: AnyStudy, frame: nw.LazyFrame[Any], rows: Path) -> nw.LazyFrame[Any]:
    """The counting, not run yet: a row for each group, of each site where the study has a `site_column`.

    Raises StudyError where a column is missing or of the wrong type; `rows` is what it calls the table.
    """
    types = dict(frame.collect_schema())
    keys = _keys(study)
    for column in (*keys, *_summed(study), *_contributor(study)):
        if column != CONTRIBUTOR and column not in types:
            raise StudyError(f"{rows}: there is no column {column!r}; there are {', '.join([*types][:20])}")
        if frame.implementation.is_spark_like() and set(column) & set(".`"):
            raise StudyError(f"{rows}: Spark reads {column!r} as a path; --engine duckdb takes it as a name")
    if isinstance(study, Study) and study.period:
        frame = in_periods(frame, study, types, rows)
        if study.month:
            start = nw.col(str(study.time)).cast(nw.Date)
            frame = frame.filter(start == nw.lit(study.month))
    if isinstance(study, Study) and study.gate.contributor:
        cells = [key for key in keys if key not in (CONTRIBUTOR, getattr(study.outcome, "duration", None))]
        weights, share = _weights(study, types), study.gate.max_share
        frame = with_heavy_contributors(frame, study.gate.contributor, cells, weights, share)
    return frame.group_by(*keys).agg(nw.len().alias("qis rows"), *_sums(study, types))


def sites_and_months(study: Study, rows: Path) -> set[tuple[str, str]]:
    """The sites that `site_column` tells apart and the months (2013-01) of a study by months that are in a table; where
    the study has not the one or the other, it is empty. Raises as `count` does.
    """
    with readable(rows, "polars"):
        frame = scan(rows, "polars")
        told = _told(study, frame, rows)
        return {(site or "", month or "") for site, month in told.unique().collect().iter_rows()}


def rows_of_site(study: Study, site: str, rows: Path) -> int:
    """How many rows of a table are the site's, in the month where the study is of one. Raises as `count` does."""
    with readable(rows, "polars"):
        told = _told(study, scan(rows, "polars"), rows)
        if study.site_column:
            told = told.filter(nw.col("qis site") == site)
        if study.month:
            told = told.filter(nw.col("qis month") == f"{study.month:%Y-%m}")
        return int(told.select(nw.len()).collect().item())


def _told(study: Study, frame: nw.LazyFrame[Any], rows: Path) -> nw.LazyFrame[Any]:
    """site and month of each row, as texts."""
    types, time = dict(frame.collect_schema()), str(study.time)
    for column in filter(None, (study.site_column, time if study.period else None)):
        if column not in types:
            raise StudyError(f"{rows}: there is no column {column!r}; there are {', '.join([*types][:20])}")
    by_month = study.period == "month"
    if by_month:
        frame = in_periods(frame, study, types, rows)
    site = nw.col(study.site_column).cast(nw.String) if study.site_column else nw.lit("")
    month = nw.col(time).dt.to_string("%Y-%m") if by_month else nw.lit("")
    return frame.with_columns(site.alias("qis site"), month.alias("qis month")).select("qis site", "qis month")


def by_site(study: AnyStudy, table: Any, rows: Path) -> dict[str | None, Groups]:  # noqa: ANN401 - pyarrow ships no types
    """What `grouped` gave, as an Arrow table, by site. Raises as `count` does."""
    if table.num_rows == 0:
        raise NothingToCompareError(f"{rows}: the table is empty")
    if table.num_rows > MAX_GROUPS:
        what = f"; is {study.outcome.column!r} binary?" if isinstance(study, Study) else ""
        raise StudyError(f"{rows}: over {MAX_GROUPS} distinct rows{what}")
    keys = _keys(study)
    names = tuple(key for key in keys if key != study.site_column or key in study.columns)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    if isinstance(study, Study) and study.period:
        # Cut to its start a date is a date with one engine and midnight with another.
        starts = columns[str(study.time)]
        columns[str(study.time)] = [one.date() if isinstance(one, datetime) else one for one in starts]
    found: dict[str | None, Groups] = {}
    for at in range(table.num_rows):
        site = columns[study.site_column][at] if study.site_column else None
        if study.site_column and site is None:
            raise StudyError(f"{rows}: a row has no {study.site_column}")
        groups = found.setdefault(None if site is None else str(site), Groups(names, [], [], []))
        groups.keys.append(tuple(columns[name][at] for name in names))
        groups.rows.append(columns["qis rows"][at])
        extra = {name.removeprefix("qis "): columns[name][at] for name in columns if name not in (*keys, "qis rows")}
        groups.sums.append(extra)
    return found


def _keys(study: AnyStudy) -> tuple[str, ...]:
    label = (CONTRIBUTOR,) if _contributor(study) else ()
    return tuple(dict.fromkeys((*study.columns, *label, *((study.site_column,) if study.site_column else ()))))


def _contributor(study: AnyStudy) -> tuple[str, ...]:
    return (study.gate.contributor,) if isinstance(study, Study) and study.gate.contributor else ()


def in_periods(frame: nw.LazyFrame[Any], study: Study, types: dict[str, Any], rows: Path) -> nw.LazyFrame[Any]:
    """Times cut to the start of their period; whole numbers are years already."""
    time = str(study.time)
    if study.period == "year" and types[time].is_integer():
        return frame
    if not isinstance(types[time], nw.Date | nw.Datetime):
        raise StudyError(f"{rows}: {time!r} must hold dates or times for a period; it holds {types[time]}")
    return frame.with_columns(nw.col(time).dt.truncate(EVERY[str(study.period)]))


def _summed(study: AnyStudy) -> tuple[str, ...]:
    outcome = study.outcome if isinstance(study, Study) else None
    if isinstance(outcome, Count) and outcome.exposure:
        return (outcome.column, outcome.exposure)
    return (outcome.column,) if isinstance(outcome, Continuous | Count) else ()


def _sums(study: AnyStudy, types: dict[str, Any]) -> list[nw.Expr]:
    if not isinstance(study, Study) or not isinstance(study.outcome, Continuous | Count):
        return []
    x = _present(study.outcome.column, study, types)
    if isinstance(study.outcome, Continuous):
        parts = {
            "n": x.count(),
            "mean": x.mean(),
            "variance": x.var(),
            "absolute": x.abs().sum(),
            "largest": x.abs().max(),
        }
    else:
        exposure = study.outcome.exposure
        time = _present(exposure, study, types) if exposure else nw.lit(1.0)
        x = nw.when(~time.is_null()).then(x) if exposure else x
        watched = nw.when(~x.is_null()).then(time)
        parts = {
            "n": x.count(),
            "struck": nw.when(x > 0).then(x).count(),
            "events": x.sum(),
            "broken": nw.when(x != x.round()).then(x).count(),
            "least": x.min(),
            "largest": x.max(),
            "exposure": watched.sum(),
            "shortest": watched.min(),
        }
    return [expression.alias(f"qis {name}") for name, expression in parts.items()]


def _weights(study: Study, types: dict[str, Any]) -> list[nw.Expr]:
    """What a row adds to the people and totals of its cell (Summary.people and totals); NULL where it is in none."""
    if isinstance(study.outcome, TimeToEvent):
        return [nw.when(~_present(study.outcome.duration, study, types).is_null()).then(1)]
    if not isinstance(study.outcome, Continuous | Count):
        return [nw.lit(1)]
    x = _present(study.outcome.column, study, types)
    if isinstance(study.outcome, Continuous):
        return [nw.when(~x.is_null()).then(1), x.abs()]
    if study.outcome.exposure:
        x = nw.when(~_present(study.outcome.exposure, study, types).is_null()).then(x)
    return [nw.when(x > 0).then(1), nw.when(x == 0).then(1), x]


def _present(column: str, study: Study, types: dict[str, Any]) -> nw.Expr:
    """The column as doubles, NULL where it is missing: NaN would pass a gate on counts."""
    if not types[column].is_numeric():
        raise StudyError(f"{column!r} must hold numbers; it holds {types[column]}")
    present = nw.col(column).cast(nw.Float64)
    if types[column].is_float():
        present = nw.when(~present.is_nan()).then(present)
    numbers = [float(value) for value in study.missing.values if isinstance(value, int | float)]
    for number in numbers:
        present = nw.when(present != number).then(present)
    return present
