"""One packet table, three engines: Spark with delta-spark, deltalake and DuckDB write and read the same."""

import json
import os
import subprocess
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from pipelines.accumulate import accumulate
from pipelines.engine import spark_is_here
from qis_connectors.client import RouterClient
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here())),
]

# A session with Delta is made when the JVM starts: a process of its own. argv: the router, the table.
SPARK = """
import json, sys
from pathlib import Path
from pipelines.accumulate import accumulate
from pipelines.engine import delta_session
done = [accumulate(sys.argv[1], Path(sys.argv[2]), engine="spark") for _ in range(2)]
rows = delta_session().read.format("delta").load(sys.argv[2]).toArrow()
import pyarrow.parquet as pq
pq.write_table(rows, sys.argv[2] + ".read-by-spark")
print(json.dumps([[one.new, one.total, one.version] for one in done]))
"""


def on_spark(url, table):
    done = subprocess.run([sys.executable, "-c", SPARK, url, str(table)], capture_output=True, text=True, check=False)
    if "Maven Central cannot be reached" in done.stderr:
        pytest.skip("the Delta jar is not here and Maven Central cannot be reached")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def rows(table):
    return table.select(PACKET_TABLE_SCHEMA.names).cast(PACKET_TABLE_SCHEMA).sort_by("packet_id").to_pylist()


def test_three_engines_see_one_table(router, packets, tmp_path):
    table = tmp_path / "packets"
    with RouterClient(router.url) as client:
        client.deposit(pa.concat_tables([packets(30), packets(20, problem_type="other")]))
        assert on_spark(router.url, table)[0][:2] == [50, 50]  # Spark makes it
        client.deposit(packets(10, 100, domain="training.x"))
        done = accumulate(router.url, table)  # deltalake goes on
        assert (done.new, done.total) == (10, 60)
        client.deposit(packets(7, 200))
        first, again = on_spark(router.url, table)  # and Spark again
        assert (first[:2], again[:2]) == ([7, 67], [0, 67])
        assert accumulate(router.url, table).new == 0
        stored = client.read("*").table
    with duckdb.connect() as connection:
        by_duckdb = PacketTable(table).relation(connection).to_arrow_table()
    by_spark = pq.read_table(f"{table}.read-by-spark")
    by_deltalake = DeltaTable(table).to_pyarrow_table()
    assert rows(by_duckdb) == rows(by_spark) == rows(by_deltalake)
    assert by_duckdb.num_rows == 67
    assert sorted(by_duckdb["packet_id"].to_pylist()) == sorted(stored["packet_id"].to_pylist())


def test_without_maven_one_line_says_so_and_the_other_engine_works(router, packets, tmp_path):
    with RouterClient(router.url) as client:
        client.deposit(packets(3))
    nowhere = f"-Divy.home={tmp_path} -Duser.home={tmp_path} -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9"
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "accumulate", "--router", router.url]
    done = subprocess.run(
        [*command, "--table", str(tmp_path / "t"), "--engine", "spark"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAVA_TOOL_OPTIONS": nowhere},
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Picked up JAVA_TOOL_OPTIONS")]
    missing = "the Delta jar is not here and Maven Central cannot be reached; --engine duckdb works without"
    assert lines == [f"qis: engine spark: {missing}"]
    assert done.returncode == 1
    assert accumulate(router.url, tmp_path / "t").new == 3
