"""The DuckDB extension over a real router: every value right, nothing sent that was not asked for."""

import subprocess
import sys
import threading

import duckdb
import pyarrow as pa
import pytest
from any_packets import ROWS, any_packets
from counting_proxy import counting_proxy
from flight_servers import TableServer

from qis_connectors import QisError
from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA


def in_order(table):
    return table.sort_by("packet_id").combine_chunks()


@pytest.mark.parametrize("threads", [1, 4])
def test_every_value_of_400_000_packets_is_the_routers(filled, connection, threads):
    url, source = filled
    assert source.num_rows == ROWS
    connection.execute(f"SET threads = {threads}")
    read = connection.sql(f"FROM qis_packets('{url}', '*')").to_arrow_table()
    assert read.schema.equals(OUTCOME_PACKET_SCHEMA)
    assert in_order(read).equals(in_order(source))


def test_a_table_made_of_it_is_the_same_after_the_file_is_reopened(filled, tmp_path):
    url, source = filled
    with qis_duckdb.connect(tmp_path / "packets.db") as connection:
        connection.execute(f"CREATE TABLE packets AS FROM qis_packets('{url}', 'a.b/*')")
        connection.execute(f"CREATE VIEW live AS FROM qis_packets('{url}', 'a.b/*')")
    # Nothing of the extension keeps the closed file locked: another process can write to it.
    code = f"import duckdb; duckdb.connect({str(tmp_path / 'packets.db')!r}).execute('CREATE TABLE more AS SELECT 1')"
    subprocess.run([sys.executable, "-c", code], check=True)
    with qis_duckdb.connect(tmp_path / "packets.db") as connection:
        expected = source.filter(pa.compute.equal(source["domain"], "a.b"))
        for name in ("packets", "live"):
            assert in_order(connection.sql(f"FROM {name}").to_arrow_table()).equals(in_order(expected))


def test_not_a_number_and_infinity_arrive_as_they_are(connection):
    """A router refuses them; whoever serves them, DuckDB shows them."""
    odd = any_packets(3).set_column(7, "metric_delta", pa.array([float("nan"), float("inf"), None], pa.float32()))
    with TableServer(odd.cast(OUTCOME_PACKET_SCHEMA)) as server:
        found = connection.execute(
            f"SELECT metric_delta FROM qis_packets('grpc://127.0.0.1:{server.port}', '*')"
        ).fetchall()
    assert [str(value) for (value,) in found] == ["nan", "inf", "None"]


def test_only_what_is_asked_for_is_sent(filled, connection):
    url, _ = filled

    def sent_for(sql):
        with counting_proxy(url) as (way, sent):
            connection.execute(sql.replace("PACKETS", f"qis_packets('{way}', '*'")).fetchall()
            return sum(sent)

    whole = sent_for("SELECT max(COLUMNS(*)) FROM PACKETS)")
    assert whole > 60_000_000
    assert sent_for("SELECT avg(metric_value) FROM PACKETS)") < 5.0 * ROWS
    assert sent_for("SELECT count(*), avg(metric_value) FROM PACKETS)") < 5.0 * ROWS
    one_percent = 'filters := \'["sample_count", "<", 111]\''
    kept = connection.execute(f"SELECT count(*) FROM qis_packets('{url}', '*', {one_percent})").fetchone()[0]
    assert 0.005 < kept / ROWS < 0.02
    assert sent_for(f"SELECT max(COLUMNS(*)) FROM PACKETS, {one_percent})") < 0.03 * whole
    assert sent_for("FROM PACKETS) LIMIT 10") < 0.5 * whole


def test_a_view_pushes_down_as_well(filled, connection):
    url, source = filled
    with counting_proxy(url) as (way, sent):
        qis_duckdb.attach(connection, way, "net")
        (total,) = connection.execute('SELECT sum(outcome_decile) FROM net."a.ü"."q r/s"').fetchone()
    there = source.filter((pa.compute.field("domain") == "a.ü") & (pa.compute.field("problem_type") == "q r/s"))
    assert total == pa.compute.sum(there["outcome_decile"]).as_py()
    assert sum(sent) < 3 * there.num_rows


def test_attached_again_it_shows_new_addresses(router, packets, connection):
    with RouterClient(router.url) as client:
        client.deposit(packets(2))
        qis_duckdb.attach(connection, router.url, 'my "net"')
        client.deposit(packets(3, 2, domain="it's"))
        qis_duckdb.attach(connection, router.url, 'my "net"')
    assert connection.execute('SELECT count(*) FROM "my ""net"""."it\'s".bcg_vaccine').fetchone() == (3,)
    connection.execute('DETACH "my ""net"""')
    with pytest.raises(QisError, match="connection refused"):
        qis_duckdb.attach(connection, "grpc://127.0.0.1:1", "net")


def test_twenty_instances_at_once(filled):
    url, _ = filled
    found = []

    def count():
        with qis_duckdb.connect() as connection:
            sql = f"SELECT count(*), count(DISTINCT packet_id) FROM qis_packets('{url}', 'c/p')"
            found.append(connection.execute(sql).fetchone())

    threads = [threading.Thread(target=count) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert len(set(found)) == 1
    assert found[0][0] == found[0][1] > 50_000


def test_a_deposit_is_all_or_nothing(router, connection):
    rows = any_packets(40_000)
    bad = rows.set_column(12, "outcome_decile", pa.array([5] * 39_999 + [11], pa.int8())).cast(OUTCOME_PACKET_SCHEMA)
    count = f"SELECT count(*) FROM qis_packets('{router.url}', '*')"
    connection.execute("SET threads = 1")
    connection.register("bad", bad)
    with pytest.raises(duckdb.Error, match=r"field 'outcome_decile', row .*: 11 is outside 1\.\.10"):
        connection.execute(f"COPY (FROM bad) TO '{router.url}' (FORMAT qis)")
    assert connection.execute(count).fetchone() == (0,)
    assert not router._transactions._open
    assert connection.execute(f"COPY (FROM rows) TO '{router.url}' (FORMAT qis)").fetchone() == (40_000,)
    with RouterClient(router.url) as client:
        stored = client.read("*").table
    assert (
        in_order(stored)
        .drop_columns("packet_id")
        .equals(
            connection.sql(f"FROM qis_packets('{router.url}', '*') ORDER BY packet_id")
            .to_arrow_table()
            .combine_chunks()
            .drop_columns("packet_id")
        )
    )
    by = [("timestamp_utc", "ascending")]
    assert stored.drop_columns("packet_id").sort_by(by).equals(rows.drop_columns("packet_id").sort_by(by))


def test_fifteen_columns_are_enough(router, packets, connection):
    fifteen = packets(3)
    connection.execute(f"COPY (FROM fifteen) TO '{router.url}' (FORMAT qis)")
    read = connection.sql(f"FROM qis_packets('{router.url}', '*')").to_arrow_table()
    assert read.select(INTERCHANGE_SCHEMA.names).equals(fifteen)
