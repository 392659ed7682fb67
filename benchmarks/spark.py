"""Spark on packets beside Spark on its own Parquet: python benchmarks/spark.py [--quick] [--json]

The router is a process of its own, Spark is local with two cores; what is compared is measured in turns. The same two
cores carry the router too, which a cluster's executors would not have to share.
"""

from __future__ import annotations  # Spark makes LocalBatches anew in its workers, without what only annotations name

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Condition

import numpy as np
import pyarrow as pa
from figures import Figure, main
from load import packets, paired
from pyarrow import flight
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from stores import server

from pipelines.engine import spark_session
from qis_connectors.client import RouterClient
from qis_connectors.spark import register
from qis_connectors.spark.executors import PACKETS, RECEIPTS

ROWS, QUICK_ROWS = 2_000_000, 100_000
FOUR = "metric_name string, metric_delta float, metric_value float, sample_count int"
_BLOCK = 50_000


class LocalBatches(DataSource):
    """Batches out of local Arrow files: what the API itself costs. Option: `folder`."""

    @classmethod
    def name(cls) -> str:
        return "local_batches"

    def reader(self, schema: object) -> DataSourceReader:  # noqa: ARG002 - always all columns
        class Reader(DataSourceReader):
            def __init__(self, folder: str) -> None:
                self.files = sorted(str(path) for path in Path(folder).glob("*.arrow"))

            def partitions(self) -> list[InputPartition]:
                return [InputPartition(file) for file in self.files]

            def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
                file = pa.ipc.open_file(pa.memory_map(partition.value))
                for at in range(file.num_record_batches):
                    yield file.get_batch(at)

        return Reader(self.options["folder"])


def measure(quick: bool) -> Iterator[Figure]:
    rows, rounds = (QUICK_ROWS, 1) if quick else (ROWS, 3)
    spark = spark_session()
    register(spark)
    spark.dataSource.register(LocalBatches)
    with TemporaryDirectory(prefix="qis-benchmark-") as name:
        folder = Path(name)
        with server("router", folder / "store") as url:
            fill(spark, url, folder, rows)
            yield from reads(spark, url, folder, rows, rounds)
            yield from streaming(spark, url, 5 if quick else 20)
        yield from writes(spark, folder, rows, rounds)


def fill(spark: SparkSession, url: str, folder: Path, rows: int) -> None:
    """The same packets at the router, in Parquet and in Arrow files, one of each for each endpoint."""
    with RouterClient(url) as client:
        block = packets(_BLOCK)
        for start in range(0, rows, _BLOCK):
            times = pa.array(np.arange(start, start + _BLOCK, dtype=np.int64))
            client.deposit(block.set_column(1, block.schema.field(1), times))
        (folder / "arrow").mkdir()
        for number, ticket in enumerate(client.endpoints("*")):
            with pa.OSFile(str(folder / "arrow" / f"{number:03}.arrow"), "wb") as sink:
                table = client.read_ticket(ticket).table
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
    read(spark, url).write.parquet(str(folder / "parquet"))


def read(spark: SparkSession, url: str, schema: str | None = None) -> DataFrame:
    reader = spark.read.format("qis").options(router=url, address="*")
    return (reader.schema(schema) if schema else reader).load()


