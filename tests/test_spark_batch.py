"""format("qis") on real Spark: what is read is what is there, what is written is there once, or not at all."""

import time
from threading import Thread

import pyarrow as pa
import pytest

from qis_connectors.client import RouterClient
from qis_connectors.outgoing import complete
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA
from qis_connectors.router import Router

pytest.importorskip("pyspark")
from py4j.protocol import Py4JError
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from qis_connectors.spark import register

TASKS = 45


@pytest.fixture
def router(tmp_path):
    with Router(tmp_path / "router", "grpc://127.0.0.1:0", "127.0.0.1:0") as router:
        yield router


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


@pytest.fixture
def load(spark, router):
    def load(address="*", schema=None, **options):
        reader = spark.read.format("qis").options(router=router.url, address=address, **options)
        return (reader.schema(schema) if schema else reader).load()

    return load


@pytest.fixture
def save(router):
    def save(frame, mode="append", **options):
        frame.write.format("qis").options(router=router.url, **options).mode(mode).save()

    return save


@pytest.fixture
def every_type(packets):
    """Three packets: every field filled with what its type can hold, only the fifteen, and likelihood with key."""
    full = {
        "node_id": "Krankenhaus Süd 東",
        "timestamp_utc": -(2**62),
        "metric_delta": -3.4e38,
        "metric_value": 1.4e-45,
        "confidence": 1.0,
        "outcome_decile": 10,
        "sample_count": 2**31 - 1,
        "metric_stderr": 0.1,
        "context": '{"latitude":44}',
        "likelihood": [-0.5, 0.0, 1e-30],
        "sequence": 2**63 - 1,
        "signature": bytes(range(64)),
        "key_id": "k",
    }
    first = packets(1).to_pylist()[0]
    rows = [{**first, **full}, first, {**first, "timestamp_utc": 0, "likelihood": [], "context": "{}", "key_id": "k"}]
    schema = pa.schema([field for field in OUTCOME_PACKET_SCHEMA if field.name != "packet_id"])
    return pa.Table.from_pylist(rows, schema=schema)


@pytest.fixture
def small_batches(spark):
    """small_batches(n): Spark hands its tasks so many rows at a time."""
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    yield lambda rows: spark.conf.set(name, rows)
    spark.conf.set(name, before)


@pytest.fixture
def thread(spark):
    """thread(f): f(session) in a thread of its own, with a session of its own: Spark finds a Python source only in the
    session that is active in its thread.
    """

    def start(function):
        def run():
            session = spark.newSession()
            register(session)
            function(session)

        started = Thread(target=run)
        started.start()
        return started

    return start


def by_id(table):
    return table.combine_chunks().sort_by("packet_id").to_pylist()


def staged(tmp_path):
    return list((tmp_path / "router" / "staged").glob("*"))


def packets_of_tasks(spark, packets, tasks, each):
    """A frame of tasks * each packets, made on the executors: `each` by each of `tasks` partitions."""
    template = packets(1)

    def make(batches):
        for batch in batches:
            rows = template.take([0] * batch.num_rows)
            yield from rows.set_column(1, "timestamp_utc", batch["id"]).to_batches()

    frame = spark.range(tasks * each, numPartitions=tasks)
    return frame.mapInArrow(make, spark.createDataFrame(template).schema)


def test_every_type_and_null_is_read_and_written_as_it_is(load, save, spark, client, every_type):
    save(spark.createDataFrame(every_type), address="clinical.tuberculosis/bcg_vaccine/north")
    stored = client.read("clinical.tuberculosis/bcg_vaccine/north").table
    assert by_id(stored) == by_id(complete(every_type))
    frame = load()
    read = frame.toArrow()
    assert read.schema.equals(OUTCOME_PACKET_SCHEMA)
    assert by_id(read) == by_id(stored)
    save(frame)  # with the ids they have
    assert client.stats()["packets"] == 3


def test_an_address_a_prefix_a_glob_and_an_address_of_nothing(load, client, packets):
    client.deposit(pa.concat_tables([packets(3), packets(2, problem_type="other"), packets(1, domain="training.x")]))
    for address, count in (
        ("clinical.tuberculosis/other", 2),
        ("clinical.tuberculosis", 5),
        ("clinical.*", 5),
        ("*", 6),
        ("nothing/there", 0),
    ):
        assert load(address).count() == count, address


