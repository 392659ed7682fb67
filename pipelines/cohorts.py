"""Groups of rows -> cohorts: who is compared with whom, boiled down to the few sums that an effect is made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from math import isfinite
from typing import Any

from pipelines.counting import Groups, Value
from pipelines.effects import Cells, Summary
from pipelines.means import Means, Moments
from pipelines.rates import Events, Rates
from pipelines.study import Study, StudyError
from pipelines.study_fields import Binary, TimeToEvent
from pipelines.study_mistakes import NothingToCompareError
from pipelines.survival import AtTime, Survival

Group = tuple[tuple[Value, ...], int, dict[str, Any]]


@dataclass(frozen=True)
class Cohort:
    """One comparison. `place` is where in the study's hierarchy, coarsest first; `members` are the finest places in it;
    `rows` are its groups, which the commitment is to."""

    stratum: tuple[Value, ...]
    period: Value
    place: tuple[Value, ...]
    members: frozenset[tuple[Value, ...]]
    summary: Summary | None
    """None where an arm is empty."""
    rows: tuple[Group, ...]


def cohorts(study: Study, groups: Groups, where: str) -> list[Cohort]:
    """The study's cohorts at the finest place. StudyError where an arm has no row at all, or a value is impossible."""
    at = {name: groups.names.index(name) for name in groups.names}
    _refuse_missing(study, groups, where, at)
    found: dict[tuple[tuple[Value, ...], Value, tuple[Value, ...]], list[Group]] = {}
    for group in groups:
        keys = group[0]
        stratum = tuple(keys[at[name]] for name in study.strata)
        period = keys[at[str(study.time)]] if study.period else None
        place = tuple(keys[at[name]] for name in reversed(study.rollup))
        found.setdefault((stratum, period, place), []).append(group)
    made = [
        Cohort(stratum, period, place, frozenset({place}), _summary(study, rows, at, where), tuple(rows))
        for (stratum, period, place), rows in found.items()
    ]
    return sorted(made, key=lambda one: repr((one.stratum, one.period, one.place)))


def merged(study: Study, one: Cohort, other: Cohort, place: tuple[Value, ...], names: tuple[str, ...]) -> Cohort:
    """Both in one, at `place`."""
    rows = (*one.rows, *other.rows)
    at = {name: names.index(name) for name in names}
    # An arm that is empty in each alone may be there in both together, so the sums are made anew where one has none.
    both = one.summary + other.summary if one.summary and other.summary else _summary(study, list(rows), at, "")
    return replace(one, place=place, members=one.members | other.members, summary=both, rows=rows)


def _arm(study: Study, value: Value) -> int | None:
    """0 treated, 1 control, None: neither."""
    return 0 if value == study.arms.treated else 1 if value == study.arms.control else None


def _is_missing(study: Study, value: Value) -> bool:
    return value is None or value != value or value in study.missing.values


def _refuse_missing(study: Study, groups: Groups, where: str, at: dict[str, int]) -> None:
    """StudyError where an arm is empty or too many rows lack arm or outcome."""
    arms, missing = [0, 0], 0
    for keys, n, sums in groups:
        arm = _arm(study, keys[at[study.arms.column]])
        lacking = any(_is_missing(study, keys[at[name]]) for name in (study.arms.column, *study.outcome.keys))
        missing += n if lacking else n - sums.get("n", n)
        if arm is not None and not lacking:
            arms[arm] += sums.get("n", n)
    for value, name, n in zip((study.arms.treated, study.arms.control), ("treated", "control"), arms, strict=True):
        if not n:
            seen = sorted({str(keys[at[study.arms.column]]) for keys in groups.keys})[:5]
            raise NothingToCompareError(
                f"{where}: no row has {study.arms.column} = {value!r} ({name}); it holds {', '.join(seen)}"
            )
    if missing > study.missing.at_most * sum(groups.rows):
        raise StudyError(
            f"{where}: {missing / sum(groups.rows):.0%} of the rows lack arm or outcome; at most "
            f"{study.missing.at_most:.0%} may"
        )


