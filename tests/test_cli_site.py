"""A site's commands, from a table nobody has described to packets that an auditor can check."""

import json

import polars as pl
import pytest
import yaml

from pipelines import bcg
from pipelines.catalogue import SCHEMA, study_schema
from pipelines.distill import distill, releases
from pipelines.engine import EngineError, engine_named
from pipelines.shipped import shipped
from pipelines.study import MetricLog, load_any, schema

LOG = """
study: net
kind: metric_log
domain: training.vision
problem_type: digits
rows: "{site}.csv"
model_architecture: resnet-18
epoch: epoch
metric: metric
value: value
metrics: {val_auc: higher, val_loss: lower}
epochs: 50
records: 10000
intervention: {type: learning_rate_schedule, params: {lr: 0.1}}
time: 2026-05-01
"""


@pytest.fixture
def table(tmp_path):
    """One trial's rows as a CSV file."""
    bcg.write_rows(bcg.trials()["tpt-madras-1980"], tmp_path / "rows.parquet")
    pl.read_parquet(tmp_path / "rows.parquet").head(20_000).write_csv(tmp_path / "visits.csv")
    return tmp_path / "visits.csv"


def test_a_drafted_study_is_one_that_runs(qis, table):
    drafted = table.with_name("study.yaml")
    assert qis("study", "new", table, "--out", drafted) == (0, "", "")
    text = drafted.read_text(encoding="utf-8")
    assert text == qis("study", "new", table)[1]
    assert "#   allocation: String, random" in text
    status, out, err = qis("study", "check", drafted, "--format", "json")
    assert (status, err) == (0, "visits: packets to my.domain/visits\n")
    (sent,) = json.loads(out)
    assert sent["node_id"] == "my-site"
    assert 200 < sent["bytes"] <= 512
    assert "tables" in sent["linter"]
    assert qis("study", "new", table, "--out", drafted)[2] == f"qis: {drafted}: is there already\n"


def test_a_dry_run_lists_and_leaves_nothing(qis, table):
    study = table.with_name("study.yaml")
    qis("study", "new", table, "--out", study)
    status, out, _ = qis("distill", study, "--dry-run", "--format", "json")
    assert status == 0
    assert set(json.loads(out)[0]) >= {"node_id", "metric_delta", "metric_stderr", "sample_count", "bytes", "linter"}
    assert not list(table.parent.glob("*.released"))
    qis("distill", study, "--out", table.with_name("p.parquet"))
    assert len(list(table.parent.glob("*.released"))) == 1


def test_an_auditor_checks_packets_against_rows_and_salt(qis, table):
    study, packets = table.with_name("study.yaml"), table.with_name("p.parquet")
    qis("study", "new", table, "--out", study)
    qis("distill", study, "--out", packets, "--engine", "duckdb")
    status, out, _ = qis("audit", study, packets, "--format", "json")
    assert status == 0
    assert [row["holds"] for row in json.loads(out)] == [True]
    frame = pl.read_csv(table)
    frame.with_columns(latitude=pl.lit(14), vaccinated=~pl.col("vaccinated")).write_csv(table)
    status, out, err = qis("audit", study, packets, "--format", "json")
    assert (status, [row["holds"] for row in json.loads(out)]) == (1, [False])
    assert err.endswith("1 of 1 packets of this study are not of the rows that are here\n")


def test_an_auditor_elsewhere_checks_what_the_site_opens(qis, table, tmp_path):
    study, packets, opening = (table.with_name(name) for name in ("study.yaml", "p.parquet", "opening.json"))
    qis("study", "new", table, "--out", study)
    qis("distill", study, "--out", packets)
    assert qis("audit", "open", study, packets, "--out", opening)[0] == 0
    assert opening.stat().st_mode & 0o077 == 0
    assert qis("audit", "open", study, packets, "--out", opening)[2].endswith("File exists\n")
    shown = json.loads(opening.read_text(encoding="utf-8"))
    (committed,) = shown
    assert sum(json.loads(row)[-1] for row in shown[committed]["rows"]) == 20_000, "rows with their multiplicity"
    status, out, _ = qis("audit", "check", opening, packets, "--format", "json")
    assert (status, [row["holds"] for row in json.loads(out)]) == (0, [True])
    for change in ({"salt": "00" * 32}, {"rows": shown[committed]["rows"][1:]}):
        forged = tmp_path / "forged.json"
        forged.write_text(json.dumps({committed: shown[committed] | change}), encoding="utf-8")
        status, out, _ = qis("audit", "check", forged, packets, "--format", "json")
        assert (status, [row["holds"] for row in json.loads(out)]) == (1, [False])
    opening.write_text("{}", encoding="utf-8")
    told = qis("audit", "check", opening, packets)[2]
    assert told.endswith("0 of 1 packets are not what was opened, 1 are not shown\n")
    assert qis("audit", "check", table, packets)[2] == f"qis: {table}: is no opening of commitments\n"
    assert qis("audit", "rows", study, packets)[0] == 0


def test_a_training_log_becomes_a_packet_an_epoch(tmp_path):
    rows = [(epoch, "val_auc", 0.5 + epoch / 100) for epoch in (3, 1, 2)] + [(1, "val_loss", 0.9), (2, "val_loss", 0.7)]
    pl.DataFrame([*rows, (1, "lr", 0.1)], schema=["epoch", "metric", "value"], orient="row").write_csv(
        tmp_path / "node-a.csv"
    )
    (tmp_path / "study.yaml").write_text(LOG, encoding="utf-8")
    plan = load_any(tmp_path / "study.yaml")
    assert isinstance(plan, MetricLog)
    ((_, release),) = releases(plan, tmp_path)
    found = [(row["metric_name"], row["training_phase"], row["outcome_decile"]) for row in release.packets.to_pylist()]
    assert found == [("val_auc", "epoch_2_of_50", 5), ("val_auc", "epoch_3_of_50", 5), ("val_loss", "epoch_2_of_50", 5)]
    assert release.packets["metric_delta"].to_pylist() == pytest.approx([0.01, 0.01, -0.2])
    assert release.packets["node_id"].unique().to_pylist() == ["node-a"]
    assert distill(plan, "node-a", tmp_path / "node-a.csv", "duckdb").packets.equals(release.packets)
    with (tmp_path / "node-a.csv").open("a", encoding="utf-8") as file:
        file.write("2,val_auc,0.6\n")
    with pytest.raises(Exception, match="epoch 2 has more than one val_auc"):
        list(releases(plan, tmp_path))


def test_several_sites_in_one_table(qis, table):
    frame = pl.read_csv(table)
    frame.with_columns(ward=pl.int_range(pl.len()) % 2).write_csv(table)
    study = table.with_name("study.yaml")
    qis("study", "new", table, "--out", study)
    study.write_text(study.read_text(encoding="utf-8").replace("site: my-site", "site_column: ward"), encoding="utf-8")
    listed = json.loads(qis("study", "check", study, "--format", "json")[1])
    assert [row["node_id"] for row in listed] == ["0", "1"]


@pytest.mark.parametrize("name", ["pandas", "sparks"])
def test_an_engine_is_a_name_or_a_master(name):
    with pytest.raises(EngineError, match="none of polars, duckdb, spark"):
        engine_named(name)


def test_the_published_schema_is_the_models_and_knows_the_shipped_study():
    page = shipped("sql").parent / SCHEMA
    assert page.read_text(encoding="utf-8") == study_schema(), "make docs"
    fields = schema()["$defs"]["Study"]["properties"]
    assert set(yaml.safe_load(shipped("data/bcg.yaml").read_text(encoding="utf-8"))) <= set(fields)
