import time
from math import erf, sqrt

import pyarrow as pa
import pytest

from qis_connectors import Node, PacketError, QisError
from qis_connectors.receipt import Receipt

PROBLEM = {"domain": "clinical.tuberculosis", "problem_type": "bcg_vaccine"}
OUTCOME = {
    "metric_name": "val_auc",
    "metric_delta": 0.5,
    "metric_value": 0.75,
    "metric_stderr": 0.25,
    "sample_count": 5000,
    "intervention_type": "learning_rate_schedule",
}


@pytest.fixture
def join(router):
    """join(node_id) -> a Node that is closed at the end."""
    nodes = []

    def make(node_id, **problem):
        nodes.append(Node(node_id, router.url, **{**PROBLEM, **problem}))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def test_one_packet_from_its_fields(join):
    node = join("site-a")
    before = time.time_ns() // 1_000_000
    receipt = node.deposit(
        **OUTCOME, intervention_params={"warmup": 500, "b": [1]}, context={"latitude": 44, "à": None}
    )
    assert receipt == Receipt(1, 0, 1)
    (row,) = node.query().to_pylist()
    assert before <= row.pop("timestamp_utc") <= time.time_ns() // 1_000_000
    assert row.pop("packet_id")
    assert row == {
        "node_id": "site-a",
        **PROBLEM,
        **OUTCOME,
        "model_architecture": "",
        "training_phase": "",
        "confidence": pytest.approx(erf(2 / sqrt(2))),
        "intervention_params": '{"b":[1],"warmup":500}',
        "outcome_decile": 5,
        "raw_data_hash": "",
        "context": '{"latitude":44,"à":null}',
        "likelihood": None,
        "sequence": 1,
        "signature": None,
        "key_id": None,
    }


def test_deciles_stand_among_the_nodes_own_outcomes_for_the_metric(join):
    other = join("site-b")
    other.deposit(**{**OUTCOME, "metric_delta": 9.0})
    node = join("site-a")
    node.deposit(**{**OUTCOME, "metric_name": "loss", "metric_delta": 7.0})
    for delta in (0.25, 0.5, 0.125, 0.375):
        node.deposit(**{**OUTCOME, "metric_delta": delta})
    node.deposit(**{**OUTCOME, "metric_delta": 1.0}, outcome_decile=1)
    rows = [row for row in node.query().to_pylist() if row["node_id"] == "site-a" and row["metric_name"] == "val_auc"]
    assert [row["outcome_decile"] for row in rows] == [5, 8, 2, 7, 1]


def test_sequence_goes_on_after_a_restart_and_after_a_table(join, packets):
    with join("site-a") as node:
        node.deposit(**OUTCOME)
        node.deposit(**OUTCOME, timestamp_utc=5)
        node.deposit(packets(3, node_id="site-a"))
        node.deposit(**OUTCOME, timestamp_utc=6)
        assert node.deposit(**OUTCOME, timestamp_utc=6, outcome_decile=1).stored
    again = join("site-a")
    again.deposit(**OUTCOME, timestamp_utc=7)
    assert again.query()["sequence"].to_pylist() == list(range(1, 9))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"metric_nmae": "x"}, "field 'metric_nmae': is not a field of a packet"),
        ({"node_id": "site-b"}, "field 'node_id': is the node's to set"),
        ({"metric_value": None}, "field 'metric_value': is missing"),
        ({"metric_stderr": None}, "field 'confidence': is missing, and there is no metric_stderr to compute it from"),
        ({"metric_stderr": 0}, "field 'metric_stderr', row 0: 0.0 is not above 0"),
        ({"metric_delta": "0.5"}, "field 'metric_delta': '0.5' does not fit float"),
        ({"metric_name": 5}, "field 'metric_name': 5 does not fit string"),
        ({"metric_delta": float("nan")}, "field 'metric_delta', row 0: nan is not a finite number"),
        ({"sample_count": 2**40}, "field 'sample_count': 1099511627776 does not fit int32"),
        ({"sample_count": 1.5}, "field 'sample_count': 1.5 does not fit int32"),
        ({"context": {"x": float("nan")}}, "field 'context': {'x': nan} does not fit string"),
        ({"context": {"x": object}}, "field 'context': {'x': <class 'object'>} does not fit string"),
        ({"intervention_params": "[]"}, "field 'intervention_params', row 0: '[]' is not a JSON object"),
        ({"confidence": 1.25}, "field 'confidence', row 0: 1.25 is outside 0..1"),
        ({"raw_data_hash": "x" * 600}, "field 'raw_data_hash', row 0: is 600 bytes long"),
    ],
)
def test_a_bad_field_is_named_and_nothing_stored(join, fields, line):
    node = join("site-a")
    with pytest.raises(PacketError) as error:
        node.deposit(**{**OUTCOME, **fields})
    assert str(error.value).startswith(line)
    assert node.query().num_rows == 0


def test_a_table_must_be_the_nodes_own(join, packets):
    node = join("site-a")
    mixed = pa.concat_tables([packets(1), packets(1, node_id="site-b")])
    with pytest.raises(PacketError, match=r"^field 'node_id', row 1: 'site-b' is not this node, 'site-a'$"):
        node.deposit(mixed)
    with pytest.raises(PacketError, match=r"^field 'metric_delta': is given beside a table of packets$"):
        node.deposit(packets(1), metric_delta=1)
    assert node.query().num_rows == 0


def test_query_elsewhere(join, packets):
    node = join("site-a")
    node.deposit(packets(3, problem_type="other"))
    assert node.query().num_rows == 0
    found = node.query("clinical.*", since=1, columns=["node_id"], limit=1)
    assert found.to_pylist() == [{"node_id": "site-a"}]


def test_step_gives_what_the_others_have_stored_since_the_step_before(join):
    a, b, elsewhere = join("site-a"), join("site-b"), join("site-c", problem_type="other")
    b.deposit(**OUTCOME)
    elsewhere.deposit(**OUTCOME)
    assert a.step(**OUTCOME)["node_id"].to_pylist() == ["site-b"]
    assert a.step(**OUTCOME, timestamp_utc=1).num_rows == 0
    b.deposit(**OUTCOME, timestamp_utc=2)
    b.deposit(**OUTCOME, timestamp_utc=3)
    news = a.step(**OUTCOME, timestamp_utc=4)
    assert news["timestamp_utc"].to_pylist() == [2, 3]
    assert b.step(**OUTCOME, timestamp_utc=5)["node_id"].to_pylist() == ["site-a"] * 3


def test_synthesize_pools_the_address(join):
    for at, delta in enumerate((-0.5, -0.75, -0.25)):
        join(f"site-{at}").deposit(**{**OUTCOME, "metric_delta": delta})
    answer = join("reader").synthesize()
    fixed = answer.filter(pa.compute.field("method") == "FE")
    assert fixed["k"].to_pylist() == [3]
    assert fixed["estimate"].to_pylist() == pytest.approx([-0.5])
    with pytest.raises(QisError, match="no_such_answer"):
        join("another").synthesize("no_such_answer")


def test_a_node_needs_a_router():
    with pytest.raises(QisError, match=r"^cannot reach router grpc://127.0.0.1:1: connection refused$"):
        Node("site-a", "grpc://127.0.0.1:1", **PROBLEM)