def summary_of(study: Study, rows: list[Group], names: tuple[str, ...]) -> Summary:
    """These rows alone, boiled down; their arms may be empty, and nothing but counts and sums is to be asked then."""
    at = {name: names.index(name) for name in names}
    return _MAKERS[study.outcome.kind](study, _arms(study, rows, at), at, "")


def _summary(study: Study, rows: list[Group], at: dict[str, int], where: str) -> Summary | None:
    arms = _arms(study, rows, at)
    # Whether an arm is empty is what noise shall hide.
    return _MAKERS[study.outcome.kind](study, arms, at, where) if all(arms) or study.noise else None


def _arms(study: Study, rows: list[Group], at: dict[str, int]) -> tuple[list[Group], list[Group]]:
    arms: tuple[list[Group], list[Group]] = ([], [])
    for group in rows:
        arm = _arm(study, group[0][at[study.arms.column]])
        lacking = any(_is_missing(study, group[0][at[name]]) for name in study.outcome.keys)
        if arm is not None and not lacking and group[2].get("n", 1):
            arms[arm].append(group)
    return arms


def _cells(study: Study, arms: tuple[list[Group], list[Group]], at: dict[str, int], where: str) -> Summary:  # noqa: ARG001
    outcome = study.outcome
    assert isinstance(outcome, Binary)
    counts = [0, 0, 0, 0]
    for arm, groups in enumerate(arms):
        for keys, n, _ in groups:
            counts[2 * arm + (keys[at[outcome.column]] != outcome.event)] += n
    return Cells(*counts)


def _means(study: Study, arms: tuple[list[Group], list[Group]], at: dict[str, int], where: str) -> Summary:  # noqa: ARG001
    both = []
    for groups in arms:
        moments = Moments()
        for _, _, sums in groups:
            if not isfinite(sums["absolute"]):
                raise StudyError(f"{where}: {study.outcome.column!r} holds an infinite value")
            squares = (sums["variance"] or 0.0) * (sums["n"] - 1)
            moments += Moments(sums["n"], sums["mean"], max(squares, 0.0), sums["absolute"], sums["largest"])
        both.append(moments)
    return Means(*both)


def _rates(study: Study, arms: tuple[list[Group], list[Group]], at: dict[str, int], where: str) -> Summary:  # noqa: ARG001
    both = []
    for groups in arms:
        events = Events()
        for _, _, sums in groups:
            if sums["broken"] or sums["least"] < 0 or sums["shortest"] < 0 or not isfinite(sums["largest"]):
                raise StudyError(f"{where}: {study.outcome.column!r} must hold whole counts, exposures none below 0")
            events += Events(sums["n"], sums["struck"], round(sums["events"]), sums["exposure"], round(sums["largest"]))
        both.append(events)
    return Rates(*both)


def _survival(study: Study, arms: tuple[list[Group], list[Group]], at: dict[str, int], where: str) -> Summary:
    outcome = study.outcome
    assert isinstance(outcome, TimeToEvent)
    ends = []
    for arm, groups in enumerate(arms):
        for keys, n, _ in groups:
            time = keys[at[outcome.duration]]
            if isinstance(time, str | date) or time is None or not 0 <= time < float("inf"):
                raise StudyError(f"{where}: {outcome.duration!r} must hold numbers from 0 on; it holds {time!r}")
            counts = [0, 0, 0, 0]
            counts[2 * arm + (keys[at[outcome.column]] != outcome.event)] = n
            ends.append(AtTime(float(time), *counts))
    return Survival.of(tuple(ends))


_MAKERS: dict[str, Callable[[Study, tuple[list[Group], list[Group]], dict[str, int], str], Summary]] = {
    "binary": _cells,
    "continuous": _means,
    "count": _rates,
    "time_to_event": _survival,
}
