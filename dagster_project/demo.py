"""`make demo`: the loop end to end, as runs of the very assets that `make ui` shows: one a site, then one for all."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dagster as dg
from rich.console import Console
from rich.progress import Progress, TaskID

from dagster_project.assets.sites import SITES
from dagster_project.definitions import defs, network_job, site_job
from dagster_project.instance import use_our_home
from dagster_project.resources import Workspace
from pipelines.demo import SITE_STEPS, STEPS, Loop
from pipelines.demo_summary import print_summary
from pipelines.engine import spark_session
from qis_connectors.errors import QisError

# Dagster's own log is on the page; the terminal has the progress bar and what went wrong.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def materialise(workspace: Workspace, console: Console) -> Loop:
    """Every asset for every site, in runs on the instance in DAGSTER_HOME; what a site withholds is printed.

    Raises QisError, beginning with the site or step it is about, where one fails; what came before it stands.
    """
    sites = SITES.get_partition_keys()
    with (
        dg.DagsterInstance.get() as instance,
        workspace.loop_with_router() as loop,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=len(sites) * len(SITE_STEPS) + len(STEPS))
        resources = {"workspace": Workspace(root=str(loop.root), router=loop.router, engine=loop.engine)}
        for site in [*sites, None]:
            run_id = str(uuid4())
            instance.add_event_listener(run_id, _teller(progress, task, site))
            job = defs.resolve_job_def((site_job if site else network_job).name)
            with _named(site or "all sites"):
                run = job.execute_in_process(QUIET, instance, site, run_id=run_id, resources=resources)
            for event in run.get_asset_materialization_events():
                if reason := event.materialization.metadata.get("withheld"):
                    console.print(f"{site} sends nothing: {reason.value}", style="yellow")
    return loop


def _teller(progress: Progress, task: TaskID, site: str | None) -> Callable[[dg.EventLogEntry], None]:
    """Moves the bar with the steps of a run."""

    def tell(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event and event.is_step_start and event.step_key:
            progress.update(task, description=" ".join(filter(None, [site, event.step_key.partition("__")[2]])))
        elif event and event.is_step_success:
            progress.advance(task)

    return tell


@contextmanager
def _named(who: str) -> Iterator[None]:
    try:
        yield
    except QisError as error:
        raise QisError(f"{who}: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("qis-demo"), help="the folder that keeps everything")
    parser.add_argument("--engine", choices=["auto", "polars", "spark"], default=os.environ.get("QIS_ENGINE", "auto"))
    given = parser.parse_args()
    use_our_home()
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    workspace = Workspace(root=str(given.out), router=os.environ.get("QIS_ROUTER", ""), engine=given.engine)
    try:
        loop = materialise(workspace, notices)
        print_summary(loop, Console(soft_wrap=True))
    except QisError as error:
        notices.print(f"demo: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if spark_session.cache_info().currsize:
            spark_session().stop()


if __name__ == "__main__":
    main()
