"""What Dagster costs: the partitions of the flights study as runs of its job, beside the same functions called by hand.

python benchmarks/backfill.py [--json] [--quick]

Both do the same work on the same partitions, in one process and one after the other: rows, packets, four checks with
Great Expectations among them, deposit. All 420 partitions, and the year's months; --quick takes 24 of them.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import pyarrow.parquet as pq
from figures import Figure, main

from dagster_project.checks.sites import LOOKS
from dagster_project.definitions import defs, network_job, site_job
from dagster_project.demo import QUIET
from dagster_project.partitions import part
from pipelines import demo
from pipelines.accumulate import traffic
from pipelines.shared_router import serving
from pipelines.sources import FLIGHTS, home

PROJECT = Path(__file__).parent.parent
Part = tuple[str, str]


def measure(quick: bool) -> Iterable[Figure]:
    warnings.simplefilter("ignore")
    parts = [(site, month) for site in FLIGHTS.sites for month in FLIGHTS.months]
    parts = parts[:: len(parts) // 24] if quick else parts
    with TemporaryDirectory() as folder:
        root = Path(folder) / "hand"
        with serving(root) as url:
            loop = demo.Loop(home(root, FLIGHTS.name), url, "polars", FLIGHTS)
            by_hand(loop, *parts[0])  # Great Expectations is imported, the flights are read
            wall, cpu = timed(lambda: [by_hand(loop, *one) for one in parts])
        yield Figure(
            "a partition by hand, ms", 1000 * wall / len(parts), "", f"{1000 * cpu / len(parts):.0f} ms of CPU"
        )
        yield from by_dagster(Path(folder) / "dagster", parts, wall, cpu)
    wall, _ = timed(
        lambda: subprocess.run([dg_command(), "check", "defs"], cwd=PROJECT, check=True, capture_output=True)
    )
    yield Figure("dg check defs, s", wall)
    if not quick:
        yield page_ready()


def by_hand(loop: demo.Loop, site: str, month: str) -> None:
    """What a run of a partition does."""
    demo.site_rows(loop, site, month)
    demo.staged_packets(loop, site, month)
    study, packets = loop.study().of(month), pq.read_table(loop.staged(site, month))
    for _, look in LOOKS.values():
        assert not any(finding.wrong for finding in look(study, site, loop.rows(site, month), packets))
    demo.deposited_packets(loop, site, month)


def by_dagster(root: Path, parts: list[Part], hand_wall: float, hand_cpu: float) -> Iterable[Figure]:
    job, network = (defs.resolve_job_def(name(FLIGHTS)) for name in (site_job, network_job))
    (root / "instance").mkdir(parents=True)
    with serving(root) as url, dg.DagsterInstance.local_temp(str(root / "instance")) as instance:
        workspace = {"config": {"root": str(root), "router": url, "engine": "polars"}}
        config = {**QUIET, "resources": {"workspace": workspace}}

        def run(*one: str) -> None:
            job.execute_in_process(config, instance, part(*one))

        run(*parts[0])
        wall, cpu = timed(lambda: [run(*one) for one in parts])
        yield Figure(
            "a partition by Dagster, ms", 1000 * wall / len(parts), "", f"{1000 * cpu / len(parts):.0f} ms of CPU"
        )
        yield Figure("Dagster over the same by hand, CPU", cpu / hand_cpu, "", f"{wall / hand_wall:.1f} by the clock")
        yield Figure(f"backfill of {len(parts)} partitions, s", wall)
        wall, _ = timed(lambda: network.execute_in_process(config, instance))
        records, sent = traffic(home(root, FLIGHTS.name) / "packets")
        yield Figure(
            "table, answers, months and report after it, s", wall, "", f"{records:,} flights, {sent:,} bytes sent"
        )


def page_ready() -> Figure:
    """From `make ui`'s command to the line with the address."""
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "DAGSTER_HOME": folder}
        (Path(folder) / "dagster.yaml").write_bytes((PROJECT / "dagster_project/home/dagster.yaml").read_bytes())
        command = [sys.executable, "-m", "dagster_project.ui", "--out", f"{folder}/out"]
        start = time.perf_counter()
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as page:
            assert page.stderr is not None
            line = page.stderr.readline()
            wall = time.perf_counter() - start
            page.terminate()
        assert "http://" in line, line
        return Figure("page ready after make ui, s", wall)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of this process' CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def dg_command() -> Path:
    return Path(sys.executable).with_name("dg")


if __name__ == "__main__":
    main("Dagster: a study of months, backfilled", measure)
