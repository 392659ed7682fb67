"""The DuckDB extension over a real router: every value right, nothing sent that was not asked for, every end an orderly one."""

import shutil
import subprocess
import sys
import threading

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from counting_proxy import counting_proxy
from flight_servers import NOTHING, TableServer, asks_for_a_token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qis_connectors import QisError
from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.duckdb import loading
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA
from qis_connectors.router import Router

ROWS = 400_000
TEXTS = ["", "a", "twelve bytes", "thirteen byte", "é", "日本語の治験", "🜁🜂🜃🜄", "quote ' and \" and \\", "\x7f\t\n"]


def any_packets(rows, seed=7):
    """Complete but for the id: NULLs in every field of ours, unicode, the least and the greatest of every type."""
    random = np.random.default_rng(seed)

    def pick(values, kind):
        return pa.array(values, kind).take(pa.array(random.integers(0, len(values), rows)))

    extremes = [np.finfo(np.float32).max, -np.finfo(np.float32).max, 1e-45, -0.0, 0.1, -1.5]
    columns = {
        name: pa.array(np.full(rows, "x")) if kind == pa.string() else pa.nulls(rows, kind)
        for name, kind in zip(OUTCOME_PACKET_SCHEMA.names, OUTCOME_PACKET_SCHEMA.types, strict=True)
    } | {
        "node_id": pick(["n", *(f"{text}n" for text in TEXTS)], pa.string()),
        "timestamp_utc": pa.array(random.permutation(rows) - rows // 2),
        "domain": pick(["a.b", "a.ü", "c"], pa.string()),
        "problem_type": pick(["p", "q r/s"], pa.string()),
        "model_architecture": pick(TEXTS, pa.string()),
        "training_phase": pick(TEXTS, pa.string()),
        "metric_delta": pick(extremes, pa.float32()),
        "metric_value": pa.array(random.normal(size=rows).astype(np.float32)),
        "confidence": pick([0, 1, 0.5, 1e-45], pa.float32()),
        "intervention_params": pick(["{}", '{"δ": [1, null]}'], pa.string()),
        "outcome_decile": pick([1, 10, 5], pa.int8()),
        "sample_count": pick([1, 2**31 - 1, 262, *range(100, 1100)], pa.int32()),
        "raw_data_hash": pick(TEXTS, pa.string()),
        "packet_id": pa.nulls(rows, pa.string()),
        "metric_stderr": pick([None, 1e-45, 3.0], pa.float32()),
        "context": pick([None, "{}", '{"latitude": 44}'], pa.string()),
        "likelihood": pick([None, [], [0.5], [-1.0] * 8], pa.list_(pa.float32())),
        "sequence": pick([None, -(2**63), 2**63 - 1, 0], pa.int64()),
        "signature": pick([None, b"", b"\x00\xff", bytes(range(64))], pa.binary()),
        "key_id": pick([None, "", "k"], pa.string()),
    }
    return pa.Table.from_arrays([columns[name] for name in OUTCOME_PACKET_SCHEMA.names], schema=OUTCOME_PACKET_SCHEMA)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The url of a router with ROWS packets at six addresses, and these packets in the router's order."""
    with Router(tmp_path_factory.mktemp("filled") / "store", "grpc://127.0.0.1:0") as router:
        with RouterClient(router.url) as client:
            client.deposit(any_packets(ROWS))
            yield router.url, client.read("*").table


@pytest.fixture
def connection():
    with qis_duckdb.connect() as connection:
        yield connection


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
    with pytest.raises(QisError, match="cannot reach router grpc://127.0.0.1:1: connection refused"):
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


def test_an_interrupt_ends_the_read(filled, connection):
    url, _ = filled
    with counting_proxy(url) as (way, sent):
        result = connection.execute(f"FROM qis_packets('{way}', '*') a, range(1000)")
        assert result.fetchmany(10)
        connection.interrupt()
        with pytest.raises(duckdb.InterruptException):
            while result.fetchmany(100_000):
                pass
        assert sum(sent) < 100_000_000
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_router_killed_in_mid_scan_is_one_line(router_process, packets, connection):
    process, url = router_process()
    with RouterClient(url) as client:
        client.deposit(packets(100_000))
    connection.execute("SET threads = 1")
    result = connection.execute(f"FROM qis_packets('{url}', '*')")
    assert result.fetchone()
    process.kill()
    with pytest.raises(duckdb.Error, match="router") as raised:
        while result.fetchmany(10_000):
            pass
    assert "\n" not in str(raised.value)
    with pytest.raises(duckdb.Error, match="cannot reach router"):
        connection.execute(f"FROM qis_packets('{url}', '*')")
    _, again = router_process(url)
    assert connection.execute(f"SELECT count(*) FROM qis_packets('{again}', '*')").fetchone() == (100_000,)


def test_a_server_that_stalls_is_given_up(connection):
    connection.execute("SET qis_timeout = 0.5")
    with (
        TableServer(any_packets(40_000), stop_after=1) as server,
        pytest.raises(duckdb.Error, match=r"has sent nothing for 0\.5 s"),
    ):
        connection.execute(f"FROM qis_packets('grpc://127.0.0.1:{server.port}', '*')").fetchall()
    with counting_proxy("grpc://127.0.0.1:1") as (way, _), pytest.raises(duckdb.Error, match="router"):
        connection.execute(f"FROM qis_packets('{way}', '*')").fetchall()


def test_a_server_of_another_version_is_told_apart(connection):
    newer = NOTHING.append_column("when", pa.array([], pa.date32()))
    with TableServer(newer) as server, pytest.raises(duckdb.Error, match="field 'when' of type date32") as raised:
        connection.sql(f"FROM qis_packets('grpc://127.0.0.1:{server.port}', '*')")
    assert "install a newer qis-connectors" in str(raised.value)
    more = NOTHING.append_column("ours", pa.array([], pa.int64()))
    with TableServer(more) as server:
        assert connection.sql(f"FROM qis_packets('grpc://127.0.0.1:{server.port}', '*')").columns[-1] == "ours"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_and_a_token(certificate, connection):
    with asks_for_a_token(any_packets(10), *certificate) as server:
        count = f"SELECT count(*) FROM qis_packets('grpc+tls://localhost:{server.port}', '*')"
        with pytest.raises(duckdb.Error, match="cannot reach router grpc.tls"):
            connection.sql(count)
        connection.execute(f"SET qis_tls_roots = '{certificate[0]}'")
        with pytest.raises(duckdb.Error, match=r"refuses the token.*no such token.*SET qis_token"):
            connection.sql(count)
        connection.execute("SET qis_token = 'open sesame'")
        assert connection.execute(count).fetchone() == (10,)


def test_a_deposit_is_all_or_nothing(router, connection):
    rows = any_packets(40_000)
    bad = rows.set_column(12, "outcome_decile", pa.array([5] * 39_999 + [11], pa.int8())).cast(OUTCOME_PACKET_SCHEMA)
    count = f"SELECT count(*) FROM qis_packets('{router.url}', '*')"
    connection.execute("SET threads = 1")
    with pytest.raises(duckdb.Error, match="field 'outcome_decile', row .*: 11 is outside 1..10"):
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


ARGUMENTS = st.one_of(
    st.text(max_size=40), st.sampled_from(["*", "a/b", "[", "%", "\x00", '"', "{}", '"], "x": ["', "é" * 600])
)


def fuzz(url, address, filters, since):
    with qis_duckdb.connect() as connection:
        for where in (url, address):
            try:
                sql = "SELECT count(*) FROM qis_packets(?, ?, filters := ?, since := ?)"
                connection.execute(sql, [where, address, filters, since]).fetchall()
            except duckdb.Error as error:
                assert str(error)
        assert connection.execute(f"SELECT count(*) FROM qis_packets('{url}', '*')").fetchone() == (2,)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    address=ARGUMENTS,
    filters=st.one_of(st.none(), ARGUMENTS),
    since=st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
)
def test_no_argument_does_harm(two_packets, address, filters, since):
    fuzz(two_packets, address, filters, since)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    address=ARGUMENTS,
    filters=st.one_of(st.none(), ARGUMENTS),
    since=st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
)
def test_no_argument_does_harm_for_long(two_packets, address, filters, since):
    fuzz(two_packets, address, filters, since)


