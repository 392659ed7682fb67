"""Conditions of a query and the router's filters keep the same packets, NULL and all."""

import pyarrow as pa
import pytest

from qis_connectors.client import RouterClient
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router import Router

pytest.importorskip("pyspark")
from pyspark.sql.datasource import EqualNullSafe, EqualTo, GreaterThan, In, IsNull, Not, StringContains

from qis_connectors.spark.pushdown import Pushdown

CONDITIONS = [
    "sample_count >= 100",
    "NOT (sample_count > 100)",
    "sample_count != 100",
    "outcome_decile IN (1, 3, NULL)",
    "outcome_decile NOT IN (1, NULL)",
    "metric_stderr IS NULL",
    "metric_stderr > 0.1",
    "metric_stderr = cast(0.1 AS float)",
    "metric_stderr <=> cast(0.25 AS float)",
    "NOT (metric_stderr <=> cast(0.25 AS float))",
    "metric_stderr < cast('nan' AS float)",
    "metric_delta = 0.0",
    "node_id < 'site-ü'",
    "node_id LIKE 'site-%' AND node_id != 'site-a'",
    "context IS NULL OR sample_count = 100",
    "signature = X'00'",
    "size(likelihood) = 2",
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory, packets):
    """A router with some packets that differ where the conditions look."""
    rows = []
    for at, packet in enumerate(packets(60).to_pylist()):
        changes = {
            "sample_count": (99, 100, 101, 5000)[at % 4],
            "outcome_decile": 1 + at % 5,
            "metric_name": ("val_auc", "f1")[at % 2],
            "metric_delta": (0.0, -0.0, 0.5)[at % 3],
            "metric_stderr": (None, 0.1, 0.25, 0.3)[at % 4 if at % 7 else 0],
            "node_id": ("site-a", "site-z", "site-ü", "site-東")[at % 4],
            "context": (None, "{}")[at % 2],
            "signature": (None, b"\0")[at % 3 == 0],
            "likelihood": (None, [1.0, 2.0])[at % 5 == 0],
        }
        rows.append({**packet, **changes})
    schema = pa.schema([field for field in OUTCOME_PACKET_SCHEMA if field.name != "packet_id"])
    with Router(tmp_path_factory.mktemp("filters") / "router", "grpc://127.0.0.1:0", "127.0.0.1:0") as router:
        with RouterClient(router.url) as client:
            client.deposit(pa.Table.from_pylist(rows, schema=schema))
            table = client.read("*").table
        yield router, table


def test_the_same_packets_are_kept_as_spark_would_keep(spark, stored):
    router, table = stored
    wanted = [f"coalesce({condition}, false) AS c{at}" for at, condition in enumerate(CONDITIONS)]
    here = spark.createDataFrame(table).selectExpr("packet_id", *wanted).toArrow()
    kept = 0
    for at, condition in enumerate(CONDITIONS):
        there = spark.read.format("qis").options(router=router.url, address="*", pushdown="true").load()
        found = there.where(condition).select("packet_id").toArrow()["packet_id"].to_pylist()
        assert sorted(found) == sorted(here.filter(here[f"c{at}"])["packet_id"].to_pylist()), condition
        kept += 0 < len(found) < 60
    assert kept >= 12, "conditions that keep all or nothing show nothing"


def test_what_is_not_kept_is_not_sent(spark, stored, count_of):
    router, _ = stored
    condition = "sample_count = 5000 AND context IS NOT NULL AND length(node_id) > 2"
    for pushdown, sent in (("true", 15), ("false", 60)):
        before = count_of(router, "qis_packets_sent_total")
        frame = spark.read.format("qis").options(router=router.url, address="*", pushdown=pushdown).load()
        assert frame.where(condition).count() == 15
        assert count_of(router, "qis_packets_sent_total") - before == sent


def test_without_pushdown_a_data_frame_can_be_used_again(spark, stored):
    router, _ = stored
    frame = spark.read.format("qis").options(router=router.url, address="*").load()
    assert [frame.where(f"sample_count = {n}").count() for n in (99, 100)] == [15, 15]
    assert frame.count() == 60
    frame.createOrReplaceTempView("stored_packets")
    two = "(SELECT count(*) FROM stored_packets WHERE sample_count = 99), (SELECT count(*) FROM stored_packets)"
    assert tuple(spark.sql(f"SELECT {two}").first()) == (15, 60)


def test_given_filters_are_applied_by_the_router(spark, stored):
    router, _ = stored
    options = {
        "router": router.url,
        "address": "*",
        "filters": '{"or": [["sample_count", "=", 99], ["context", "is null"]]}',
    }
    for more in ({}, {"pushdown": "true"}):
        frame = spark.read.format("qis").options(**options, **more).load()
        assert frame.where("outcome_decile = 1").count() == len(
            [at for at in range(60) if at % 5 == 0 and (at % 4 == 0 or at % 2 == 0)]
        )


@pytest.mark.parametrize(
    ("condition", "term"),
    [
        (EqualTo(("node_id",), "a"), ["node_id", "=", "a"]),
        (Not(EqualNullSafe(("context",), None)), ["context", "is not null"]),
        (Not(EqualNullSafe(("context",), "{}")), {"or": [["context", "!=", "{}"], ["context", "is null"]]}),
        (In(("outcome_decile",), (1, None)), ["outcome_decile", "in", [1]]),
        (Not(In(("outcome_decile",), (1, 2))), {"and": [["outcome_decile", "!=", 1], ["outcome_decile", "!=", 2]]}),
        (Not(In(("outcome_decile",), (1, None))), None),
        (Not(IsNull(("context",))), ["context", "is not null"]),
        (Not(GreaterThan(("sample_count",), 3)), ["sample_count", "<=", 3]),
        (GreaterThan(("confidence",), float("nan")), None),
        (EqualTo(("signature",), b"x"), None),
        (EqualTo(("context", "latitude"), 1), None),
        (EqualTo(("colour",), 1), None),
        (StringContains(("node_id",), "a"), None),
        (Not(StringContains(("node_id",), "a")), None),
        (In(("node_id",), tuple("x" * 100 + str(n) for n in range(2000))), None),
    ],
)
def test_what_the_router_takes_over(condition, term):
    pushdown = Pushdown()
    assert pushdown.takes(condition) == (term is not None)
    assert pushdown.filters == (None if term is None else {"and": [term]})


def test_no_more_conditions_than_the_router_takes():
    pushdown = Pushdown(["context", "is null"])
    taken = [pushdown.takes(EqualTo(("sample_count",), n)) for n in range(300)]
    assert taken == [True] * 254 + [False] * 46
