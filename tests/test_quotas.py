"""Quotas: what one site may use; and clients that hold on to what they do not use."""

import json
import socket
import time
from contextlib import ExitStack
from threading import Thread

import pytest
from exchanging import HERE, exchanging_on, has_come
from pyarrow import flight
from signed_packets import audited, changed, make_site

from qis_connectors import QisError
from qis_connectors.client import RouterClient
from qis_connectors.packet import INTERCHANGE_SCHEMA
from qis_connectors.router import Router, bucket
from qis_connectors.router.bucket import Bucket
from qis_connectors.router.quotas import QuotaFileError, Quotas, load
from qis_connectors.router.refusals import BusyError
from qis_connectors.signing import sign


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds): so much later."""
    now = [1000.0]
    monkeypatch.setattr(bucket.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bucket.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def later(seconds):
        now[0] += seconds

    return later


@pytest.fixture
def quotas(tmp_path):
    """quotas(text): the path of a file of quotas."""

    def write(text):
        path = tmp_path / "quotas.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_bucket_fills_at_its_rate_and_no_further(clock):
    one = Bucket(rate=10, burst=50)
    assert (one.level(), one.wait()) == (50, 0)
    one.take(50)
    assert (one.level(), one.wait()) == (0, 0)
    one.take(30)
    assert (one.level(), one.wait()) == (-30, 3)
    clock(2)
    assert (one.level(), one.wait()) == (-10, 1)
    clock(100)
    assert one.level() == 50


def test_a_site_is_held_up_and_then_refused_and_no_other(clock, quotas):
    made = Quotas(load(quotas("{default: {packets: 100}, burst: 1, sites: {fast: {packets: 1000}}}")))
    made.charge("site-a", 150, 1e9)
    made.charge("fast", 150, 1e9)
    began = bucket.time.monotonic()
    made.pass_by(["fast", "site-b"])
    assert bucket.time.monotonic() == began
    made.pass_by(["site-a", "fast"])
    assert bucket.time.monotonic() == began + 0.5
    made.charge("site-a", 400, 0)
    with pytest.raises(BusyError, match=r"^'site-a' is over its quota of 100 packets a second; try again in 3\.0 s$"):
        made.pass_by(["site-a"])
    clock(3)
    made.pass_by(["site-a"])


def test_streams_are_counted_while_they_are_open(quotas):
    made = Quotas(load(quotas("default: {streams: 1}")))
    with made.streaming("site-a"), made.streaming("site-b"), pytest.raises(BusyError, match="1 streams of 'site-a'"):
        made.streaming("site-a").__enter__()
    with made.streaming("site-a"):
        pass


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("idle: 5\ndefault: {packets: 0}", "2: 'default.packets': input should be greater than 0"),
        ("default: {rows: 5}", "1: 'default.rows': extra inputs are not permitted"),
        ("sites: [a]", "1: 'sites': input should be a valid dictionary"),
        ("a: [", "1: not YAML"),
        ("- a", "1: a file of quotas is a mapping of names to values"),
    ],
)
def test_a_wrong_file_is_named_with_its_place(qis, quotas, tmp_path, text, line):
    path = quotas(text)
    status, _, err = qis("router", "--store", tmp_path / "store", "--listen", "grpc://127.0.0.1:0", "--quotas", path)
    assert status == 1
    assert err.startswith(f"qis: {path}:{line}")
    with pytest.raises(QuotaFileError, match="No such file"):
        load(tmp_path / "nowhere")


def test_a_site_over_its_quota_is_told_when_to_come_back(quotas, packets, tmp_path):
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", quotas=quotas("{default: {packets: 10}, burst: 1}")) as router,
        RouterClient(router.url) as client,
    ):
        assert client.deposit(packets(40)).stored == 40
        with pytest.raises(QisError, match=r"'127\.0\.0\.1' is over its quota of 10 packets a second; try again in"):
            client.deposit(packets(1, 100))
        assert client.stats()["refused"] == {"busy": 1}
        assert client.read("*").table.num_rows == 40
    assert [line["decision"] for line in audited(tmp_path / "store")] == ["stored 40", "refused: busy"]


def test_where_sites_have_keys_each_has_its_own_quota(quotas, packets, tmp_path):
    one, two = (make_site(tmp_path, node_id) for node_id in ("site-a", "site-b"))
    limited = quotas("{default: {packets: 10}, burst: 1}")
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", keys=tmp_path / "keys", quotas=limited) as router,
        RouterClient(router.url) as client,
    ):
        client.deposit(sign(packets(40), one))
        with pytest.raises(QisError, match="'site-a' is over its quota"):
            client.deposit(sign(packets(41), one).slice(40, 1))
        signed = sign(packets(30, node_id="site-b"), two)
        with pytest.raises(QisError, match="is not of this packet by 'site-b'"):
            client.deposit(changed(signed, metric_delta=0.5))
        assert client.deposit(signed).stored == 30, "what others send in its name does not count"


def test_a_host_has_so_many_streams(quotas, packets, tmp_path):
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", quotas=quotas("default: {streams: 2}")) as router,
        flight.connect(router.url) as plain,
        RouterClient(router.url) as client,
    ):
        client.deposit(packets(1))
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(exchanging_on(plain)).read_chunk()
            for call in (lambda: client.deposit(packets(1)), lambda: client.read("*")):
                with pytest.raises(QisError, match=r"2 streams of '127\.0\.0\.1' are open, its quota"):
                    call()
        assert has_come(lambda: client.stats()["streams"]["DoExchange"] == 0)
        assert client.read("*").table.num_rows == 1


def test_a_slow_loris_is_ended_with_one_line(quotas, packets, tmp_path):
    with Router(tmp_path / "store", "grpc://127.0.0.1:0", quotas=quotas("idle: 0.4")) as router:
        with flight.connect(router.url) as slow, RouterClient(router.url) as client:
            writer, acks = slow.do_put(flight.FlightDescriptor.for_path(HERE), INTERCHANGE_SCHEMA)
            writer.write_table(packets(1))
            assert json.loads(acks.read().to_pybytes())["stored"] == 1
            assert acks.read() is None
            with pytest.raises(flight.FlightUnavailableError):
                writer.close()
            assert has_come(lambda: client.stats()["refused"] == {"idle": 1})
            assert client.deposit(packets(1, 1)).stored == 1
        told = [(line["verb"], line["decision"]) for line in audited(tmp_path / "store")]
    assert told == [("deposit", "stored 1"), ("DoPut", "refused: idle"), ("deposit", "stored 1")]


def test_a_stream_that_goes_on_is_not_silent(quotas, packets, tmp_path):
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", quotas=quotas("idle: 0.6")) as router,
        flight.connect(router.url) as client,
    ):
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(HERE), INTERCHANGE_SCHEMA)
        with writer:
            for at in range(5):
                writer.write_table(packets(1, at))
                assert acks.read() is not None
                time.sleep(0.25)


def test_a_thousand_idle_connections_cost_nobody_else(router_process, packets):
    _, url = router_process()
    port = int(url.rpartition(":")[2])
    with ExitStack() as stack, RouterClient(url) as client:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert client.deposit(packets(10)).stored == 10
        found = []
        threads = [Thread(target=lambda at=at: found.append(late_comer(url, packets, at))) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1] * 4


def late_comer(url, packets, at):
    with RouterClient(url) as client:
        return client.deposit(packets(1, 100 + at)).stored
