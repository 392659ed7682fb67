"""A study: where a site's rows are, what was tried, what came of it, and what may leave. One YAML file."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, TypeAdapter, ValidationError, ValidationInfo, model_validator

from pipelines.study_fields import (
    Arms,
    Gate,
    Grid,
    Intervention,
    Linter,
    Missing,
    Noise,
    Outcome,
    Query,
    Rows,
    Strict,
    Text,
)
from pipelines.study_mistakes import StudyError, mistake
from qis_connectors import address
from qis_connectors.mistakes import did_you_mean, read_mapping

__all__ = ["EFFECTS", "MetricLog", "Study", "StudyError", "load", "schema"]

EFFECTS = {
    "binary": ("log_risk_ratio", "log_odds_ratio", "risk_difference"),
    "continuous": ("mean_difference", "standardised_mean_difference"),
    "count": ("log_rate_ratio",),
    "time_to_event": ("log_hazard_ratio",),
}
"""Kind of outcome -> the effect measures it has."""

Period = Literal["year", "quarter", "month", "day"]
Time = Annotated[Text | int | date, Field(description="A column of years, dates or times; or the year or date itself")]


def _fitting_measure(name: str, info: ValidationInfo) -> str:
    known = [effect for effects in EFFECTS.values() for effect in effects]
    if name not in known:
        raise ValueError(f"is not one of {', '.join(known)}{did_you_mean(name, known)}")
    outcome = info.data.get("outcome")
    if outcome is not None and name not in EFFECTS[outcome.kind]:
        raise ValueError(f"is no effect of a {outcome.kind} outcome; those are {', '.join(EFFECTS[outcome.kind])}")
    return name


class _Sited(Strict):
    """What both kinds of study have. `rows` is a path relative to the file; `{site}` in it stands for each site's
    name, or `site` names the one, or `site_column` is the column that tells them apart. `{month}` stands for a month
    (2013-01) where the rows come month by month."""

    study: Text
    domain: Text
    problem_type: Text
    rows: Rows
    site: Text | None = None
    site_column: Text | None = None
    intervention: Intervention
    context: tuple[str, ...] = ()
    key: Annotated[Text, Field(description="What signs the packets: a NODE.key, or a folder of them")] | None = None

    @model_validator(mode="after")
    def _one_way_to_name_a_site(self) -> "_Sited":
        in_path = isinstance(self.rows, str) and "{site}" in self.rows
        if in_path + (self.site is not None) + (self.site_column is not None) != 1:
            raise ValueError("needs one of: {site} in 'rows', the one name under 'site', or 'site_column'")
        address.of(self.domain, self.problem_type)
        return self

    @property
    def pattern(self) -> str:
        """`rows` as a path; StudyError where they are a query's."""
        if isinstance(self.rows, Query):
            raise StudyError(f"study {self.study!r}: its rows are a query's; this needs them in files")
        return self.rows

    def row_files(self, folder: Path) -> dict[str, Path]:
        """Site name -> its rows, for the files there are below `folder`, sorted by name.

        With `site_column` there is one, under the study's name: its sites show when it is read. A query's rows have
        the database's file, or for Postgres a file that is not there; the site's secrets are kept beside it.
        """
        if isinstance(self.rows, Query):
            remote = "://" in self.rows.database
            at = f"{self.study}.postgres" if remote else self.rows.database
            found = {self.site or self.study: folder / at}
        elif self.site is not None or self.site_column is not None:
            remote, found = False, {self.site or self.study: folder / self.rows}
        else:
            before, after = self.rows.split("{site}", 1)
            skip, end = len(str(folder / "_")) - 1 + len(before), len(after)
            remote = False
            found = {str(path)[skip : len(str(path)) - end]: path for path in folder.glob(f"{before}*{after}")}
        found = {site: path for site, path in sorted(found.items()) if remote or path.exists()}
        if not found:
            where = self.rows.database if isinstance(self.rows, Query) else self.rows
            raise StudyError(f"study {self.study!r}: no rows at {folder / where}")
        return found


