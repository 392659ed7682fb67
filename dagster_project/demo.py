"""`make demo`: the loop end to end, as runs of the very assets that `make ui` shows: one a site, then one for all."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dagster as dg
from rich.console import Console
from rich.progress import Progress, TaskID

from dagster_project.definitions import defs, network_job, site_job
from dagster_project.instance import use_our_home
from dagster_project.resources import Workspace
from pipelines.demo import Loop
from pipelines.demo_summary import print_summary
from pipelines.sources import BCG
from qis_connectors.errors import QisError

# Dagster's own log is on the page; the terminal has the progress bar and what went wrong.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def materialise(workspace: Workspace, console: Console, interrupted: Callable[[], bool]) -> Loop:
    """Every asset for every site, in runs on the instance in DAGSTER_HOME; what a site withholds is printed.

    Raises QisError where a step fails, in one line that begins with the site; what came before it stands.
    """
    sites = BCG.sites
    with (
        dg.DagsterInstance.get() as instance,
        workspace.loop_with_router(BCG) as loop,
        Progress(console=console, transient=True) as progress,
    ):
        of_site, of_all = (len(defs.resolve_job_def(name(BCG)).nodes) for name in (site_job, network_job))
        task = progress.add_task("", total=len(sites) * of_site + of_all)
        resources = {"workspace": Workspace(root=str(loop.root), router=loop.router, engine=loop.engine)}
        for site in [*sites, None]:
            if interrupted():
                raise KeyboardInterrupt
            run_id = str(uuid4())
            instance.add_event_listener(run_id, _teller(progress, task, site))
            job = defs.resolve_job_def((site_job if site else network_job)(BCG))
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
    except dg.Failure as failure:
        raise QisError(f"{who}: {failure.description}") from None


def _watch_for_interrupts() -> Callable[[], bool]:
    """What it returns says whether Ctrl-C was pressed.

    Dagster and PySpark put handlers of their own in place of Python's, after which it comes as any exception, or none.
    """
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer)
    return lambda: bool(select.select([reader], [], [], 0)[0])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("qis-demo"), help="the folder that keeps everything")
    parser.add_argument("--engine", choices=["auto", "polars", "spark"], default=os.environ.get("QIS_ENGINE", "auto"))
    given = parser.parse_args()
    use_our_home()
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    workspace = Workspace(root=str(given.out), router=os.environ.get("QIS_ROUTER", ""), engine=given.engine)
    interrupted = _watch_for_interrupts()
    try:
        loop = materialise(workspace, notices, interrupted)
        print_summary(loop, Console(soft_wrap=True))
    except (Exception, KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as error:
        if interrupted():
            return 130
        if not isinstance(error, (QisError, dg.Failure)):
            raise
        notices.print(f"demo: {error}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
