"""Streams from and to a router: every packet once, whatever is stopped and started again."""

import pyarrow as pa
import pytest

from qis_connectors.client import RouterClient
from qis_connectors.router import Router

pytest.importorskip("pyspark")
from pyspark.errors import StreamingQueryException

SECONDS = 60


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


@pytest.fixture
def other(tmp_path):
    """A second router, for what a stream writes."""
    with Router(tmp_path / "other", "grpc://127.0.0.1:0") as other, RouterClient(other.url) as client:
        yield client


@pytest.fixture
def forward(spark, router, other, tmp_path):
    """forward(**options): a query that carries packets from the one router to the other; stopped at the end."""
    started = []

    def start(change=lambda frame: frame, trigger=None, address="clinical.*", **options):
        frame = spark.readStream.format("qis").options(router=router.url, address=address, **options).load()
        writer = change(frame).writeStream.format("qis").option("router", other.url)
        writer = writer.option("checkpointLocation", str(tmp_path / "checkpoint"))
        query = (writer.trigger(**trigger) if trigger else writer).start()
        started.append(query)
        return query

    yield start
    for query in started:
        query.stop()


def times(client):
    return sorted(client.read("*", columns=["timestamp_utc"]).table["timestamp_utc"].to_pylist())


def test_every_packet_once_across_a_stop_and_a_start(forward, client, other, packets):
    client.deposit(packets(20))
    query = forward()
    query.processAllAvailable()
    assert times(other) == times(client)
    client.deposit(packets(5, 20))
    query.processAllAvailable()
    query.stop()
    client.deposit(packets(7, 25))
    client.deposit(packets(3, 99, domain="training.x"))  # not at the address
    forward().processAllAvailable()
    assert len(times(other)) == 32
    assert other.stats()["duplicates"] == 0


def test_nothing_new_at_the_address_is_no_micro_batch(forward, client, packets):
    client.deposit(packets(2))
    query = forward()
    query.processAllAvailable()
    client.deposit(packets(3, 99, domain="training.x"))
    query.processAllAvailable()
    assert query.lastProgress["batchId"] <= 1
    assert query.lastProgress["numInputRows"] == 0 or query.lastProgress["batchId"] == 0


def test_a_micro_batch_has_no_more_than_it_may_and_available_now_ends(forward, client, other, packets):
    client.deposit(pa.concat_tables([packets(10), packets(50, 100, domain="training.x"), packets(1, 10)]))
    query = forward(maxPacketsPerTrigger="4", trigger={"availableNow": True})
    client.deposit(packets(4, 20))
    assert query.awaitTermination(SECONDS)
    at_once = [one["numInputRows"] for one in query.recentProgress if one["numInputRows"]]
    assert at_once[:2] == [4, 4]
    assert sum(at_once) in (11, 15)  # what came while it started may count as there
    assert other.stats()["packets"] == sum(at_once)


def test_a_filter_is_applied_by_the_router(forward, client, other, packets):
    client.deposit(pa.concat_tables([packets(6), packets(4, 6, sample_count=11)]))
    query = forward(filters='["sample_count", "<", 100]', trigger={"availableNow": True})
    assert query.awaitTermination(SECONDS)
    assert other.read("*").table["sample_count"].to_pylist() == [11] * 4


def test_a_micro_batch_that_fails_leaves_nothing_and_is_run_again(forward, client, other, packets):
    """One packet of it is refused; the query started again without the fault delivers all of them, once."""
    client.deposit(packets(10))
    bad = "if(timestamp_utc % 10 = 9, cast('nan' as float), metric_delta)"
    query = forward(lambda frame: frame.drop("packet_id").selectExpr("* except (metric_delta)", f"{bad} metric_delta"))
    with pytest.raises(StreamingQueryException, match="field 'metric_delta', row 9: nan is not a finite number"):
        query.processAllAvailable()
    assert other.stats()["packets"] == 0
    forward().processAllAvailable()
    assert times(other) == times(client)


def test_a_batch_that_was_committed_but_not_noted_is_known_again(forward, client, other, packets, tmp_path):
    """Killed between the router's commit and Spark's note of it: the commit log lacks the batch."""
    client.deposit(packets(10))
    query = forward()
    query.processAllAvailable()
    query.stop()
    for note in (tmp_path / "checkpoint" / "commits").glob("*0*"):
        note.unlink()
    # Other packets of the same input, as rand() would make them: none of them is one that the router knows already.
    again = forward(lambda frame: frame.drop("packet_id").selectExpr("* except (confidence)", "0.25f AS confidence"))
    again.processAllAvailable()
    assert again.recentProgress[0]["numInputRows"] == 10, "it was not run again"
    assert times(other) == times(client)


def test_a_router_that_comes_back_is_followed_on(spark, router_process, packets):
    process, url = router_process()
    with RouterClient(url) as client:
        client.deposit(packets(5))
    stream = spark.readStream.format("qis").options(router=url, address="*").load()
    query = stream.writeStream.format("memory").queryName("followed").start()
    try:
        query.processAllAvailable()
        process.kill()
        process.wait()
        router_process(url)
        with RouterClient(url) as client:
            client.deposit(packets(5, 5))
        query.processAllAvailable()
        assert spark.table("followed").count() == spark.table("followed").distinct().count() == 10
    finally:
        query.stop()


def test_another_store_is_read_from_its_beginning(spark, packets, tmp_path):
    def run(url):
        stream = spark.readStream.format("qis").options(router=url, address="*").load()
        writer = stream.writeStream.format("parquet").option("path", str(tmp_path / "out"))
        writer = writer.option("checkpointLocation", str(tmp_path / "checkpoint")).trigger(availableNow=True)
        assert writer.start().awaitTermination(SECONDS)

    with Router(tmp_path / "first", "grpc://127.0.0.1:0") as first, RouterClient(first.url) as client:
        client.deposit(packets(5))
        run(first.url)
    with Router(tmp_path / "second", first.url) as second, RouterClient(second.url) as client:
        client.deposit(packets(3, 5))
        run(second.url)
    assert spark.read.parquet(str(tmp_path / "out")).count() == 8


def test_a_limit_is_a_whole_number(spark, router, tmp_path):
    stream = spark.readStream.format("qis").options(router=router.url, address="*", maxPacketsPerTrigger="0").load()
    query = stream.writeStream.format("noop").option("checkpointLocation", str(tmp_path / "c")).start()
    with pytest.raises(StreamingQueryException, match=r"option maxPacketsPerTrigger: .* is not a whole number"):
        query.processAllAvailable()