def reads(spark: SparkSession, url: str, folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    local = spark.read.format("local_batches").schema(PACKETS).option("folder", str(folder / "arrow"))
    parquet = str(folder / "parquet")
    ours, floor, scan = paired(
        rounds,
        lambda: seconds(lambda: drain(read(spark, url))),
        lambda: seconds(lambda: drain(local.load())),
        lambda: seconds(lambda: drain(spark.read.parquet(parquet))),
    )
    behind = f"{ours:.2f} s, local batches {floor:.2f} s, {rows / ours:,.0f} rows/s"
    yield Figure(f"read of {rows:,} / local batches through the API", ours / floor, "<= 1.25", behind)
    yield Figure(f"read of {rows:,} / Spark's Parquet scan", ours / scan, "", f"Parquet {scan:.2f} s")
    ours, scan = paired(
        rounds,
        lambda: seconds(lambda: aggregate(read(spark, url, FOUR))),
        lambda: seconds(lambda: aggregate(spark.read.schema(FOUR).parquet(parquet))),
    )
    yield Figure("4 columns, aggregated / over Parquet", ours / scan, "<= 1.0", f"{ours:.2f} s, Parquet {scan:.2f} s")


def writes(spark: SparkSession, folder: Path, rows: int, rounds: int) -> Iterator[Figure]:
    """Each time to a router that has nothing yet."""
    source, number = str(folder / "parquet"), count()

    def to_router(write: Callable[[DataFrame, str], None]) -> float:
        with server("router", folder / f"store-{next(number)}") as url:
            elapsed = seconds(lambda: write(spark.read.parquet(source).drop("packet_id"), url))
            with RouterClient(url) as client:
                assert client.stats()["packets"] == rows
        return elapsed

    def as_parquet() -> None:
        spark.read.parquet(source).drop("packet_id").write.parquet(str(folder / f"written-{next(number)}"))

    ours, bare, parquet = paired(
        rounds, lambda: to_router(write_packets), lambda: to_router(put_bare), lambda: seconds(as_parquet)
    )
    behind = f"{ours:.2f} s, {rows / ours:,.0f} rows/s; "
    yield Figure("write / Spark's Parquet", ours / parquet, "<= 1.0", behind + f"Parquet {parquet:.2f} s")
    yield Figure("write / mapInArrow(do_put)", ours / bare, "<= 1.3", behind + f"do_put {bare:.2f} s")


def streaming(spark: SparkSession, url: str, deposits: int) -> Iterator[Figure]:
    """From the call of deposit to the row in the hands of a micro-batch sink."""
    seen, changed = set(), Condition()

    def sink(frame: DataFrame, _: int) -> None:
        found = [row.node_id for row in frame.select("node_id").collect()]
        with changed:
            seen.update(found)
            changed.notify_all()

    stream = spark.readStream.format("qis").options(router=url, address="training.benchmark").load()
    query = stream.writeStream.foreachBatch(sink).start()
    waits = []
    with RouterClient(url) as client:
        for at in range(deposits + 1):
            row = packets(1).to_pylist()[0] | {"node_id": f"node-{at}", "domain": "training.benchmark"}
            table = pa.Table.from_pylist([row], schema=packets(1).schema)
            started = time.perf_counter()
            client.deposit(table)
            with changed:
                assert changed.wait_for(lambda name=row["node_id"]: name in seen, timeout=60)  # type: ignore[misc]
            waits.append(time.perf_counter() - started)
    query.stop()
    waits = waits[1:]  # the first one waits for the query to start
    behind = f"p50 {median(waits):.2f} s, worst {max(waits):.2f} s of {deposits}, default trigger"
    yield Figure("seconds from deposit to a micro-batch sink", median(waits), "<= 1", behind)


def seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def drain(frame: DataFrame) -> None:
    frame.write.format("noop").mode("overwrite").save()


def aggregate(frame: DataFrame) -> None:
    columns = [F.avg("metric_delta"), F.max("metric_value"), F.sum("sample_count")]
    assert frame.groupBy("metric_name").agg(*columns).collect()


def write_packets(frame: DataFrame, url: str) -> None:
    frame.write.format("qis").option("router", url).mode("append").save()


def put_bare(frame: DataFrame, url: str) -> None:
    """What there is without this package: a plain Flight client in mapInArrow, each batch sent and acknowledged."""

    def put(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with flight.connect(url) as client:
            descriptor = flight.FlightDescriptor.for_path("clinical.tuberculosis/bcg_vaccine")
            sent, writer = 0, None
            for batch in batches:
                if writer is None:
                    writer, acks = client.do_put(descriptor, batch.schema)
                writer.write_batch(batch)
                assert acks.read() is not None
                sent += batch.num_rows
            if writer is not None:
                writer.close()
        yield pa.RecordBatch.from_pylist([{"stored": sent, "duplicates": 0}])

    frame.mapInArrow(put, RECEIPTS).collect()


if __name__ == "__main__":
    main("Spark on packets beside Spark on Parquet", measure)
