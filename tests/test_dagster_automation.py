"""What runs by itself: schedules, the sensor on the router, upkeep; and runs that are killed and begun again."""

import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest
from dagster_runs import execute, made

from dagster_project.automation import ONE_WRITER
from dagster_project.definitions import defs
from dagster_project.partitions import after, before
from dagster_project.resources import Workspace
from pipelines import demo
from pipelines.accumulate import accumulate
from pipelines.shared_router import serving
from pipelines.sources import BCG
from qis_connectors.client import RouterClient
from qis_connectors.delta import PacketTable

SITES = ("aronson-1948", "rosenthal-et-al-1961")
REPOSITORY = defs.get_repository_def()
FIRST_OF_MARCH = datetime(2026, 3, 1, 3, tzinfo=UTC)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def stage(root, site):
    """What the site sends, without a run."""
    loop = demo.Loop(root, "", "polars")
    demo.site_rows(loop, site)
    demo.staged_packets(loop, site)
    return pq.read_table(loop.staged(site))


def test_what_there_is():
    assert {schedule.name: schedule.cron_schedule for schedule in REPOSITORY.schedule_defs} == {
        "bcg_distill": "0 3 1 * *",
        "bcg_synthesis": "0 4 * * *",
        "flights_distill": "0 3 1 * *",
        "flights_synthesis": "0 4 * * *",
        "upkeep": "0 5 * * *",
    }
    assert {sensor.name for sensor in REPOSITORY.sensor_defs} == {"bcg_new_packets", "flights_new_packets"}
    for job in ("bcg_network", "flights_network", "upkeep"):
        assert ONE_WRITER.items() <= REPOSITORY.get_job(job).tags.items()


@pytest.mark.parametrize(
    ("day", "month"),
    [(date(2026, 1, 1), "2025-12"), (date(2026, 3, 31), "2026-02"), (date(2026, 12, 1), "2026-11")],
)
def test_the_month_before_a_day_and_after_a_month(day, month):
    assert before(day) == month
    assert after(month) == f"{day:%Y-%m}"


@pytest.mark.filterwarnings("ignore:Non-compliant tag keys:DeprecationWarning")  # Dagster's own, of two dimensions
def test_every_site_is_distilled_once_a_month(instance):
    def tick(name, moment):
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=moment, repository_def=REPOSITORY
        )
        return REPOSITORY.get_schedule_def(name).evaluate_tick(context)

    march = tick("bcg_distill", FIRST_OF_MARCH).run_requests
    assert [request.partition_key for request in march] == list(BCG.sites)
    assert [one.run_key for one in march] == [one.run_key for one in tick("bcg_distill", FIRST_OF_MARCH).run_requests]
    assert tick("bcg_distill", FIRST_OF_MARCH + timedelta(days=31)).run_requests[0].run_key != march[0].run_key
    assert tick("flights_distill", FIRST_OF_MARCH).skip_message == "flights ended with 2013-12"
    asked = [
        request.partition_key for request in tick("flights_distill", datetime(2013, 6, 1, 3, tzinfo=UTC)).run_requests
    ]
    assert len(asked) == 35
    assert asked[0].keys_by_dimension == {"site": "9E-EWR", "month": "2013-05"}


def test_the_sensor_fires_once_for_new_packets(instance, tmp_path):
    sensor = REPOSITORY.get_sensor_def("bcg_new_packets")

    def tick(cursor):
        context = dg.build_sensor_context(
            instance, cursor, resources={"workspace": Workspace(root=str(tmp_path))}, repository_def=REPOSITORY
        )
        return sensor.evaluate_tick(context)

    assert tick(None).skip_message == "no router runs"
    with serving(tmp_path) as url, RouterClient(url) as client:
        assert tick(None).skip_message == "0 packets, nothing new"
        client.deposit(stage(tmp_path, SITES[0]))
        first = tick(None)
        assert [request.run_key for request in first.run_requests] == [first.cursor] == [f"{client.store}:1"]
        assert not tick(first.cursor).run_requests
        client.deposit(stage(tmp_path, SITES[0]))
        assert not tick(first.cursor).run_requests
        client.deposit(stage(tmp_path, SITES[1]))
        assert tick(first.cursor).cursor == f"{client.store}:2"


def test_upkeep_writes_small_files_together_and_keeps_packets_and_place(instance, tmp_path):
    with serving(tmp_path) as url, RouterClient(url) as client:
        for site in SITES:
            client.deposit(stage(tmp_path, site))
            accumulate(url, tmp_path / "packets", "clinical.tuberculosis/bcg_vaccine")
        before_it = PacketTable(tmp_path / "packets")
        assert len(before_it.files) == 2
        job = defs.resolve_job_def("upkeep")
        config = {"resources": {"workspace": {"config": {"root": str(tmp_path)}}}}
        assert job.execute_in_process(config, instance).success
        after_it = PacketTable(tmp_path / "packets")
        assert len(after_it.files) == 1
        source = f"{client.store}:clinical.tuberculosis/bcg_vaccine"
        assert after_it.cursor(source) == before_it.cursor(source) is not None
        assert accumulate(url, tmp_path / "packets", "clinical.tuberculosis/bcg_vaccine").new == 0
    with duckdb.connect() as connection:
        rows = [table.relation(connection).order("packet_id").fetchall() for table in (before_it, after_it)]
    assert rows[0] == rows[1]
    assert PacketTable(tmp_path / "packets").tidy(timedelta(days=30)) == (0, 0)


KILLED = """
import os, signal, sys
import dagster as dg
from dagster_project import demo
from dagster_project.definitions import defs
from dagster_project.resources import Workspace
from pipelines import demo as steps

root, job, partition, after = sys.argv[1:]
# The process dies where the work of a step is done and Dagster has not heard of it yet.
work = getattr(steps, after)
def done_and_dead(*given):
    work(*given)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(steps, after, done_and_dead)
config = {"resources": {"workspace": {"config": {"root": root, "engine": "polars"}}}}
job = defs.resolve_job_def(job)
job = job.get_subset(asset_selection=set(job.asset_layer.selected_asset_keys), asset_check_selection=set())
with dg.DagsterInstance.ephemeral() as instance:
    job.execute_in_process({**demo.QUIET, **config}, instance, partition or None)
"""


@pytest.mark.parametrize(
    ("job", "after"),
    [
        pytest.param("bcg_site", "staged_packets", marks=pytest.mark.slow),
        ("bcg_site", "deposited_packets"),
        ("bcg_network", "packet_table"),
    ],
)
def test_a_run_that_is_killed_and_begun_again_ends_with_each_packet_once(instance, tmp_path, job, after):
    if job == "bcg_network":
        for site in SITES:
            assert execute(instance, tmp_path, site).success
    partition = SITES[0] if job == "bcg_site" else ""
    environment = {**os.environ, "QIS_OUT": str(tmp_path)}
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, tmp_path, job, partition, after], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    deposits = [made(execute(instance, tmp_path, site))["deposited_packets"] for site in SITES]
    assert [sum((one["stored"], one["there already"])) for one in deposits] == [1, 1]
    assert deposits[0]["there already"] == (after != "staged_packets")
    table = made(execute(instance, tmp_path, only=["packet_table"]))["packet_table"]
    assert table["dagster/row_count"] == 2
    with duckdb.connect() as connection:
        packets = PacketTable(tmp_path / "packets").relation(connection)
        assert packets.aggregate("count(*), count(DISTINCT packet_id)").fetchall() == [(2, 2)]
