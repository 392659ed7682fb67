"""A site's rows -> outcome packets. The engine counts, once for all engines; everything after is plain arithmetic,
so that a packet has the same bits, and the same packet_id, wherever it was counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import ledger
from pipelines.cohorts import Cohort, cohorts
from pipelines.commitment import commit, salt_of
from pipelines.counting import Groups, Value, count
from pipelines.engine import Engine
from pipelines.linter import Finding, lint
from pipelines.metric_log import log_packets
from pipelines.noise import hidden
from pipelines.privacy import dominated, too_small
from pipelines.publishing import POINTS
from pipelines.rollup import roll_up
from pipelines.study import AnyStudy, Study
from pipelines.study_mistakes import NothingToCompareError
from pipelines.values import as_json, constant, milliseconds
from qis_connectors.outcome import confidence, deciles
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, complete, wire_bytes
from qis_connectors.signing import sign

ARCHITECTURE = "two_arm_comparison"


@dataclass(frozen=True)
class Release:
    """What one site sends: its packets (OUTCOME_PACKET_SCHEMA) and what the linter found of each; and what stays: how
    many rows, which cohorts and why."""

    site: str
    engine: Engine
    packets: pa.Table
    rows: int
    kept_back: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding | None, ...] = ()
    entries: tuple[ledger.Entry, ...] = ()

    @property
    def withheld(self) -> str | None:
        """What does not leave and why, in one line; None if everything does."""
        return "; ".join(f"{label}: {why}" if label else why for label, why in self.kept_back) or None

    def told(self) -> dict[str, str | int]:
        """What a site's data engineer is shown of it: counts, and why something does not leave."""
        told: dict[str, str | int] = {
            "packets": self.packets.num_rows,
            "bytes on the wire": round(sum(wire_bytes(self.packets.to_pydict()))),
            "rows counted": self.rows,
            "counted by": self.engine,
        }
        return told | ({"withheld": self.withheld} if self.withheld else {})


def releases(study: AnyStudy, folder: Path, engine: Engine = "polars") -> Iterator[tuple[Path, Release]]:
    """The packets of every site of a study whose file is in `folder`, and the rows they are of."""
    for site, rows in study.row_files(folder).items():
        for name, groups in sorted(count(study, rows, engine).items(), key=lambda one: str(one[0])):
            yield rows, release(study, site if name is None else name, rows, engine, groups)


def distill(study: AnyStudy, site: str, rows: Path, engine: Engine = "polars") -> Release:
    """The packets of one site.

    Nothing is written but the site's salt: who sends them records `entries` in the ledger first. Raises StudyError
    where the table has not the study's columns or values, and EngineError, SaltError or LedgerError.
    """
    found = count(study, rows, engine)
    groups = found.get(site if study.site_column else None)
    if groups is None:
        raise NothingToCompareError(f"{rows}: no row has {study.site_column} = {site!r}")
    return release(study, site, rows, engine, groups)


def signed(study: AnyStudy, folder: Path, packets: pa.Table) -> pa.Table:
    """The packets as they leave: signed, where the study, whose file is in `folder`, names a key."""
    return packets if study.key is None else sign(packets, folder / study.key)


def release(study: AnyStudy, site: str, rows: Path, engine: Engine, groups: Groups) -> Release:
    """The packets of one site whose rows are counted; beside `rows`, which errors name, lie its salt and its ledger.

    Raises as `distill` does.
    """
    if not isinstance(study, Study):
        fields = log_packets(study, site, rows, groups)
        return Release(site, engine, _table(fields), sum(groups.rows), (), (None,) * len(fields))
    where = str(rows)

    def reason(one: Cohort) -> str | None:
        return _reason(one, study) or dominated(study, one, groups.names)

    found, released, costs = cohorts(study, groups, where), ledger.read(rows), list[ledger.Entry]()
    if study.noise:
        if overdrawn := ledger.overdrawn(site, released, study.noise):
            return Release(site, engine, _table([]), sum(groups.rows), (("", overdrawn),))
        found, epsilon = hidden(found, study.noise)
        costs = [ledger.spending(site, epsilon)]
    may, small = roll_up(study, found, groups.names, lambda one: reason(one) is not None)
    kept_back, sent = [(_label(one, study), str(reason(one))) for one in small], []
    for cohort in may:
        entry = ledger.entry(study, site, cohort)
        assert cohort.summary is not None
        finding = lint(cohort.summary, study, ledger.of_the_same(entry, released, study))
        refused = finding.refused or ledger.too_near(entry, released, study.gate)
        if refused:
            kept_back.append((_label(cohort, study), refused))
        else:
            sent.append((cohort, finding, entry))
    sign = 1 if study.outcome.better == "higher" else -1
    ranks = deciles([sign * finding.published.effect for _, finding, _ in sent]) if sent else []
    packets = _table(
        [
            _packet(study, site, rows, groups, cohort, finding, rank)
            for (cohort, finding, _), rank in zip(sent, ranks, strict=True)
        ]
    )
    identified = tuple(
        ledger.told(entry, finding, study.effect, packet_id)
        for (_, finding, entry), packet_id in zip(sent, packets["packet_id"].to_pylist(), strict=True)
    )
    findings = tuple(finding for _, finding, _ in sent)
    return Release(site, engine, packets, sum(groups.rows), tuple(kept_back), findings, (*costs, *identified))


