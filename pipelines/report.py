"""The report: one HTML file that opens offline, with what the packets say in words, plots and tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import exp, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.drawing import PALETTE, inline_svg, save
from pipelines.files import replacing
from pipelines.forest import Problem, forest_plot, problems, rows_of
from pipelines.funnel import funnel_plot
from pipelines.row_plots import cumulative_plot, leave_one_out_plot
from pipelines.scale import UNKNOWN, Scale, printable
from pipelines.shares_plot import shares_plot
from pipelines.synthesize import SQL_FOLDER, plan
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, SIZE_ROWS, wire_bytes

if TYPE_CHECKING:  # see pipelines.drawing
    from matplotlib.figure import Figure

REPORTED = (
    *("effects", "pooled", "leave_one_out", "robust", "disagreement", "tau2_interval", "cumulative", "comparisons"),
)
"""The files of sql/ that the report shows."""
MAX_LEFT_OUT = 80
FEW = 5
"""Pooled packets below which the report says that the variance between sites is barely known."""

Row = dict[str, Any]


def write_report(
    answers: Mapping[str, pa.Table],
    packets: pa.Table,
    out: Path,
    *,
    table_version: int | None = None,
    plots: Path | None = None,
    elections: Mapping[str, pa.Table] | None = None,
) -> Path:
    """Write the report on `answers` to `out`; the same input gives the same bytes. Returns `out`.

    `answers`: the tables of the files REPORTED of sql/, under these names; `packets`: what they were computed from
    (OUTCOME_PACKET_SCHEMA, any column order, others ignored); `table_version`: of the Delta table that holds the
    packets; `plots`: a folder for every plot as PLOT.svg and PLOT.png, or sN-PLOT where there are several problems;
    `elections`: the answers `election` and `shares` of sql/elections, where an election was held.
    OSError where one of them cannot be written.
    """
    shown = {**answers, **(elections or {})}
    sections = [
        Section.of({name: rows_of(table, problem) for name, table in shown.items()}, problem, f"s{number}")
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
    if plots is not None:
        for section in sections:
            prefix = "" if len(sections) == 1 else f"{section.anchor}-"
            section.save_figures(plots, prefix)
    return out


@dataclass(frozen=True)
class Section:
    """All the report shows of one problem."""

    anchor: str
    problem: Problem
    scale: Scale
    figures: dict[str, Figure]
    """By name: forest; funnel, leave_one_out and cumulative where several packets are pooled; shares of an election."""
    sites: int
    packets: int
    records: int | None
    """Behind the packets; None where a site sent several, which may be about the same records."""
    without_stderr: int
    pooled: dict[str, Row]
    """By method."""
    robust: Row
    disagreement: dict[str, Row]
    """By robust answer: how far it lies from REML's."""
    spread: Row
    """REML's row of tau2_interval; empty for a single packet."""
    comparisons: int
    left_out: list[Row]
    """Leave-one-out by REML, the most influential packet first, with `shift` in standard errors."""
    elections: dict[str, list[Row]]
    """By design, in_time or left_out: the networks, the best first; none where no election was held."""
    last_round: Row
    """Of the newest round of the shares; empty where there is none."""

    @classmethod
    def of(cls, answers: Mapping[str, pa.Table], problem: Problem, anchor: str) -> Section:
        effects = answers["effects"]
        pooled = {row["method"]: row for row in answers["pooled"].to_pylist()}
        sites = len(set(effects["node_id"].to_pylist()))
        once = sites == effects.num_rows and effects["ni"].null_count == 0
        return cls(
            anchor=anchor,
            problem=problem,
            scale=Scale.of(effects),
            figures=_figures(answers, pooled.get("REML")),
            sites=sites,
            packets=effects.num_rows,
            records=sum(effects["ni"].to_pylist()) if once else None,
            without_stderr=effects["vi"].null_count,
            pooled=pooled,
            robust=next(iter(answers["robust"].to_pylist()), {}),
            disagreement={row["twin"]: row for row in answers["disagreement"].to_pylist()},
            spread=next((row for row in answers["tau2_interval"].to_pylist() if row["method"] == "REML"), {}),
            comparisons=answers["comparisons"]["comparisons"][0].as_py(),
            left_out=_by_influence(answers["leave_one_out"].to_pylist(), pooled.get("REML")),
            elections=_by_design(answers["election"].to_pylist() if "election" in answers else []),
            last_round=max(
                answers["shares"].to_pylist() if "shares" in answers else [], key=lambda row: row["round"], default={}
            ),
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
        return self.disagreement["median"]["distance"] if "median" in self.disagreement else None

    def save_figures(self, folder: Path, prefix: str) -> None:
        """Every plot as an SVG and a PNG file."""
        for name, figure in self.figures.items():
            for suffix in (".svg", ".png"):
                save(figure, folder / f"{prefix}{name}{suffix}")

    def svg(self, name: str, label: str) -> Markup:
        """The plot as an element of the page."""
        return Markup(inline_svg(self.figures[name], f"{self.anchor}-{name}", label))

    @property
    def cautions(self) -> list[str]:
        """What to know before believing the pooled answer."""
        found = []
        if self.disagreement.get("median", {}).get("disagrees"):
            found.append("The pooled answer and the median disagree: a few packets may carry it. Look at them first.")
        elif parted := sum(row["disagrees"] for row in self.disagreement.values()):
            found.append(f"{parted} of the robust answers below lie over 3 standard errors from the pooled one.")
        if self.reml and self.without_stderr:
            found.append(f"Packets without a standard error, in the robust answers only: {self.without_stderr:,}.")
        if self.sites < self.packets:
            found.append("Some sites sent several packets. They are pooled as if they were independent.")
        if self.reml and self.reml["k"] == 1:
            found.append("One packet says nothing about how much sites differ.")
        elif self.reml and self.reml["k"] < FEW:
            found.append("With so few packets the variance between sites is barely known, and every interval with it.")
        return found


def _figures(answers: Mapping[str, pa.Table], reml: Row | None) -> dict[str, Figure]:
    scale = Scale.of(answers["effects"])
    found = {"forest": forest_plot(answers["effects"], answers["pooled"], answers["robust"])}
    if reml is not None and reml["k"] > 1:
        found["funnel"] = funnel_plot(scale, answers["effects"], reml)
        found["leave_one_out"] = leave_one_out_plot(scale, answers["leave_one_out"], reml)
        found["cumulative"] = cumulative_plot(scale, answers["cumulative"], reml)
    if "shares" in answers and answers["shares"].num_rows:
        found["shares"] = shares_plot(answers["shares"])
    return found


def _by_design(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["design"], []).append(row)
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
    used = sorted(statement.name for statement in plan(*answers))
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
