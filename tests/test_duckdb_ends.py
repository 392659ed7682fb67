"""How a read in DuckDB ends before its end: interrupted, cut off, refused; and that no argument does harm."""

import shutil
import subprocess
from socket import create_server

import duckdb
import pyarrow as pa
import pytest
from any_packets import any_packets
from counting_proxy import counting_proxy
from flight_servers import NOTHING, TableServer, asks_for_a_token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from load import packets

from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.router import Router


def drain(result):
    while result.fetchmany(10_000):
        pass


def test_an_interrupt_ends_the_read(filled, connection):
    url, _ = filled
    with counting_proxy(url) as (way, sent):
        result = connection.execute(f"FROM qis_packets('{way}', '*') a, range(1000)")
        assert result.fetchmany(10)
        connection.interrupt()
        with pytest.raises(duckdb.InterruptException):
            drain(result)
        assert sum(sent) < 100_000_000
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_router_killed_in_mid_scan_is_one_line(router_process, connection):
    process, url = router_process()
    with RouterClient(url) as client:
        for _ in range(4):  # more than is read ahead
            client.deposit(pa.Table.from_batches([packets(100_000)]))
    connection.execute("SET threads = 1")
    result = connection.execute(f"FROM qis_packets('{url}', '*')")
    assert result.fetchone()
    process.kill()
    with pytest.raises(duckdb.Error, match="router") as raised:
        drain(result)
    assert "\n" not in str(raised.value)
    with pytest.raises(duckdb.Error, match="cannot reach router"):
        connection.execute(f"FROM qis_packets('{url}', '*')")
    _, again = router_process(url)
    assert connection.execute(f"SELECT count(*) FROM qis_packets('{again}', '*')").fetchone() == (400_000,)


def test_a_server_that_stalls_is_given_up(connection):
    connection.execute("SET qis_timeout = 0.5")
    connection.register("rows", any_packets(1))
    with (
        TableServer(any_packets(40_000), stop_after=1) as server,
        pytest.raises(duckdb.Error, match=r"has sent nothing for 0\.5 s"),
    ):
        connection.execute(f"FROM qis_packets('grpc://127.0.0.1:{server.port}', '*')").fetchall()
    with create_server(("127.0.0.1", 0)) as silent:
        url = f"grpc://127.0.0.1:{silent.getsockname()[1]}"
        for sql in (
            f"FROM qis_packets('{url}', '*')",
            f"FROM qis_addresses('{url}')",
            f"COPY (FROM rows) TO '{url}' (FORMAT qis)",
        ):
            with pytest.raises(duckdb.Error, match=r"does not answer within 0\.5 s \(SET qis_timeout\)"):
                connection.execute(sql).fetchall()


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
        with pytest.raises(duckdb.Error, match=r"cannot reach router grpc\+tls"):
            connection.sql(count)
        connection.execute(f"SET qis_tls_roots = '{certificate[0]}'")
        with pytest.raises(duckdb.Error, match=r"refuses the token.*no such token.*SET qis_token"):
            connection.sql(count)
        connection.execute("SET qis_token = 'open sesame'")
        assert connection.execute(count).fetchone() == (10,)


ARGUMENTS = st.one_of(
    st.text(max_size=40), st.sampled_from(["*", "a/b", "[", "%", "\x00", '"', "{}", '"], "x": ["', "é" * 600])
)


def fuzz(url, address, filters, since):
    with qis_duckdb.connect() as connection:
        for where in (url, address):
            try:
                sql = "SELECT count(*) FROM qis_packets(?, ?, filters := ?, since := ?)"
                connection.execute(sql, [where, address, filters, since]).fetchall()
            except duckdb.Error:
                continue  # told, in whatever words: what counts is that the next one is answered
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
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    address=ARGUMENTS,
    filters=st.one_of(st.none(), ARGUMENTS),
    since=st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
)
def test_no_argument_does_harm_for_long(two_packets, address, filters, since):
    fuzz(two_packets, address, filters, since)


@pytest.fixture(scope="module")
def two_packets(tmp_path_factory, packets):
    with (
        Router(tmp_path_factory.mktemp("two") / "store", "grpc://127.0.0.1:0") as router,
        RouterClient(router.url) as client,
    ):
        client.deposit(packets(2))
        yield router.url
