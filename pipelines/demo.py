"""The main job: thirteen BCG trials become packets, travel, accumulate and turn into the published answer.

`SITE_STEPS` and then `STEPS` are the whole loop. Each step reads what the one before it left in the workspace and
leaves its own result there, so any of them can be run again: the Dagster assets are these same functions.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import ledger
from pipelines.accumulate import Accumulated, accumulate
from pipelines.answers import answers_from, report_from
from pipelines.counting import rows_of_site
from pipelines.distill import Release, distill, signed
from pipelines.elections.record import elect
from pipelines.engine import Engine, readable, spark_is_here
from pipelines.files import replacing, write_parquet
from pipelines.forest import Problem, forest_plot, problems, rows_of, save
from pipelines.inspection import refuse
from pipelines.kept import kept_answers
from pipelines.monthly import drift_plot, monthly_answer
from pipelines.sources import BCG, Source
from pipelines.study import Study, load
from pipelines.study_mistakes import NothingToCompareError
from pipelines.synthesize import answers
from qis_connectors import address
from qis_connectors.client import Receipt, RouterClient
from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

SPARK_FROM_ROWS = 50_000
"""With ``auto`` sites of this size use Spark where it can run. It pays from far more rows; here it shows on the two
largest trials that both engines give the same packet."""


@dataclass(frozen=True)
class Loop:
    """One run of the loop: the study's folder, the router its sites know, the engine they are asked to use, and the
    bundle they are known by at a network's router.

    A study of many months has rows and packets for each site and month; elsewhere the month is empty.
    """

    root: Path
    router: str
    engine: Literal["auto", "polars", "spark"] = "auto"
    source: Source = BCG
    identity: Path | str | None = None

    def rows(self, site: str, month: str = "") -> Path:
        return self.root / self.study().of(month).pattern.replace("{site}", site)

    def staged(self, site: str, month: str = "") -> Path:
        return self.root / "sites" / site / month / "packets.parquet"

    @property
    def table(self) -> Path:
        return self.root / "packets"

    def answer(self, name: str) -> Path:
        return self.root / "answers" / f"{name}.parquet"

    def study(self) -> Study:
        """The study, from the workspace's own copy, which is there to be read and changed."""
        path = self.root / "study.yaml"
        if self.source.first and not path.exists():
            with replacing(path) as draft:
                shutil.copyfile(self.source.first, draft)
        return load(path)

    def problem(self) -> Problem:
        """What the study's packets are pooled by."""
        study = self.study()
        return address.of(study.domain, study.problem_type), study.effect, study.intervention.type

    def engine_of(self, rows: Path) -> Engine:
        if self.engine != "auto":
            return self.engine
        large = rows.suffix == ".parquet" and pq.read_metadata(rows).num_rows >= SPARK_FROM_ROWS
        return "spark" if large and spark_is_here() is None else "polars"


def site_rows(loop: Loop, site: str, month: str = "") -> int:
    """The site's rows, which stay there. Those of the thirteen trials are rebuilt from their published counts."""
    rows = loop.rows(site, month)
    if loop.source.write_rows:
        return loop.source.write_rows(site, month, rows)
    with readable(rows, "polars"):
        return rows_of_site(loop.study().of(month), site, rows)


def staged_packets(loop: Loop, site: str, month: str = "") -> Release:
    """The site's outcome packets, distilled from its rows, validated and gated, still at the site."""
    rows = loop.rows(site, month)
    engine = loop.engine_of(rows)
    try:
        release = distill(loop.study().of(month), site, rows, engine)
    except NothingToCompareError as error:
        if not month:
            raise
        # A quiet month is no mistake.
        nothing, rows_there = OUTCOME_PACKET_SCHEMA.empty_table(), site_rows(loop, site, month)
        release = Release(site, engine, nothing, rows_there, (("", str(error)),))
    ledger.record(rows, release.entries)
    write_parquet(release.packets, loop.staged(site, month))
    return release


def deposited_packets(loop: Loop, site: str, month: str = "") -> Receipt:
    """The site's packets, acknowledged by the router: durably there, once however often they are sent.

    They are looked at once more: rows, study or packets may have changed since they were staged.
    """
    packets, study = pq.read_table(loop.staged(site, month)), loop.study()
    refuse(study.of(month), site, loop.rows(site, month), packets)
    packets = signed(study, loop.root, packets)
    with RouterClient(loop.router, loop.identity) as client:
        return client.deposit(packets)


def packet_table(loop: Loop) -> Accumulated:
    """The packets of all sites at the study's address, pulled from the router and appended to the Delta table."""
    return accumulate(loop.router, loop.table, loop.problem()[0], identity=loop.identity)


def answer(loop: Loop, name: str) -> pa.Table:
    """One answer: a file of sql/ run over the packet table; only addresses with new packets are computed again."""
    return kept_answers(loop.table, loop.answer(name).parent, [name])[name]


def monthly(loop: Loop) -> pa.Table:
    """Each month's packets by themselves (answers/monthly.parquet, drift.svg)."""
    rows = monthly_answer(loop.table, loop.problem())
    if not rows.num_rows:
        raise QisError("no site sent a packet of this study, so no month can be told from another")
    write_parquet(rows, loop.answer("monthly"))
    save(drift_plot(rows), loop.root / "drift.svg")
    return rows


def elections(loop: Loop) -> pa.Table:
    """Which network foresees the study's packets best (packets-elections/)."""
    return elect(loop.table)["election"]


def report(loop: Loop) -> Path:
    """The report on the packet table (report.html, plots/), and the study's forest plot (forest.svg, forest.png)."""
    drawn = answers_from(loop.table, ["effects", "pooled", "robust"])
    if loop.problem() not in problems(drawn["effects"]):
        raise QisError("no site sent a packet of this study, so there is nothing to report")
    figure = forest_plot(*(rows_of(rows, loop.problem()) for rows in drawn.values()))
    for suffix in (".svg", ".png"):
        save(figure, loop.root / f"forest{suffix}")
    return report_from(loop.table, loop.root / "report.html", loop.root / "plots")


SITE_STEPS: tuple[Callable[[Loop, str], object], ...] = (site_rows, staged_packets, deposited_packets)
STEPS: dict[str, Callable[[Loop], object]] = {
    "packet_table": packet_table,
    **{name: partial(answer, name=name) for name in answers()},
    "elections": elections,
    "report": report,
}


def run(loop: Loop, doing: Callable[[str, float], None]) -> None:
    """Every step for every site, then the steps on what the sites sent.

    `doing` is told what comes next and which share of the steps (0..1) is behind.
    """
    sites = loop.source.sites
    total = len(sites) * len(SITE_STEPS) + len(STEPS)
    for n, (site, site_step) in enumerate(product(sites, SITE_STEPS)):
        doing(f"{site}: {site_step.__name__}", n / total)
        site_step(loop, site)
    for n, (name, step) in enumerate(STEPS.items(), total - len(STEPS)):
        doing(name, n / total)
        step(loop)
    doing("done", 1)
