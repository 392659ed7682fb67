"""The report: one HTML file that opens offline, with what the packets say in words, plots and tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import exp, isfinite, pi, sqrt
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.drawing import PALETTE, inline_svg
from pipelines.files import replacing
from pipelines.forest import Problem, forest_plot, problems, rows_of
from pipelines.scale import UNKNOWN, Scale, printable
from pipelines.synthesize import SQL_FOLDER, plan
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, SIZE_ROWS, wire_bytes

MAX_LEFT_OUT = 80
DISAGREEMENT = 3.0
"""Standard errors between the pooled answer and the median from which the report warns."""
FEW = 5
"""Pooled packets below which the report says that the variance between sites is barely known."""

Row = dict[str, Any]


def write_report(
    answers: Mapping[str, pa.Table], packets: pa.Table, out: Path, *, table_version: int | None = None
) -> Path:
    """Write the report on `answers` to `out`; the same input gives the same bytes. Returns `out`.

    `answers`: the tables of sql/effects.sql, pooled.sql, leave_one_out.sql and robust.sql, under these names;
    `packets`: what they were computed from (OUTCOME_PACKET_SCHEMA, any column order, others ignored);
    `table_version`: of the Delta table that holds the packets. OSError where `out` cannot be written.
    """
    sections = [
        Section.of({name: rows_of(table, problem) for name, table in answers.items()}, problem, f"s{number}")
        for number, problem in enumerate(problems(answers["effects"]), 1)
    ]
    template = _environment().get_template("report.html")
    page = template.render(
        sections=sections,
        provenance=_provenance(answers, packets, table_version),
        palette=PALETTE,
        max_left_out=MAX_LEFT_OUT,
    )
    with replacing(out) as draft:
        draft.write_text(page, encoding="utf-8")
    return out


@dataclass(frozen=True)
class Section:
    """All the report shows of one problem."""

    anchor: str
    problem: Problem
    scale: Scale
    forest: Markup
    sites: int
    packets: int
    records: int | None
    """Behind the packets; None where a site sent several, which may be about the same records."""
    without_stderr: int
    pooled: dict[str, Row]
    """By method."""
    robust: Row
    left_out: list[Row]
    """Leave-one-out by REML, the most influential packet first, with `shift` in standard errors."""

    @classmethod
    def of(cls, answers: Mapping[str, pa.Table], problem: Problem, anchor: str) -> Section:
        effects = answers["effects"]
        pooled = {row["method"]: row for row in answers["pooled"].to_pylist()}
        sites = len(set(effects["node_id"].to_pylist()))
        once = sites == effects.num_rows and effects["ni"].null_count == 0
        figure = forest_plot(effects, answers["pooled"], answers["robust"])
        return cls(
            anchor=anchor,
            problem=problem,
            scale=Scale.of(effects),
            forest=Markup(inline_svg(figure, anchor, f"Forest plot of {effects.num_rows} packets")),
            sites=sites,
            packets=effects.num_rows,
            records=sum(effects["ni"].to_pylist()) if once else None,
            without_stderr=effects["vi"].null_count,
            pooled=pooled,
            robust=next(iter(answers["robust"].to_pylist()), {}),
            left_out=_by_influence(answers["leave_one_out"].to_pylist(), pooled.get("REML")),
        )

    @property
    def reml(self) -> Row | None:
        return self.pooled.get("REML")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval the words rest on: Hartung-Knapp's, or the normal one of a single packet."""
        if self.reml is None:
            return None
        wide = self.reml["hk_ci_lb"] is not None
        return (self.reml["hk_ci_lb"], self.reml["hk_ci_ub"]) if wide else (self.reml["ci_lb"], self.reml["ci_ub"])

    @property
    def distance(self) -> float | None:
        """Standard errors between the REML answer and the median; None where either is missing."""
        if self.reml is None or self.robust.get("median") is None:
            return None
        return float(abs(self.reml["estimate"] - self.robust["median"]) / self.reml["se"])

    @property
    def disagrees(self) -> bool:
        """Whether REML and the median lie DISAGREEMENT standard errors apart, by REML's or by the median's own.

        One wild site blows REML's standard error up until everything agrees with it; the median's it cannot move.
        """
        if self.reml is None or self.distance is None:
            return False
        # Asymptotic standard error of a median of normal effects: sqrt(pi / 2) sd / sqrt(k); the MAD estimates the sd.
        own = sqrt(pi / 2 / self.robust["k"]) * self.robust["mad"]
        return self.distance > DISAGREEMENT or self.distance * self.reml["se"] > DISAGREEMENT * own > 0

    @property
    def cautions(self) -> list[str]:
        """What to know before believing the pooled answer."""
        found = []
        if self.disagrees:
            found.append("The pooled answer and the median disagree: a few packets may carry it. Look at them first.")
        if self.reml and self.without_stderr:
            found.append(f"Packets without a standard error, in the robust answers only: {self.without_stderr:,}.")
        if self.sites < self.packets:
            found.append("Some sites sent several packets. They are pooled as if they were independent.")
        if self.reml and self.reml["k"] == 1:
            found.append("One packet says nothing about how much sites differ.")
        elif self.reml and self.reml["k"] < FEW:
            found.append("With so few packets the variance between sites is barely known, and every interval with it.")
        return found


def _by_influence(rows: Iterable[Row], reml: Row | None) -> list[Row]:
    """REML's rows, each with `shift`: how far leaving this packet out moves the answer, in its standard errors."""
    if reml is None:
        return []
    found = [
        row | {"shift": (row["estimate"] - reml["estimate"]) / reml["se"]} for row in rows if row["method"] == "REML"
    ]
    return sorted(found, key=lambda row: (-abs(row["shift"]), row["left_out"]))


def _provenance(answers: Mapping[str, pa.Table], packets: pa.Table, table_version: int | None) -> Row:
    sizes = wire_bytes(packets.select(OUTCOME_PACKET_SCHEMA.names).to_pydict())
    used = sorted({statement.name for name in answers for statement in plan(name)})
    digests = {f"{name}.sql": hashlib.sha256((SQL_FOLDER / f"{name}.sql").read_bytes()).hexdigest() for name in used}
    return {
        "packets": packets.num_rows,
        "sites": len(set(packets["node_id"].to_pylist())),
        "bytes": sum(sizes),
        "bytes_each": sum(sizes) / len(sizes) if sizes else None,
        "batch": SIZE_ROWS,
        "sql": digests,
        "version": version("qis-connectors"),
        "table_version": table_version,
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "name": printable, "exp": exp}
    return environment


def _number(value: float | None, digits: int = 4) -> str:
    """To `digits` decimals; three significant digits where those would show nothing; UNKNOWN for none."""
    if value is None or not isfinite(value):
        return UNKNOWN
    if value and not 10.0**-digits <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:,.{digits}f}"
