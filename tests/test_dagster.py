"""The Dagster assets, materialised in process: the loop of pipelines/demo.py, with what the page shows of it."""

import re
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml

from dagster_project import demo
from dagster_project.definitions import defs, network_job, site_job
from dagster_project.resources import Workspace
from pipelines.demo import STEPS
from pipelines.shared_router import router_at, running, serving
from pipelines.shipped import shipped
from pipelines.sources import BCG
from qis_connectors.errors import QisError

SITES = ["tpt-madras-1980", "aronson-1948"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance, root, site=None, **settings):
    """What one run says of each asset, by the asset's name."""
    result = defs.resolve_job_def((site_job if site else network_job)(BCG)).execute_in_process(
        demo.QUIET, instance, site, resources={"workspace": Workspace(root=str(root), engine="polars", **settings)}
    )
    return {
        event.materialization.asset_key.path[-1]: {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


@pytest.fixture(scope="module")
def first(instance, root):
    return [*(run(instance, root, site) for site in SITES), run(instance, root)]


def write_study(root, **gate):
    study = yaml.safe_load(shipped("data/bcg.yaml").read_text(encoding="utf-8"))
    (root / "study.yaml").write_text(yaml.safe_dump({**study, "gate": gate}), encoding="utf-8")


def keys(graph):
    return {key.to_user_string() for key in graph.get_all_asset_keys()}


def test_the_graph():
    graph = defs.resolve_asset_graph()
    sites = ("site_rows", "staged_packets", "deposited_packets")
    assert keys(graph) == {
        *(f"{study}/{name}" for study in ("bcg", "flights") for name in (*sites, *STEPS)),
        "flights/monthly",
    }
    parents = {key.path[-1]: len(graph.get(key).parent_keys) for key in graph.get_all_asset_keys()}
    assert parents == {**dict.fromkeys(parents, 1), "site_rows": 0, "report": len(STEPS) - 2}
    assert {"pooled", "leave_one_out", "robust"} < parents.keys()
    assert {key.path[-1] for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned} == set(sites)
    partitions = [
        len(graph.get(dg.AssetKey([study, "site_rows"])).partitions_def.get_partition_keys())
        for study in ("bcg", "flights")
    ]
    assert partitions == [13, 35 * 12]


def test_every_asset_says_what_it_is():
    described = {spec.key.path[-1]: spec.description or "" for spec in defs.resolve_all_asset_specs()}
    assert all(described.values())
    assert "```sql\n-- pooled:" in described["pooled"]


def test_two_sites_and_the_rest(first, root):
    large, small, network = first
    assert large["site_rows"] == {"rows kept at the site": 176_782}
    assert small["staged_packets"]["rows counted"] == 262
    assert small["staged_packets"]["counted by"] == "polars"
    assert small["staged_packets"]["packets"] == 1
    assert 200 < small["staged_packets"]["bytes on the wire"] <= 512
    assert (small["deposited_packets"]["stored"], small["deposited_packets"]["there already"]) == (1, 0)
    assert (network["packet_table"]["dagster/row_count"], network["packet_table"]["new packets"]) == (2, 2)
    assert pq.read_table(root / "answers" / "pooled.parquet").num_rows == network["pooled"]["dagster/row_count"]
    assert Path(network["report"]["report"]).exists()


def test_the_page_shows_the_answers_and_the_plot(first):
    network = first[-1]
    answer = network["pooled"]["answer"]
    assert "clinical.tuberculosis/bcg_vaccine · log_risk_ratio · bcg_vaccination" in answer
    assert "| method | DL | FE | PM | REML |" in answer
    assert "| estimate | -0." in answer
    assert network["report"]["forest plot"].startswith("![forest.svg](data:image/svg+xml;base64,")


def test_a_second_time_changes_nothing(first, instance, root):
    again = [*(run(instance, root, site) for site in SITES), run(instance, root)]
    assert [site["deposited_packets"]["stored"] for site in again[:-1]] == [0, 0]
    before, after = (one[-1]["packet_table"] for one in (first, again))
    assert (after["new packets"], after["table version"]) == (0, before["table version"])
    assert again[-1]["pooled"] == first[-1]["pooled"]


def test_a_withheld_packet_is_said_and_the_site_goes_on(first, instance, tmp_path):
    write_study(tmp_path, min_cell=11)
    site = run(instance, tmp_path, "aronson-1948")
    assert site["staged_packets"]["withheld"] == "fewer than 11 people are treated with the event"
    assert site["staged_packets"]["packets"] == site["deposited_packets"]["stored"] == 0
    assert "withheld" not in first[1]["staged_packets"]


def test_a_wrong_study_fails_the_run_with_its_line(instance, tmp_path):
    write_study(tmp_path, min_cell=3)
    with pytest.raises(dg.Failure, match=r"study.yaml:\d+: 'gate': min_cell below 11 needs a reason"):
        run(instance, tmp_path, "aronson-1948")


def test_an_unreachable_router_fails_the_deposit(instance, tmp_path):
    with pytest.raises(dg.Failure, match=r"cannot reach router grpc://127\.0\.0\.1:1: connection refused"):
        run(instance, tmp_path, "aronson-1948", router="grpc://127.0.0.1:1")
    assert (tmp_path / "sites" / "aronson-1948" / "packets.parquet").exists()


def test_a_router_that_runs_is_found(tmp_path):
    assert running(tmp_path) is None
    with serving(tmp_path) as url:
        with router_at(tmp_path) as found:
            assert found == url == running(tmp_path)
        with pytest.raises(QisError, match="in use by another router"), serving(tmp_path):
            pass
    assert running(tmp_path) is None


def test_a_note_that_another_router_answers_to_is_not_believed(tmp_path):
    with serving(tmp_path / "other") as url:
        (tmp_path / "router.url").write_text(f"{url} another-store\n")
        assert running(tmp_path) is None


def test_a_note_left_by_a_killed_router_is_not_believed(tmp_path):
    (tmp_path / "router.url").write_text("grpc://127.0.0.1:1 its-store\n")
    with router_at(tmp_path) as url:
        assert running(tmp_path) == url


def test_make_demo_ends_with_the_one_line_that_helps(monkeypatch, tmp_path, capfd):
    write_study(tmp_path, min_cell=3)
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}", encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["make demo", "--out", str(tmp_path), "--engine", "polars"])
    assert demo.main() == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"demo: aronson-1948: .*study.yaml:\d+: 'gate': min_cell below 11 needs a reason.*\n", err.lstrip()
    )