@pytest.fixture(scope="module")
def two_packets(tmp_path_factory, packets):
    with Router(tmp_path_factory.mktemp("two") / "store", "grpc://127.0.0.1:0") as router:
        with RouterClient(router.url) as client:
            client.deposit(packets(2))
        yield router.url


def test_before_load_there_is_nothing_and_after_it_everything():
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        with pytest.raises(duckdb.CatalogException, match="qis_packets"):
            connection.execute("FROM qis_packets('grpc://127.0.0.1:1', '*')")
        assert qis_duckdb.load(connection) is connection
        qis_duckdb.load(connection)
        found = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_name LIKE 'qis%'"
        )
        assert {name for (name,) in found.fetchall()} == {"qis_packets", "qis_addresses", "qis_attach"}


def test_a_database_that_takes_no_unsigned_extension_is_told_what_to_type():
    with duckdb.connect() as connection, pytest.raises(QisError, match="allow_unsigned_extensions") as raised:
        qis_duckdb.load(connection)
    assert "\n" not in str(raised.value)


def test_an_extension_that_was_not_built_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "EXTENSION", tmp_path / "qis.duckdb_extension")
    with pytest.raises(QisError, match=r"without its DuckDB extension.*C\+\+ compiler"):
        qis_duckdb.connect()


def test_an_extension_for_another_duckdb_says_what_to_do(monkeypatch, tmp_path):
    other = tmp_path / "qis.duckdb_extension"
    other.write_bytes(qis_duckdb.EXTENSION.read_bytes().replace(b"v1.5.6\0", b"v9.5.6\0"))
    monkeypatch.setattr(loading, "EXTENSION", other)
    with pytest.raises(QisError, match="does not fit what is installed; install qis-connectors again") as raised:
        qis_duckdb.connect()
    assert "\n" not in str(raised.value)


def test_the_line_for_the_shell_works_in_any_directory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "qis_connectors.duckdb"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    # In a process that has not imported pyarrow: the extension finds its libraries by itself.
    code = f"""
import sys, duckdb
duckdb.connect(config={{"allow_unsigned_extensions": "true"}}).execute({done.stdout!r})
assert "pyarrow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
