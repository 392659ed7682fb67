"""The strict path, end to end: two sites under mutual TLS, through Python, Spark, DuckDB and Dagster."""

import pickle

import dagster as dg
import duckdb
import pytest
from dagster_runs import execute, made
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.streaming.datasource import ReadAllAvailable

from qis_connectors import Node
from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.network.identity import Identity
from qis_connectors.packet import INTERCHANGE_SCHEMA
from qis_connectors.spark import PacketSource
from qis_connectors.spark.executors import depositing

HERE = "clinical.tuberculosis/bcg_vaccine"
OUTCOME = {
    "metric_name": "log_risk_ratio",
    "metric_delta": -0.5,
    "metric_stderr": 0.2,
    "metric_value": 0.1,
    "sample_count": 262,
    "intervention_type": "bcg_vaccination",
}


@pytest.fixture
def bundles(network):
    return network.bundle("site-a"), network.bundle("site-b")


def test_nodes(strict, bundles):
    problem = {"domain": "clinical.tuberculosis", "problem_type": "bcg_vaccine"}
    with (
        Node("site-a", strict.url, **problem, identity=bundles[0]) as one,
        Node("site-b", strict.url, **problem, identity=bundles[1]) as two,
    ):
        one.deposit(**OUTCOME)
        assert two.step(**OUTCOME)["node_id"].to_pylist() == ["site-a"]
        assert one.query()["node_id"].to_pylist() == ["site-a", "site-b"]
        news = two.watch()
        assert next(news).num_rows == 2
        news.close()
        with (
            Node("site-a", strict.url, **problem, identity=bundles[1]) as liar,
            pytest.raises(QisError, match="node_id"),
        ):
            liar.deposit(**OUTCOME)


def test_spark_reads_and_writes(spark, strict, bundles, packets):
    ours, theirs = ({"router": strict.url, "identity": str(bundle)} for bundle in bundles)
    table = packets(40)
    frame = spark.createDataFrame(table.to_pandas(), schema=from_arrow_schema(table.schema)).coalesce(2)
    frame.write.format("qis").options(**ours).mode("append").save()
    read = spark.read.format("qis").options(**theirs, address="*").schema("node_id string").load()
    assert [row.node_id for row in read.collect()] == ["site-a"] * 40


def test_sparks_tasks_read_and_write(strict, bundles, packets):
    """As Spark calls them, one after the other."""
    table, schema = packets(5), from_arrow_schema(INTERCHANGE_SCHEMA)
    options = {"router": strict.url, "identity": str(bundles[0]), "address": "*"}
    writer = PacketSource({**options, "address": HERE}).streamWriter(schema, overwrite=False)
    staged = pickle.loads(pickle.dumps(writer)).write(iter(table.to_batches()))
    writer.commit([staged], 0)
    reader = PacketSource(options).streamReader(schema)
    start, end = reader.initialOffset(), reader.latestOffset(reader.initialOffset(), ReadAllAvailable())
    parts = pickle.loads(pickle.dumps(reader.partitions(start, end)))
    assert sum(batch.num_rows for part in parts for batch in part.batches()) == 5
    reader.stop()
    (receipt,) = depositing(strict.url, str(bundles[0]))(iter(table.to_batches()))
    assert receipt.to_pylist() == [{"stored": 0, "duplicates": 5}]
    liar = PacketSource({"router": strict.url, "identity": str(bundles[1])}).writer(schema, overwrite=False)
    for deposit in (
        pickle.loads(pickle.dumps(liar)).write,
        lambda batches: list(depositing(strict.url, str(bundles[1]))(batches)),
    ):
        with pytest.raises(QisError, match="'site-a' is not the 'site-b' of the certificate"):
            deposit(iter(table.to_batches()))