def _table(fields: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_batches([complete(pa.RecordBatch.from_pylist(fields, schema=OUTCOME_PACKET_SCHEMA))])


def _reason(cohort: Cohort, study: Study) -> str | None:
    """Why a cohort may not leave."""
    if cohort.summary is None:
        return "an arm is empty"
    numbers = 4 + (POINTS * (1 + study.likelihood.gradients) if study.likelihood else 0)
    return cohort.summary.undefined() or too_small(cohort.summary, study.gate, numbers)


def _names(cohort: Cohort, study: Study) -> dict[str, Value]:
    """What tells the cohort from the site's others: its strata, and its place as far as it was not merged away."""
    place = dict(zip(reversed(study.rollup), cohort.place, strict=False))
    merged = {"merged": study.rollup[-len(cohort.place) - 1]} if len(cohort.place) < len(study.rollup) else {}
    return {**dict(zip(study.strata, cohort.stratum, strict=True)), **place, **merged}


def _label(cohort: Cohort, study: Study) -> str:
    named = {**_names(cohort, study), **({str(study.time): phase(study, cohort.period)} if study.period else {})}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def phase(study: Study, period: Value) -> str:
    if study.period is None:
        return study.training_phase
    if not isinstance(period, date):
        return str(period)
    quarter = f"{period.year:04}-Q{(period.month + 2) // 3}"
    return {"year": f"{period.year:04}", "quarter": quarter}.get(study.period) or period.strftime(
        "%Y-%m" if study.period == "month" else "%Y-%m-%d"
    )


def _packet(
    study: Study, site: str, rows: Path, groups: Groups, cohort: Cohort, finding: Finding, rank: int
) -> dict[str, Any]:
    numbers, keys = finding.published, [key for key, _, _ in cohort.rows]
    time = constant(keys, groups.names, study.time, rows) if isinstance(study.time, str) else study.time
    context = {name: constant(keys, groups.names, name, rows) for name in study.context} | _names(cohort, study)
    grid = study.likelihood
    if grid and (grid.start, grid.end) != (-3, 3):
        context |= {"likelihood_from": grid.start, "likelihood_to": grid.end}
    if grid and grid.gradients:
        context |= {"likelihood_gradients": True}
    return {
        "node_id": site,
        "timestamp_utc": milliseconds(time, study.time, rows),
        "domain": study.domain,
        "problem_type": study.problem_type,
        "model_architecture": ARCHITECTURE,
        "training_phase": phase(study, cohort.period),
        "metric_name": study.effect,
        "metric_delta": numbers.effect,
        "metric_value": numbers.level,
        "confidence": confidence(numbers.effect, numbers.stderr),
        "intervention_type": study.intervention.type,
        "intervention_params": as_json(study.intervention.params, "intervention.params"),
        "outcome_decile": rank,
        "sample_count": numbers.records,
        "raw_data_hash": commit([(*key, n, *_sums(sums)) for key, n, sums in cohort.rows], salt_of(rows)),
        "metric_stderr": numbers.stderr,
        "context": as_json(context, f"{rows}: context"),
        "likelihood": None if numbers.likelihood is None else list(numbers.likelihood),
    }


def _sums(sums: dict[str, Any]) -> tuple[str, ...]:
    """Sums to nine digits: engines add doubles in different orders, and the commitment must not tell them apart."""
    return tuple(f"{value:.9g}" if value is not None else "" for _, value in sorted(sums.items()))