def test_only_the_columns_of_the_schema_are_asked_for(load, client, packets):
    client.deposit(packets(5))
    frame = load(schema="metric_delta float, node_id string, outcome_decile byte")
    assert frame.columns == ["metric_delta", "node_id", "outcome_decile"]
    assert frame.toArrow().to_pylist() == client.read("*", columns=frame.columns).table.to_pylist()


def test_a_large_read_has_a_task_for_each_endpoint(load, client, packets):
    template = packets(1)
    for start in (0, 150_000):
        rows = template.take([0] * 150_000)
        client.deposit(rows.set_column(1, "timestamp_utc", pa.array(range(start, start + 150_000))))
    frame = load(schema="timestamp_utc long")
    assert frame.rdd.getNumPartitions() == len(client.endpoints("*")) >= 3
    total, distinct = frame.agg(F.count("*"), F.count_distinct("timestamp_utc")).first()
    assert (total, distinct) == (300_000, 300_000)


def test_addresses_come_from_domain_and_problem_type(save, spark, client, packets):
    mixed = pa.concat_tables([packets(3), packets(2, problem_type="a b/c"), packets(1, domain="training.x")])
    save(spark.createDataFrame(mixed).repartition(3))
    held = dict(zip(*client.addresses().select(["address", "packets"]).to_pydict().values(), strict=True))
    assert held == {
        "clinical.tuberculosis/bcg_vaccine": 3,
        "clinical.tuberculosis/a%20b%2Fc": 2,
        "training.x/bcg_vaccine": 1,
    }


def test_tasks_that_fail_midway_are_run_again_and_nothing_is_stored_twice(
    save, spark, router, client, packets, small_batches, count_of, tmp_path
):
    def fail(batches):
        context = TaskContext.get()
        task, attempt = context.partitionId(), context.attemptNumber()
        for batch in batches:
            yield batch.slice(0, 600)  # more than Spark holds back
            if task in (7, 21) and attempt < 2:
                time.sleep(1)  # what was handed on is staged by now
                raise RuntimeError("injected: midway")
            yield batch.slice(600)
        if task in (30, 44) and attempt == 0:
            raise RuntimeError("injected: at the end")

    small_batches(100)
    frame = packets_of_tasks(spark, packets, TASKS, 1000)
    save(frame.mapInArrow(fail, frame.schema))
    stored = client.read("*", columns=["timestamp_utc"]).table["timestamp_utc"].to_pylist()
    assert sorted(stored) == list(range(1000 * TASKS))
    assert count_of(router, "qis_packets_staged_total") > len(stored), "no task had staged anything before it failed"
    assert staged(tmp_path) == []


def test_a_job_that_fails_leaves_nothing(save, spark, client, packets, tmp_path):
    def fail(batches):
        yield from batches
        if TaskContext.get().partitionId() == 7:
            raise RuntimeError("injected: for good")

    frame = packets_of_tasks(spark, packets, 8, 10)
    with pytest.raises(PySparkException, match="injected: for good"):
        save(frame.mapInArrow(fail, frame.schema))
    assert client.stats()["packets"] == 0
    assert staged(tmp_path) == []


def test_a_cancelled_job_leaves_nothing(save, spark, client, packets, thread, tmp_path):
    def dawdle(batches):
        yield from batches
        time.sleep(1)

    ended = []

    def run(session):
        session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 100)
        frame = packets_of_tasks(session, packets, TASKS, 1000)
        with pytest.raises((PySparkException, Py4JError)) as info:
            save(frame.mapInArrow(dawdle, frame.schema))
        ended.append(str(info.value))

    job = thread(run)
    deadline = time.monotonic() + 30
    while not any((folder / "packets.records").exists() for folder in staged(tmp_path)):
        assert time.monotonic() < deadline, "nothing was ever staged"
        time.sleep(0.05)
    spark.sparkContext.cancelAllJobs()
    job.join(30)
    assert "cancelled" in ended[0]
    assert client.stats()["packets"] == 0
    assert staged(tmp_path) == []


