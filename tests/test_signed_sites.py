"""Sites that sign what leaves them: a Node, a study by its command, by Dagster and on Spark; all in one way."""

import dagster as dg
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from dagster_runs import execute, made
from signed_packets import make_site

from pipelines import bcg
from pipelines.demo import Loop, staged_packets
from pipelines.shipped import shipped
from pipelines.study import load
from qis_connectors import Node, QisError
from qis_connectors.client import RouterClient
from qis_connectors.router import Router

SITES = ("aronson-1948", "stein-aronson-1953")
OUTCOME = {"metric_name": "auc", "metric_value": 0.9, "sample_count": 10, "intervention_type": "lr", "confidence": 0.5}


@pytest.fixture
def signed_router(tmp_path):
    """A router that takes what the two sites and site-a have signed; their secret keys are in tmp_path/secret."""
    (tmp_path / "secret").mkdir()
    for node_id in (*SITES, "site-a"):
        secret = make_site(tmp_path, node_id)
        secret.rename(tmp_path / "secret" / secret.name)
    with Router(tmp_path / "router", "grpc://127.0.0.1:0", keys=tmp_path / "keys") as router:
        yield router


@pytest.fixture
def study_file(tmp_path):
    """A study of the two sites that names their keys."""
    path = tmp_path / "workspace" / "study.yaml"
    for site in SITES:
        bcg.write_rows(bcg.trials()[site], path.parent / "sites" / site / "rows.parquet")
    content = yaml.safe_load(shipped("data/bcg.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**content, "key": "../secret"}), encoding="utf-8")
    return path


def stored(router):
    with RouterClient(router.url) as client:
        return client.read("*").table.sort_by([("node_id", "ascending"), ("sequence", "ascending")])


def test_a_node_signs_and_goes_on_after_a_restart(signed_router, tmp_path, packets):
    problem = {"domain": "clinical.tuberculosis", "problem_type": "bcg_vaccine"}
    key = tmp_path / "secret" / "site-a.key"
    for life in range(2):
        with Node("site-a", signed_router.url, **problem, key=key) as node:
            node.deposit(metric_delta=0.1 + life, **OUTCOME)
            node.step(metric_delta=0.2 + life, **OUTCOME)
    with Node("site-a", signed_router.url, domain="another", problem_type="problem", key=key) as node:
        node.deposit(metric_delta=0.5, **OUTCOME)
        assert node.deposit(packets(2)).stored == 2
        assert node.deposit(packets(3)).stored == 1
    assert stored(signed_router)["sequence"].to_pylist() == list(range(1, 9)), "one chain over all its addresses"
    with Node("site-a", signed_router.url, **problem) as node, pytest.raises(QisError, match="'signature', row 0"):
        node.deposit(metric_delta=0.1, **OUTCOME)


def test_a_study_signs_what_it_sends(qis, signed_router, study_file, tmp_path):
    out = tmp_path / "packets.parquet"
    assert qis("distill", study_file, "--out", out)[0] == 0
    assert not qis("distill", study_file, "--dry-run")[0]
    for there in ("2 packets stored, 0", "0 packets stored, 2"):
        assert qis("distill", study_file, "--router", signed_router.url)[2] == f"{there} were there already\n"
    assert stored(signed_router).equals(pq.read_table(out).sort_by("node_id").combine_chunks())
    assert qis("verify", out, "--keys", tmp_path / "keys")[0] == 0


def test_dagster_deposits_what_is_signed(signed_router, study_file):
    site = SITES[0]
    loop = Loop(study_file.parent, signed_router.url, "polars")
    staged_packets(loop, site)
    with dg.DagsterInstance.ephemeral() as instance:
        for there in (0, 1):
            result = execute(instance, loop.root, site, only=["deposited_packets"], router=signed_router.url)
            assert made(result)["deposited_packets"]["there already"] == there
    assert stored(signed_router)["sequence"].to_pylist() == [1]
    assert pq.read_table(loop.staged(site))["signature"].null_count == 1


def test_a_site_without_its_key_sends_nothing(qis, signed_router, study_file, tmp_path):
    (tmp_path / "secret" / f"{SITES[1]}.key").unlink()
    status, _, err = qis("distill", study_file, "--router", signed_router.url)
    assert (status, err.endswith(f"{SITES[1]}.key: No such file or directory\n")) == (1, True)
    assert stored(signed_router).num_rows == 0


def test_spark_executors_sign_and_its_writer_hands_it_on(spark, signed_router, study_file, tmp_path):
    from pipelines.distill_in_executors import distill_in_executors

    homes = {site: study_file.parent / "sites" / site / "rows.parquet" for site in SITES}
    for site, home in homes.items():
        pl.read_parquet(home).with_columns(site=pl.lit(site)).write_parquet(tmp_path / f"{site}.parquet")
    frame = spark.read.parquet(*(str(tmp_path / f"{site}.parquet") for site in SITES))
    study = load(study_file).model_copy(update={"site_column": "site", "key": str(tmp_path / "secret")})
    signed = distill_in_executors(study, frame, homes.get)
    signed.write.format("qis").option("router", signed_router.url).mode("append").save()
    assert stored(signed_router)["sequence"].to_pylist() == [1, 1]