def test_duckdb_reads_and_writes(strict, bundles, packets):
    with RouterClient(strict.url, bundles[0]) as client:
        client.deposit(packets(3))
    with qis_duckdb.connect(identity=bundles[1]) as connection:
        connection.execute(f"""
            COPY (SELECT * EXCLUDE packet_id REPLACE ('site-b' AS node_id) FROM
            (SELECT {", ".join(INTERCHANGE_SCHEMA.names)}, packet_id FROM qis_packets('{strict.url}', '*')))
            TO '{strict.url}' (FORMAT qis)
        """)
        counted = f"SELECT node_id, count(*) FROM qis_packets('{strict.url}', '{HERE}') GROUP BY ALL ORDER BY ALL"
        assert connection.sql(counted).fetchall() == [("site-a", 3), ("site-b", 3)]
        assert connection.cursor().sql(f"SELECT packets FROM qis_addresses('{strict.url}')").fetchall() == [(6,)]
        qis_duckdb.attach(connection, strict.url, "net")
        assert connection.sql('SELECT count(*) FROM net."clinical.tuberculosis".bcg_vaccine').fetchall() == [(6,)]
        with pytest.raises(duckdb.Error, match="'site-a' is not the 'site-b' of the certificate"):
            connection.execute(f"COPY (FROM qis_packets('{strict.url}', '*')) TO '{strict.url}' (FORMAT qis)")


def test_duckdb_by_the_environment_and_without_an_identity(strict, network, bundles, monkeypatch):
    addresses = f"FROM qis_addresses('{strict.url}')"
    with qis_duckdb.connect() as connection:
        with pytest.raises(duckdb.Error, match="SET qis_identity"):
            connection.sql(addresses).fetchall()
        monkeypatch.setenv("QIS_IDENTITY", str(bundles[0]))
        assert connection.sql(addresses).fetchall() == []
        ours, theirs = (f"SET qis_token = '{Identity(bundle).token()}'" for bundle in bundles)
        connection.execute(ours)  # as in DuckDB's own shell
        assert connection.sql(addresses).fetchall() == []
        connection.execute(theirs)
        with pytest.raises(duckdb.Error, match=r"refuses the token: site-a: .*SET qis_token"):
            connection.sql(addresses).fetchall()
        connection.execute("RESET qis_token")
        network.rotate("site-a")
        assert connection.sql(addresses).fetchall() == [], "the bundle is read for each query"
        network.revoke("site-a")
        with pytest.raises(duckdb.Error, match="site-a is no member"):
            connection.sql(addresses).fetchall()
        connection.execute(f"SET qis_identity = '{bundles[0].parent}'")
        with pytest.raises(duckdb.Error, match=r"qis_identity: cannot read '.*ca\.pem'"):
            connection.sql(addresses).fetchall()


def test_the_assets_of_two_sites(strict, network, tmp_path):
    """Each in a workspace of its own, as two institutions have them."""
    sites = ("aronson-1948", "ferguson-simes-1949")
    with dg.DagsterInstance.ephemeral() as instance:
        for site in sites:
            settings = {"router": strict.url, "identity": str(network.add(site))}
            done = execute(instance, tmp_path / site, site, **settings)
            assert done.success
            assert made(done)["deposited_packets"]["stored"] == 1
        answers = ("packet_table", "disagreement", "pooled")
        done = execute(
            instance, tmp_path / sites[0], only=answers, router=strict.url, identity=str(network.bundle(sites[0]))
        )
        assert done.success
        assert made(done)["packet_table"]["new packets"] == 2
        # The second site's packets under the first one's name.
        done = execute(
            instance,
            tmp_path / sites[1],
            sites[1],
            only=("deposited_packets",),
            router=strict.url,
            identity=str(network.bundle(sites[0])),
        )
        assert not done.success
        (failure,) = [event for event in done.all_events if event.is_step_failure]
        assert "of the certificate it is deposited under" in str(failure.step_failure_data.error)
        told = " ".join(str(event) for event in done.all_events)
        for site in sites:
            for line in (network.bundle(site) / "signing.pem").read_text().splitlines()[1:-1]:
                assert line not in told
    with RouterClient(strict.url, network.bundle("operator")) as client:
        assert sorted(client.read("*").table["node_id"].to_pylist()) == sorted(sites)