class Study(_Sited):
    """Two arms compared."""

    _month: str = PrivateAttr("")
    kind: Literal["two_arms"] = "two_arms"
    training_phase: str = ""
    arms: Arms
    outcome: Outcome
    effect: Annotated[str, AfterValidator(_fitting_measure)]
    strata: tuple[str, ...] = ()
    rollup: Annotated[tuple[str, ...], Field(description="A hierarchy of columns, finest first")] = ()
    time: Time
    period: Period | None = None
    missing: Missing = Missing()
    likelihood: Grid | None = None
    linter: Linter = Linter()
    gate: Gate = Gate()
    noise: Noise | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "Study":
        if self.period and not isinstance(self.time, str):
            raise ValueError("'period' needs the column of times under 'time'")
        if self.period and self.training_phase:
            raise ValueError("'period' makes the training_phase; leave one of them out")
        if self.likelihood and self.effect == "standardised_mean_difference":
            raise ValueError("'likelihood' is not known of a standardised_mean_difference")
        grid = self.likelihood
        if grid and self.effect == "risk_difference" and not -1 < grid.start < grid.end < 1:
            raise ValueError("'likelihood' of a risk_difference lies within -1 and 1: write its 'from' and 'to'")
        return self

    @model_validator(mode="after")
    def _noise_covers_all(self) -> "Study":
        """What else would tell of the rows is not sent beside noise."""
        if self.noise and self.outcome.kind != "binary":
            raise ValueError("'noise' is known of the cells of a binary outcome alone")
        if self.noise and (self.likelihood or self.rollup or self.gate.contributor):
            raise ValueError("'noise' goes with none of 'likelihood', 'rollup' and 'gate.contributor': leave them out")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose distinct rows are counted."""
        known = (self.arms.column, *self.outcome.keys, *self.strata, *self.rollup, *self.context, *_column(self.time))
        return tuple(dict.fromkeys(known))

    def of(self, month: str) -> "Study":
        """The study of one month (2013-01), which is the training phase: `{month}` in `rows` stands for it, or only
        the rows whose time lies in it are counted.
        """
        if not month:
            return self
        if "{month}" in self.pattern:
            return self.model_copy(update={"rows": self.pattern.replace("{month}", month), "training_phase": month})
        one = self.model_copy()
        one._month = month
        return one

    @property
    def phase(self) -> str | None:
        """The training phase of all its packets; None where that is each packet's period."""
        return self._month or (None if self.period else self.training_phase)

    @property
    def month(self) -> date | None:
        """The first day of the month whose rows alone are counted; None: all are."""
        return date.fromisoformat(f"{self._month}-01") if self._month else None


class MetricLog(_Sited):
    """What a training run writes: a row an epoch and metric. Each epoch after the first is a packet."""

    kind: Literal["metric_log"]
    model_architecture: Text
    epoch: Text
    metric: Text
    value: Text
    metrics: dict[str, Literal["lower", "higher"]]
    epochs: Annotated[int, Field(ge=1, description="How many the run will have")] | None = None
    records: Annotated[int, Field(ge=1, description="How many records a value was measured on")]
    time: Time

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.epoch, self.metric, self.value, *self.context, *_column(self.time))))


def _column(time: str | int | date) -> tuple[str, ...]:
    return (time,) if isinstance(time, str) else ()


AnyStudy = Study | MetricLog


def load(path: Path) -> Study:
    """The two-arm study in a YAML file; StudyError names the first wrong line."""
    study = load_any(path)
    if not isinstance(study, Study):
        raise StudyError(f"{path}: is a {study.kind}, and two arms are asked for")
    return study


def load_any(path: Path) -> AnyStudy:
    """The study of either kind in a YAML file; StudyError names the first wrong line."""
    content, node = read_mapping(path, "a study", StudyError)
    kind: type[AnyStudy] = MetricLog if content.get("kind") == "metric_log" else Study
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{path}:{mistake(error, kind, node)}") from None


def schema() -> dict[str, Any]:
    """The JSON Schema of a study file."""
    return {"title": "QIS study", **TypeAdapter[Any](AnyStudy).json_schema()}
