"""The asset checks: they pass on what is right, each stops the deposit of what is not, and they tell counts only."""

import json
from uuid import uuid4

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dagster_runs import checked, execute, made

from dagster_project.checks.sites import LOOKS
from pipelines.shared_router import serving
from pipelines.shipped import shipped
from qis_connectors.client import RouterClient

SITE, OTHER = "aronson-1948", "rosenthal-et-al-1961"


@pytest.fixture(scope="module")
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def change_packet(**fields):
    def change(root):
        path = root / "sites" / SITE / "packets.parquet"
        table = pq.read_table(path)
        rows = [{**row, **fields} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)

    return change


def raise_the_gate(root):
    study = yaml.safe_load(shipped("data/bcg.yaml").read_text(encoding="utf-8"))
    (root / "study.yaml").write_text(yaml.safe_dump({**study, "gate": {"min_cell": 11}}), encoding="utf-8")


WRONG = {
    "schema_and_ranges": change_packet(metric_delta=21.0),
    "gate_honoured": raise_the_gate,
    "no_raw_column": change_packet(context=json.dumps({"latitude": 44, "tuberculosis": 1})),
    "size": change_packet(context=json.dumps({"latitude": "4" * 400})),
}


def test_a_site_passes_every_check_and_the_table_counts(instance, tmp_path):
    checks = checked(execute(instance, tmp_path, SITE))
    assert checks.keys() == LOOKS.keys() == WRONG.keys()
    assert all(check.passed for check in checks.values())
    rows = {
        name: [tuple(record.data.values()) for record in check.metadata["looked for"].records]
        for name, check in checks.items()
    }
    assert ("confidence to be between", 1, 0) in rows["schema_and_ranges"]
    assert len(rows["schema_and_ranges"]) >= 15
    assert rows["gate_honoured"] == [("cell of 1 to 2 behind a packet", 4, 0)]
    assert rows["no_raw_column"] == [
        ("column that stays, named in a packet", 2, 0),
        ("column that stays, with a value in a packet", 2, 0),
    ]
    assert rows["size"][0][1:] == (1, 0)


@pytest.mark.parametrize("name", WRONG)
def test_what_a_check_stops_is_not_deposited_and_the_others_go_on(instance, tmp_path, name):
    run_id = str(uuid4())

    def tamper(entry):
        """With what the site has staged, before the checks."""
        event = entry.dagster_event
        if event and event.is_step_success and event.step_key == "bcg__staged_packets":
            WRONG[name](tmp_path)

    instance.add_event_listener(run_id, tamper)
    with serving(tmp_path) as url:
        stopped = execute(instance, tmp_path, SITE, run_id=run_id, router=url)
        assert not stopped.success
        assert [check for check, found in checked(stopped).items() if not found.passed] == [name]
        assert made(stopped).keys() == {"site_rows", "staged_packets"}
        told = str(checked(stopped)[name].metadata)
        assert "21" not in told
        assert "444" not in told
        # Nor by itself, past the checks: what it needs is looked at again. Schema and ranges are the packet's own.
        if name != "schema_and_ranges":
            alone = execute(instance, tmp_path, SITE, only=["deposited_packets"], router=url)
            assert "may not send this" in alone.all_node_events[-1].step_failure_data.user_failure_data.description
        with RouterClient(url) as client:
            assert client.stats()["packets"] == 0
            if name != "gate_honoured":
                assert execute(instance, tmp_path, OTHER, router=url).success
                assert client.stats()["packets"] == 1


def test_values_of_a_column_that_stays_are_found(instance, tmp_path):
    assert execute(instance, tmp_path, SITE, only=["site_rows", "staged_packets"]).success
    path = tmp_path / "sites" / SITE / "rows.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.append_column("patient", pa.array([f"P-{n:05}" for n in range(rows.num_rows)])), path)
    change_packet(intervention_params=json.dumps({"comparator": "P-00017"}))(tmp_path)
    with serving(tmp_path) as url:
        alone = execute(instance, tmp_path, SITE, only=["deposited_packets"], router=url)
    said = alone.all_node_events[-1].step_failure_data.user_failure_data.description
    assert said == f"{SITE} may not send this: column that stays, with a value in a packet: 1 of 3"


def test_the_table_is_held_against_what_was_sent_and_the_answer_against_its_robust_twins(instance, tmp_path):
    answers = ["packet_table", "disagreement", "pooled"]
    with serving(tmp_path) as url, RouterClient(url) as client:
        for site in (SITE, OTHER, "stein-aronson-1953"):
            assert execute(instance, tmp_path, site, router=url).success
        before = checked(execute(instance, tmp_path, only=answers, router=url))
        assert before.keys() == {"each_packet_once", "all_that_was_sent", "fresh", "robust_agrees"}
        assert all(check.passed for check in before.values())
        lie = {"node_id": ["liar"], "metric_delta": [1e6], "metric_stderr": [1e-3]}
        packet = pq.read_table(tmp_path / "sites" / SITE / "packets.parquet").drop_columns(["packet_id"])
        for name, values in lie.items():
            at = packet.schema.get_field_index(name)
            packet = packet.set_column(at, name, pa.array(values, packet.schema.field(at).type))
        client.deposit(packet)
        stale = checked(execute(instance, tmp_path, checks=[("packet_table", "fresh")], router=url))
        assert [(check.passed, check.metadata["wrong"].value) for check in stale.values()] == [(False, 1)]
        assert execute(instance, tmp_path, "comstock-et-al-1974", only=["site_rows", "staged_packets"]).success
        checks = checked(execute(instance, tmp_path, only=answers, router=url))
    wrong = {name: check.severity for name, check in checks.items() if not check.passed}
    assert wrong == {"all_that_was_sent": dg.AssetCheckSeverity.WARN, "robust_agrees": dg.AssetCheckSeverity.WARN}
    assert checks["all_that_was_sent"].metadata["wrong"].value == 1
