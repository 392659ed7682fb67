"""What runs by itself, once switched on under Automation on the page; everything here may run twice or come late."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg

from dagster_project.partitions import before, part
from dagster_project.resources import Workspace
from pipelines.sources import Source, home, sources
from qis_connectors.client import RouterClient
from qis_connectors.delta import PacketTable

MONTHLY, NIGHTLY_SYNTHESIS, NIGHTLY_UPKEEP = "0 3 1 * *", "0 4 * * *", "0 5 * * *"
EVERY_SECONDS = 30
KEPT = timedelta(days=30)
"""How long a packet table can be asked for what it held then."""
ONE_WRITER = {"qis/writes": "packet table"}
"""The tag of runs that write packet tables: dagster.yaml lets one at a time."""


def monthly_distill(source: Source, job: str) -> dg.ScheduleDefinition:
    """Every site of a study, on the first of the month: the month before, where the study has months."""

    @dg.schedule(job_name=job, name=f"{source.name}_distill", cron_schedule=MONTHLY)
    def schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        month = before(context.scheduled_execution_time.date()) if source.months else ""
        if source.first and month > max(source.months, default=""):
            return dg.SkipReason(f"{source.name} ended with {source.months[-1]}")
        return [
            dg.RunRequest(f"{site} {context.scheduled_execution_time:%Y-%m}", partition_key=part(site, month))
            for site in source.sites
        ]

    return schedule


def nightly_synthesis(source: Source, job: str) -> dg.ScheduleDefinition:
    """The packet table and all answers, whether or not the sensor has seen to it."""
    return dg.ScheduleDefinition(name=f"{source.name}_synthesis", job_name=job, cron_schedule=NIGHTLY_SYNTHESIS)


def new_packets(source: Source, job: str) -> dg.SensorDefinition:
    """Starts the synthesis when the router has packets of the study that it had not when this looked last."""

    @dg.sensor(job_name=job, name=f"{source.name}_new_packets", minimum_interval_seconds=EVERY_SECONDS)
    def sensor(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult | dg.SkipReason:
        url = workspace.running_router()
        if url is None:
            return dg.SkipReason("no router runs")
        with workspace.loop(source) as loop, RouterClient(url, loop.identity) as client:
            held = sum(client.addresses(loop.problem()[0])["packets"].to_pylist())
            # The store's identity, too: another router may hold as many.
            seen = f"{client.store}:{held}"
        if not held or seen == context.cursor:
            return dg.SkipReason(f"{held} packets, nothing new")
        return dg.SensorResult([dg.RunRequest(seen)], cursor=seen)

    return sensor


@dg.op(retry_policy=dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL))
def compact_and_vacuum(context: dg.OpExecutionContext, workspace: Workspace) -> None:
    """The packet tables of all studies: small files become large ones, and files nobody asks for any more go."""
    for table in _packet_tables(Path(workspace.root)):
        rewritten, gone = PacketTable(table).tidy(KEPT)
        context.log.info("%s: %d files rewritten, %d deleted", table, rewritten, gone)


@dg.job(tags=ONE_WRITER)
def upkeep() -> None:
    """Compaction and vacuum of the packet tables."""
    compact_and_vacuum()


nightly_upkeep = dg.ScheduleDefinition(name="upkeep", job=upkeep, cron_schedule=NIGHTLY_UPKEEP)


def _packet_tables(root: Path) -> Iterator[Path]:
    for source in sources(root):
        table = home(root, source.name) / "packets"
        if table.exists():
            yield table
