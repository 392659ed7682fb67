"""The main job: the published answer, twice the same, and nothing of it that should not be there."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import bcg, demo
from pipelines.demo import SITE_STEPS, STEPS, Loop
from pipelines.elections.record import newest
from pipelines.engine import spark_is_here
from pipelines.shipped import shipped
from qis_connectors.delta import PacketTable
from qis_connectors.router import Router

ROOT = shipped("sql").parent
QIS = Path(sys.executable).with_name("qis")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The loop, run twice on the same workspace by two routers one after the other, on Polars."""
    root = tmp_path_factory.mktemp("demo") / "out"
    seen: list[list[str]] = []
    versions = []
    for _ in range(2):
        steps: list[str] = []
        with Router(root / "router", "grpc://127.0.0.1:0") as router:
            loop = Loop(root, router.url, "polars")
            demo.run(loop, lambda step, behind, steps=steps: steps.append(f"{behind:.3f} {step}"))
        seen.append(steps)
        versions.append(PacketTable(loop.table).version)
    return loop, seen, versions


def rows(loop: Loop, answer: str) -> list[dict]:
    return pq.read_table(loop.answer(answer)).to_pylist()


def test_it_ends_at_the_published_numbers(finished):
    loop, _, _ = finished
    pooled = {row["method"]: row for row in rows(loop, "pooled")}
    reml = pooled["REML"]
    assert [f"{reml[name]:.4f}" for name in ("estimate", "se", "tau2")] == ["-0.7145", "0.1798", "0.3132"]
    assert [f"{pooled['DL'][name]:.4f}" for name in ("estimate", "tau2")] == ["-0.7141", "0.3088"]
    assert {row["k"] for row in pooled.values()} == {13}
    (robust,) = rows(loop, "robust")
    assert f"{robust['median']:.4f}" == "-0.7861"
    assert len([row for row in rows(loop, "leave_one_out") if row["method"] == "REML"]) == 13
    assert len(rows(loop, "sites")) == 13


def test_a_second_run_adds_nothing(finished):
    loop, seen, versions = finished
    assert versions == [0, 0]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 13 * len(SITE_STEPS) + len(STEPS) + 1
    with Router(loop.root / "router", "grpc://127.0.0.1:0") as router:
        again = Loop(loop.root, router.url, "polars")
        receipts = [demo.deposited_packets(again, site) for site in bcg.trials()]
        assert [(receipt.stored, receipt.duplicates) for receipt in receipts] == [(0, 1)] * 13
        assert demo.packet_table(again).new == 0


def test_it_leaves_what_it_says(finished):
    loop, _, _ = finished
    there = {path.name for path in loop.root.iterdir()}
    assert {"packets", "report.html", "forest.svg", "forest.png", "router", "answers", "sites"} <= there
    assert not [path for path in loop.root.rglob(".*") if path.is_file() and path.suffix in (".parquet", ".html")]


def test_no_row_leaves_a_site(finished):
    """Nothing outside sites/ has a participant's columns, and packets are as many as sites."""
    loop, _, _ = finished
    participant = {"vaccinated", "tuberculosis"}
    files = [path for path in loop.root.rglob("*.parquet") if loop.root / "sites" not in path.parents]
    assert len(files) >= 5
    for path in files:
        assert not participant & set(pq.read_schema(path).names), path
    assert sum(pq.read_metadata(loop.rows(site)).num_rows for site in bcg.trials()) == 357_347
    assert pa.concat_tables(pq.read_table(loop.staged(site)) for site in bcg.trials()).num_rows == 13


def test_latitude_wins_the_election_among_trials_left_out_and_the_report_says_so(finished):
    loop, _, _ = finished
    found = newest(loop.table)["election"].to_pylist()
    left = [row for row in found if row["design"] == "left_out"]
    assert [row["network"] for row in left] == ["near-latitude", "everyone", "random", "same-allocation"]
    assert f"{left[0]['gain']:.4f}" == "0.0563"
    page = (loop.root / "report.html").read_text(encoding="utf-8")
    assert "The election of networks" in page
    assert left[0]["verdict"] in page


def test_the_readme_shows_the_picture_it_makes(finished):
    loop, _, _ = finished

    def words(path: Path) -> list[str]:
        return re.findall(r">([^<>]*\w[^<>]*)</text>", path.read_text(encoding="utf-8"))

    assert len(words(ROOT / "docs" / "forest.svg")) > 13 * 3
    assert words(loop.root / "forest.svg") == words(ROOT / "docs" / "forest.svg")


def test_the_readmes_python_runs(router):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:  # the later ones read what the first has deposited
        assert "grpc://127.0.0.1:8815" in block
        if "pyspark" in block and spark_is_here() is not None:
            continue
        code = block.replace("grpc://127.0.0.1:8815", router.url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "-0.8" in done.stdout


def test_the_command_prints_progress_aside_and_the_summary(tmp_path):
    command = [QIS, "demo", "--out", tmp_path / "d", "--engine", "polars"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for words in ("hart-sutherland-1977", "-0.7145", "0.1798", "0.3132", "-0.7861", "357,347 rows", "make ui"):
        assert words in done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_leaves_no_process_and_the_next_run_ends_well(tmp_path):
    command = [QIS, "demo", "--out", tmp_path / "d", "--engine", "polars"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 30
            while not (tmp_path / "d" / "sites").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode != 0
    assert b"Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    subprocess.run(command, capture_output=True, check=True)
    assert PacketTable(tmp_path / "d" / "packets").version == 0


def test_another_router_on_the_same_store_is_one_line(tmp_path):
    with Router(tmp_path / "d" / "router", "grpc://127.0.0.1:0"):
        done = subprocess.run([QIS, "demo", "--out", tmp_path / "d"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("qis: ")
    assert "in use by another router" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("java", "said"),
    [(None, "Java 17 or newer was not found"), ("11.0.2", "Java 11 was found, and Spark needs 17 or newer")],
)
def test_without_a_java_for_spark_one_line_says_so_and_polars_does_it_all(tmp_path, java, said):
    if java:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{java}\"' >&2\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    environment = {**os.environ, "JAVA_HOME": str(tmp_path)}
    command = [QIS, "demo", "--out", tmp_path / "d"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"Spark was not used: {said}.\n" in done.stdout
    assert "-0.7145" in done.stdout
    refused = subprocess.run(
        [*command, "--engine", "spark"], capture_output=True, text=True, check=False, env=environment
    )
    assert refused.returncode == 1
    assert refused.stderr == f"qis: engine spark: {said}; --engine polars works without\n"


def test_a_site_whose_packet_is_withheld_is_shown_as_sending_nothing(tmp_path):
    study = shipped("data/bcg.yaml").read_text(encoding="utf-8").split("gate:")[0]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "study.yaml").write_text(study, encoding="utf-8")
    command = [QIS, "demo", "--out", tmp_path / "d", "--engine", "polars"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"aronson-1948 +262 +polars +nothing", done.stdout)
    assert re.search(r"tpt-madras-1980 +176,782 +polars +0\.0120", done.stdout)
    (tmp_path / "d" / "study.yaml").write_text(study + "gate: {min_cell: 1000000}\n", encoding="utf-8")
    command[3] = tmp_path / "e"
    (tmp_path / "e").mkdir()
    (tmp_path / "d" / "study.yaml").rename(tmp_path / "e" / "study.yaml")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "qis: no site sent a packet of this study, so there is nothing to report\n"
