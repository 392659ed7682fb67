"""A site's rows -> outcome packets. The engine counts, once for all engines; everything after is plain arithmetic,
so that a packet has the same bits, and the same packet_id, wherever it was counted."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import narwhals as nw
import pyarrow as pa

from pipelines.commitment import commit, salt_of
from pipelines.effects import MEASURES, Cells, correct_empty_cells
from pipelines.engine import Engine, readable, scan
from pipelines.privacy import refuse_small_cells
from pipelines.study import Study, StudyError
from qis_connectors.outcome import compact_json, confidence, deciles
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, complete

ARCHITECTURE = "two_arm_comparison"
MAX_DISTINCT_ROWS = 100_000
"""Distinct combinations of the study's columns; beyond it a column is no arm, binary outcome or site constant."""


class NothingToCompareError(StudyError):
    """There are no rows, or none in one of the arms."""


Value = bool | int | float | str | date | None
Counted = dict[tuple[Value, ...], int]
"""How many rows hold each combination of values of `study.columns`."""


@dataclass(frozen=True)
class Release:
    """What one site sends: its packets (OUTCOME_PACKET_SCHEMA), or why there are none; and the rows that stay."""

    site: str
    engine: Engine
    packets: pa.Table
    rows: int
    withheld: str | None


def distill(study: Study, site: str, rows: Path, engine: Engine = "polars") -> Release:
    """The packets of one site.

    Raises StudyError where the table has not the study's columns or values, and EngineError or SaltError.
    """
    with readable(rows, engine):
        counted = _count(scan(rows, engine), study, rows)
    if not counted:
        raise NothingToCompareError(f"{rows}: the table is empty")
    cells = _cells(counted, study, rows)
    withheld = refuse_small_cells(cells, study.gate)
    if not (cells.treated_event or cells.control_event):
        # Without an event in either arm a ratio is not defined (Cochrane Handbook, 10.4.4.2).
        withheld = "nobody in either arm has the event"
    fields = [] if withheld else [_packet(study, site, rows, counted, cells)]
    batch = complete(pa.RecordBatch.from_pylist(fields, schema=OUTCOME_PACKET_SCHEMA))
    return Release(site, engine, pa.Table.from_batches([batch]), sum(counted.values()), withheld)


def _count(frame: nw.LazyFrame[Any], study: Study, rows: Path) -> Counted:
    columns, there = study.columns, frame.collect_schema().names()
    for column in columns:
        if column not in there:
            raise StudyError(f"{rows}: there is no column {column!r}; there are {', '.join(there[:20])}")
    distinct = frame.group_by(*columns).agg(nw.len().alias("rows")).head(MAX_DISTINCT_ROWS + 1)
    counted = distinct.collect(backend="pyarrow").to_arrow()
    if counted.num_rows > MAX_DISTINCT_ROWS:
        raise StudyError(f"{rows}: over {MAX_DISTINCT_ROWS} distinct rows; is {study.outcome.column!r} binary?")
    *keys, sizes = (counted.column(name).to_pylist() for name in (*columns, "rows"))
    return dict(zip(zip(*keys, strict=True), sizes, strict=True))


def _cells(counted: Counted, study: Study, rows: Path) -> Cells:
    """The 2x2 table. Rows of other arms, and rows where arm or outcome is missing, are in no cell."""
    arm_at, outcome_at = study.columns.index(study.arms.column), study.columns.index(study.outcome.column)
    count = {(arm, event): 0 for arm in ("treated", "control") for event in (True, False)}
    arms: dict[Value, str] = {study.arms.treated: "treated", study.arms.control: "control"}
    for values, n in counted.items():
        arm, outcome = arms.get(values[arm_at]), values[outcome_at]
        if arm is not None and outcome is not None:
            count[arm, outcome == study.outcome.event] += n
    for value, arm in arms.items():
        if not (count[arm, True] or count[arm, False]):
            seen = sorted({str(values[arm_at]) for values in counted})[:5]
            raise NothingToCompareError(
                f"{rows}: no row has {study.arms.column} = {value!r} ({arm}); it holds {', '.join(seen)}"
            )
    return Cells(count["treated", True], count["treated", False], count["control", True], count["control", False])


def _packet(study: Study, site: str, rows: Path, counted: Counted, cells: Cells) -> dict[str, Any]:
    effect, stderr = MEASURES[study.effect](correct_empty_cells(cells))
    sign = 1 if study.outcome.better == "higher" else -1
    return {
        "node_id": site,
        "timestamp_utc": _milliseconds(_constant(counted, study, study.time, rows), study, rows),
        "domain": study.domain,
        "problem_type": study.problem_type,
        "model_architecture": ARCHITECTURE,
        "training_phase": study.training_phase,
        "metric_name": study.effect,
        "metric_delta": effect,
        "metric_value": cells.treated_event / cells.treated,
        "confidence": confidence(effect, stderr),
        "intervention_type": study.intervention.type,
        "intervention_params": _json(study.intervention.params, "intervention.params"),
        "outcome_decile": deciles([sign * effect])[0],
        "sample_count": int(cells.treated + cells.control),
        "raw_data_hash": commit([(*values, n) for values, n in counted.items()], salt_of(rows)),
        "metric_stderr": stderr,
        "context": _json({name: _constant(counted, study, name, rows) for name in study.context}, f"{rows}: context"),
    }


def _constant(counted: Counted, study: Study, column: str, rows: Path) -> Value:
    """The one value a site-level column has in all rows."""
    distinct = {values[study.columns.index(column)] for values in counted}
    if len(distinct) > 1:
        shown = ", ".join(sorted(map(str, distinct))[:3])
        raise StudyError(f"{rows}: {column!r} must be the same in all of a site's rows; it holds {shown}")
    return distinct.pop()


def _milliseconds(value: Value, study: Study, rows: Path) -> int:
    """A year, a date or a time -> Unix epoch in ms (UTC; negative before 1970)."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 9999:
        value = date(value, 1, 1)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise StudyError(f"{rows}: {study.time!r} must hold a year, a date or a time; it holds {value!r}")
    return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)


def _json(values: dict[str, Any], where: str) -> str:
    """An object as the packet's text, dates by their ISO form; StudyError for NaN and other things JSON has not."""
    try:
        return compact_json({k: v.isoformat() if isinstance(v, date) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise StudyError(f"{where}: {error}") from None
