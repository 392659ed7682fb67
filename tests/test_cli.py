"""The qis command as its user meets it: what it prints where, and one line for each mistake."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines import bcg, cli
from pipelines.catalogue import markdown
from pipelines.shipped import shipped
from pipelines.synthesize import answers
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA

NOBODY = "grpc://127.0.0.1:1"


@pytest.fixture
def study(tmp_path) -> Path:
    """Two of the trials as sites beside the shipped study file."""
    for site in ("aronson-1948", "tpt-madras-1980"):
        bcg.write_rows(bcg.trials()[site], tmp_path / "sites" / site / "rows.parquet")
    path = tmp_path / "study.yaml"
    path.write_text(shipped("data/bcg.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return path


def test_rows_to_answers_command_by_command(qis, study, router, tmp_path):
    packets, table = tmp_path / "packets.parquet", tmp_path / "table"
    assert qis("distill", study, "--out", packets)[0] == 0
    assert pq.read_schema(packets).equals(OUTCOME_PACKET_SCHEMA)
    status, out, err = qis("deposit", packets, "--router", router.url)
    assert (status, out) == (0, "")
    assert err == "2 packets stored, 0 were there already\n"
    assert qis("distill", study, "--router", router.url)[2].endswith("0 packets stored, 2 were there already\n")

    status, out, _ = qis("addresses", "clinical.*", "--router", router.url, "--format", "json")
    assert status == 0
    (found,) = json.loads(out)
    assert (found["address"], found["packets"]) == ("clinical.tuberculosis/bcg_vaccine", 2)

    asked = ("--router", router.url, "--format", "json")
    status, out, err = qis("query", found["address"], *asked, "--columns", "node_id")
    assert sorted(row["node_id"] for row in json.loads(out)) == ["aronson-1948", "tpt-madras-1980"]
    cursor = err.split("--since ")[1].strip()
    status, out, _ = qis("query", "*", *asked, "--filters", '["node_id", "=", "aronson-1948"]')
    assert [row["node_id"] for row in json.loads(out)] == ["aronson-1948"]
    status, out, _ = qis("query", "*", *asked, "--since", cursor)
    assert (status, json.loads(out)) == (0, [])

    assert "2 new packets" in qis("accumulate", "--router", router.url, "--table", table)[2]
    assert "0 new packets, 2 in" in qis("accumulate", "--router", router.url, "--table", table)[2]

    status, out, _ = qis("synthesize", "pooled", "--table", table, "--format", "json")
    rows = json.loads(out)
    assert [row["method"] for row in rows] == ["DL", "FE", "PM", "REML"]
    assert " ".join(list(rows[0])[4:]) == ("k estimate se ci_lb ci_ub tau2 q i2 hk_se hk_ci_lb hk_ci_ub pi_lb pi_ub")
    status, out, _ = qis("synthesize", "--table", table, "--format", "csv")
    answered = {row["answer"] for row in csv.DictReader(io.StringIO(out))}
    assert {"pooled", "leave_one_out", "robust"} <= answered

    status, out, err = qis("report", "--table", table, "--out", tmp_path / "report.html")
    assert (status, out) == (0, "")
    assert f"{next(row['estimate'] for row in rows if row['method'] == 'REML'):.4f}" in (
        (tmp_path / "report.html").read_text(encoding="utf-8").replace("\u2212", "-")
    )


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_what_is_not_rows_is_not_on_standard_output(qis, router, form):
    status, out, err = qis("query", "nothing/here", "--router", router.url, "--format", form)
    assert status == 0
    assert "0 packets" in err
    assert "0 packets" not in out
    if form == "json":
        assert json.loads(out) == []


def test_distill_prints_what_would_be_sent_and_says_what_is_withheld(qis, study):
    content = yaml.safe_load(study.read_text(encoding="utf-8"))
    del content["gate"]
    study.write_text(yaml.safe_dump(content), encoding="utf-8")
    status, out, err = qis("distill", study, "--format", "json")
    assert status == 0
    assert [row["node_id"] for row in json.loads(out)] == ["tpt-madras-1980"]
    assert "aronson-1948: no packet leaves: fewer than 11 people are treated with the event" in err


def packet(**changes: object) -> dict[str, object]:
    fields = dict.fromkeys(INTERCHANGE_SCHEMA.names, "x") | {
        "timestamp_utc": 0,
        "metric_delta": 0.5,
        "metric_value": 0.5,
        "confidence": 0.5,
        "intervention_params": "{}",
        "outcome_decile": 5,
        "sample_count": 10,
    }
    return fields | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"confidence": 1.2}, "field 'confidence', row 1"),
        ({"outcome_decile": 0}, "field 'outcome_decile', row 1"),
        ({"outcome_decile": 300}, "field 'outcome_decile'"),
        ({"metric_delta": float("nan")}, "field 'metric_delta', row 1"),
        ({"intervention_params": "{"}, "field 'intervention_params', row 1"),
        ({"domain": ""}, "field 'domain', row 1"),
        ({"training_phase": "x" * 500}, "field 'training_phase', row 1: is 500 bytes long"),
        ({"patient": "x"}, "field 'patient': is not a field of a packet"),
        ({"metric_delta": "much"}, "field 'metric_delta': does not fit float"),
    ],
)
def test_one_bad_packet_and_nothing_of_the_file_is_stored(qis, router, tmp_path, changes, said):
    good = packet(metric_delta="1") if changes.get("metric_delta") == "much" else packet()
    rows = [good, packet(**changes)]
    pq.write_table(pa.Table.from_pylist([{**dict.fromkeys(changes), **row} for row in rows]), tmp_path / "bad.parquet")
    status, out, err = qis("deposit", tmp_path / "bad.parquet", "--router", router.url)
    assert (status, out) == (1, "")
    assert err.startswith("qis: ")
    assert said in err
    assert err.count("\n") == 1
    assert json.loads(qis("addresses", "--router", router.url, "--format", "json")[1]) == []


def test_packets_come_from_arrow_and_csv_too(qis, router, tmp_path):
    table = pa.Table.from_pylist([packet(problem_type="007"), packet(problem_type="007", node_id="y")])
    pq.write_table(table, tmp_path / "p.parquet")
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as writer:
        writer.write_table(table)
    pa.csv.write_csv(table, tmp_path / "p.csv")
    for name, stored in (("p.csv", 2), ("p.parquet", 0), ("file.arrow", 0), ("stream.arrow", 0)):
        status, _, err = qis("deposit", tmp_path / name, "--router", router.url)
        assert (status, err) == (0, f"{stored} packets stored, {2 - stored} were there already\n"), name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("query", "a/b", "--router", NOBODY), f"cannot reach router {NOBODY}"),
        (("addresses", "--router", "http://x"), "http://x"),
        (("deposit", "nowhere.parquet", "--router", NOBODY), "nowhere.parquet"),
        (("deposit", "README.md", "--router", NOBODY), ".parquet, .arrow or .csv"),
        (("distill", "nowhere.yaml"), "nowhere.yaml: No such file"),
        (("synthesize", "--table", "nowhere"), "no packet table at nowhere"),
        (("report", "--table", "nowhere"), "no packet table at nowhere"),
        (("accumulate", "--table", "nowhere", "--router", NOBODY), "cannot reach router"),
        (("router", "--listen", "grpc://192.0.2.1:0", "--store", "unused"), "192.0.2.1"),
        (("router", "--listen", "grpc://127.0.0.1:0", "--store", "unused", "--metrics", "x"), "HOST:PORT or PORT"),
        (("query", "a/b", "--router", NOBODY, "--filters", "sample_count > 3"), "--filters is not JSON"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(qis, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = qis(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("qis: ")
    assert said in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["unused"])


def test_an_unknown_answer_names_the_known_ones(qis, study, router, tmp_path):
    qis("distill", study, "--router", router.url)
    qis("accumulate", "--router", router.url, "--table", tmp_path / "t")
    status, _, err = qis("synthesize", "poold", "--table", tmp_path / "t")
    assert status == 1
    assert "did you mean 'pooled'?" in err


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("query", "a/b"), ("query", "a/b", "--router", NOBODY, "--limit", "x")]
)
def test_wrong_usage_is_status_2(qis, arguments):
    assert qis(*arguments)[0] == 2


def test_every_command_of_the_readme_is_there_and_the_other_way_round():
    readme = (shipped("sql").parent / "README.md").read_text(encoding="utf-8")
    documented = {line.split("`")[1].split()[1] for line in readme.splitlines() if line.startswith("| `qis ")}
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert documented == commands | {group.name for group in cli.app.registered_groups}


def test_ctrl_c_stops_the_router(tmp_path):
    command = [
        Path(sys.executable).with_name("qis"),
        "router",
        "--listen",
        "grpc://127.0.0.1:0",
        "--store",
        str(tmp_path / "s"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert "grpc://127.0.0.1:" in line
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_the_page_of_answers_is_what_the_headers_say():
    page = shipped("sql").parent / "docs" / "answers.md"
    assert page.read_text(encoding="utf-8") == markdown(), "make docs"
    assert markdown().count("\n## ") == len(answers()) > 14


def test_the_readme_names_answers_that_exist():
    readme = (shipped("sql").parent / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\[`(\w+)`\]\(sql/(\w+)\.sql\)", readme))
    assert len(named) > 10
    assert all(name == file and name in answers() for name, file in named)


def test_past_and_kept_answers(qis, study, router, tmp_path):
    table, kept = tmp_path / "t", tmp_path / "kept"
    qis("distill", study, "--router", router.url)
    qis("accumulate", "--router", router.url, "--table", table)
    asked = ("synthesize", "pooled", "--table", table, "--format", "json")
    first = json.loads(qis(*asked)[1])
    assert json.loads(qis(*asked, "--as-of", "0")[1]) == first
    for _ in range(2):
        assert json.loads(qis(*asked, "--keep", kept)[1]) == first
    assert [path.name for path in kept.iterdir()] == ["pooled.parquet"]
    assert "has versions 0 to 0, not 9" in qis(*asked, "--as-of", "9")[2]
    assert "neither a version (7) nor a time" in qis(*asked, "--as-of", "soon")[2]
    assert qis(*asked, "--as-of", "0", "--keep", kept)[0] == 1
    qis("report", "--table", table, "--out", tmp_path / "r.html", "--plots", tmp_path / "plots")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        f"{plot}.{form}" for plot in ("cumulative", "forest", "funnel", "leave_one_out") for form in ("png", "svg")
    ]
