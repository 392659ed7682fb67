"""The router from outside: where it listens, how it ends, what a kill leaves."""

import signal
import socket
import threading
import time

import pytest
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt
from qis_connectors.router import Router


def test_what_was_acknowledged_survives_kill_9(router_process, packets):
    process, url = router_process()
    with RouterClient(url) as client:
        identity = client.store
        for at in range(20):
            receipt = client.deposit(packets(1, at))
    assert receipt == Receipt(1, 0, 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, url = router_process()
    with RouterClient(url) as client:
        assert client.store == identity
        assert client.read("*").table.num_rows == 20
        assert client.deposit(packets(21)) == Receipt(1, 20, 21)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(router_process, packets, number):
    process, url = router_process()
    with RouterClient(url) as client:
        client.deposit(packets(3))
    process.send_signal(number)
    assert process.wait(timeout=10) == 0
    _, url = router_process()
    with RouterClient(url) as client:
        assert client.stats()["packets"] == 3


def test_closing_ends_idle_streams_and_leaves_no_thread(tmp_path, packets):
    before = set(threading.enumerate())
    router = Router(tmp_path, "grpc://localhost:0")
    table = packets(1)
    with flight.connect(router.url) as client:
        writer, acks = client.do_put(
            flight.FlightDescriptor.for_path("clinical.tuberculosis/bcg_vaccine"), table.schema
        )
        writer.write_table(table)
        assert acks.read() is not None
        started = time.monotonic()
        router.close()
        assert time.monotonic() - started < 5
        assert acks.read() is None
        with pytest.raises(flight.FlightUnavailableError):
            writer.close()
    router.close()  # a second time is harmless
    assert set(threading.enumerate()) <= before
    with Router(tmp_path, "grpc://127.0.0.1:0") as again, RouterClient(again.url) as client:
        assert client.stats()["packets"] == 1


def test_closing_without_open_streams_is_quick(router):
    with RouterClient(router.url):
        started = time.monotonic()
        router.close()
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("listen", ["grpc://localhost:0", "grpc+tcp://127.8.0.1:0", "grpc://[::1]:0"])
def test_it_listens_on_loopback(tmp_path, listen):
    with Router(tmp_path, listen) as router, RouterClient(router.url) as client:
        assert client.store == router.store


@pytest.mark.parametrize(
    ("listen", "line"),
    [
        ("grpc://0.0.0.0:0", "without TLS a router listens on loopback only, such as 127.0.0.1"),
        ("grpc://192.168.1.7:8815", "without TLS a router listens on loopback only"),
        ("grpc://[::]:0", "without TLS a router listens on loopback only"),
        ("grpc://example.org:0", "without TLS a router listens on loopback only"),
        ("127.0.0.1:8815", "it is not written grpc://HOST:PORT"),
        ("http://127.0.0.1:8815", "it is not written grpc://HOST:PORT"),
        ("grpc://127.0.0.1", "it is not written grpc://HOST:PORT"),
        ("grpc://127.0.0.1:99999", "it is not written grpc://HOST:PORT"),
    ],
)
def test_it_does_not_listen_elsewhere(tmp_path, listen, line):
    with pytest.raises(QisError) as error:
        Router(tmp_path / "store", listen)
    assert str(error.value).startswith("cannot listen on ")
    assert line in str(error.value)
    assert not (tmp_path / "store").exists()


def test_a_taken_port_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"grpc://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(QisError, match=f"^cannot listen on {url}: address already in use$"):
            Router(tmp_path, url)
    Router(tmp_path, url).close()


def test_a_second_router_on_the_store_is_one_line(router, tmp_path):
    with pytest.raises(QisError, match=f"^store {tmp_path}/router is in use by another router$"):
        Router(tmp_path / "router", "grpc://127.0.0.1:0")
    with RouterClient(router.url) as client:
        assert client.stats()["packets"] == 0