def test_writers_side_by_side_store_each_packet_once(save, client, packets, thread):
    writers = [thread(lambda session: save(packets_of_tasks(session, packets, 4, 100))) for _ in range(3)]
    for writer in writers:
        writer.join()
    assert client.stats()["packets"] == client.read("*").table.num_rows == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric_delta": "if(timestamp_utc = 150, null, metric_delta)"}, r"field 'metric_delta', row 150: is null"),
        (
            {"model_architecture": "if(timestamp_utc = 199, repeat('x', 600), 'x')"},
            r"field 'model_architecture', row 199: is 600 bytes long",
        ),
        ({"colour": "'blue'"}, r"field 'colour': is not a field of a packet"),
        ({"node_id": "array(1)"}, r"field 'node_id': does not fit string"),
    ],
)
def test_what_is_no_packet_fails_the_job_with_field_and_row(save, spark, client, packets, tmp_path, change, message):
    frame = packets_of_tasks(spark, packets, 1, 200)
    with pytest.raises(PySparkException, match=message):
        save(frame.withColumns({name: F.expr(text) for name, text in change.items()}))
    assert client.stats()["packets"] == 0
    assert staged(tmp_path) == []


def test_a_field_that_is_missing_is_named(save, spark, packets):
    with pytest.raises(PySparkException, match="field 'sample_count': is missing"):
        save(spark.createDataFrame(packets(1)).drop("sample_count"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"router": ""}, r'needs the option \'router\': .option\("router", "grpc://127.0.0.1:8815"\)'),
        ({"address": ""}, r'needs the option \'address\': .option\("address", "clinical'),
        ({"address": "a//b"}, r"address 'a//b' has an empty or dotted segment"),
        ({"filters": "{"}, r"option 'filters' is not JSON"),
        ({"filters": '["site", "=", 1]'}, r"'site' is not a field of a packet"),
        ({"schema": "site string"}, r"schema: 'site' is not a field of a packet"),
        ({"schema": "metric_delta double"}, r"schema: 'metric_delta' is float, not double"),
        ({"router": "grpc://127.0.0.1:1"}, r"cannot reach router grpc://127.0.0.1:1: connection refused"),
    ],
)
def test_what_cannot_be_read_is_one_line(spark, router, options, message):
    given = {"router": router.url, "address": "*", **options}
    reader = spark.read.format("qis")
    if schema := given.pop("schema", None):
        reader = reader.schema(schema)
    with pytest.raises(PySparkException, match=message):
        reader.options(**given).load().count()


def test_packets_are_never_overwritten(save, spark, packets):
    with pytest.raises(PySparkException, match=r"packets are never overwritten: write with mode\(.append.\)"):
        save(spark.createDataFrame(packets(1)), mode="overwrite")


def test_a_read_goes_on_where_it_was_when_the_router_comes_back(spark, router_process, packets, thread, tmp_path):
    process, url = router_process()
    template = packets(1)
    with RouterClient(url) as client:
        rows = template.take([0] * 200_000)
        client.deposit(rows.set_column(1, "timestamp_utc", pa.array(range(200_000))))
        assert len(client.endpoints("*")) > 1
    begun = tmp_path / "begun"

    def slowly(batches):
        for batch in batches:
            begun.touch()
            time.sleep(0.1)
            yield batch.select(["timestamp_utc"])

    frame = spark.read.format("qis").options(router=url, address="*").load()
    counted = []
    slow = frame.mapInArrow(slowly, "timestamp_utc long").agg(F.count("*"), F.count_distinct("timestamp_utc"))
    job = thread(lambda _: counted.append(slow.first()))
    while not begun.exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(0.5)
    assert not counted, "the read was over before the router was killed"
    router_process(url)
    job.join(60)
    assert tuple(counted[0]) == (200_000, 200_000)


def test_the_schema_is_the_packets(load):
    names = load().columns
    assert names[: len(INTERCHANGE_SCHEMA)] == INTERCHANGE_SCHEMA.names
