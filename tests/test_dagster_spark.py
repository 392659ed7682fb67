"""A site's packets staged by spark-submit, heard of by Dagster Pipes."""

import sys
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster_runs import execute, made

from pipelines.demo import Loop
from pipelines.engine import spark_is_here

pytestmark = [
    pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here())),
    # Dagster's own Pipes client calls what Dagster warns of.
    pytest.mark.filterwarnings("ignore:AssetExecutionContext:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function `PipesMessageReader"),
]

SITE = "aronson-1948"
SUBMIT = f"{Path(sys.executable).with_name('spark-submit')} --master local[1] --conf spark.ui.enabled=false"


@pytest.fixture
def staged(tmp_path):
    """staged(NAME, **settings): the run of the staged packets of a site whose rows are there, and their file."""

    def run(name, **settings):
        root = tmp_path / name
        with dg.DagsterInstance.ephemeral() as instance:
            execute(instance, root, SITE, only=["site_rows"])
            return execute(instance, root, SITE, only=["staged_packets"], **settings), Loop(root, "").staged(SITE)

    return run


def test_a_cluster_stages_the_packet_that_polars_does(staged):
    submitted, theirs = staged("submitted", engine="spark", spark_submit=SUBMIT)
    told = made(submitted)["staged_packets"]
    assert (told["packets"], told["counted by"], told["rows counted"]) == (1, "spark", 262)
    here, ours = staged("here")
    assert made(here)["staged_packets"] == told | {"counted by": "polars"}
    salted = ["raw_data_hash", "packet_id"]
    assert pq.read_table(theirs).drop(salted).equals(pq.read_table(ours).drop(salted))


def failure(run):
    (event,) = [event for event in run.all_events if event.is_step_failure]
    return event.step_failure_data.error.message


def test_a_command_that_is_not_there_is_one_line(staged):
    run, _ = staged("wrong", engine="spark", spark_submit="no-such-command")
    assert "Failure: spark_submit 'no-such-command': No such file or directory" in failure(run)


@pytest.mark.slow
def test_a_mistake_in_the_study_is_the_same_line_as_without_a_cluster(staged, tmp_path):
    staged("wrong")
    study = tmp_path / "wrong" / "study.yaml"
    study.write_text(study.read_text().replace("control: false", "control: 7"), encoding="utf-8")
    lines = [failure(staged("wrong", **to)[0]) for to in ({}, {"engine": "spark", "spark_submit": SUBMIT})]
    assert "no row has vaccinated" in lines[0]
    assert lines[0] == lines[1]
