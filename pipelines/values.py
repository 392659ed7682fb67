"""Values of rows as a packet takes them: a site's constants, times, JSON."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipelines.counting import Value
from pipelines.study import StudyError
from qis_connectors.outcome import compact_json


def constant(keys: Sequence[tuple[Value, ...]], names: tuple[str, ...], column: str, rows: Path) -> Value:
    """The one value a column has in all these groups of rows; StudyError where it varies."""
    distinct = {values[names.index(column)] for values in keys}
    if len(distinct) > 1:
        shown = ", ".join(sorted(map(str, distinct))[:3])
        raise StudyError(f"{rows}: {column!r} must be the same in all of a site's rows; it holds {shown}")
    return distinct.pop()


def milliseconds(value: Value, column: object, rows: Path) -> int:
    """A year, a date or a time -> Unix epoch in ms (UTC; negative before 1970)."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 9999:
        value = date(value, 1, 1)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise StudyError(f"{rows}: {column!r} must hold a year, a date or a time; it holds {value!r}")
    return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)


def as_json(values: dict[str, Any], where: str) -> str:
    """An object as the packet's text, dates by their ISO form; StudyError for NaN and other things JSON has not."""
    try:
        return compact_json({k: v.isoformat() if isinstance(v, date) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise StudyError(f"{where}: {error}") from None
