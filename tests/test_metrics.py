"""What an operator sees: the metrics as Prometheus scrapes them, and the statistics without it."""

import socket
import threading
import time
import urllib.request
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import flight

from qis_connectors import QisError
from qis_connectors.client import RouterClient
from qis_connectors.router import Router
from qis_connectors.router.traffic import BOUNDS, Histogram, Traffic

HERE = "clinical.tuberculosis/bcg_vaccine"


@pytest.fixture
def seen(tmp_path):
    with Router(tmp_path / "seen", "grpc://127.0.0.1:0", metrics="127.0.0.1:0") as router:
        yield router


def scrape(router):
    """{name: value}, {(name, label values by label name): value} where there are; what each metric is, is said."""
    with urllib.request.urlopen(router.metrics_url) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert all(family.documentation for family in families)
    return {
        (sample.name, *sample.labels.values()) if sample.labels else sample.name: sample.value
        for family in families
        for sample in family.samples
    }


def eventually(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_what_comes_in_and_goes_out_is_counted(seen, packets):
    with RouterClient(seen.url) as client, flight.connect(seen.url) as plain:
        client.deposit(packets(5))
        client.deposit(packets(7))
        bad = packets(1, confidence=1.5)
        writer, _ = plain.do_put(flight.FlightDescriptor.for_path(HERE), bad.schema)
        writer.write_table(bad)
        with pytest.raises(flight.FlightServerError):
            writer.close()
        with pytest.raises(QisError):
            client.read("a//b")
        client.read("*", limit=3)
        with closing(client.watch(HERE)) as news:
            assert next(news).table.num_rows == 7
            found = scrape(seen)
            assert found["qis_open_streams", "DoExchange"] == 1
    expected = {
        "qis_packets_stored_total": 7,
        "qis_packets_duplicate_total": 5,
        "qis_packets_sent_total": 10,
        "qis_deposit_seconds_count": 2,
        ("qis_read_seconds_bucket", "+Inf"): 2,
        ("qis_refused_calls_total", "packet", "DoPut"): 1,
        ("qis_refused_calls_total", "address", "DoGet"): 1,
        "qis_queued_batches": 0,
        "qis_queued_bytes": 0,
        "qis_store_packets": 7,
        "qis_store_addresses": 1,
        "qis_head_cursor": 7,
        ("qis_open_streams", "DoPut"): 0,
    }
    assert found | expected == found
    assert 1000 < found["qis_sent_bytes_total"] < 10_000
    assert 1000 < found["qis_received_bytes_total"] < 30_000
    assert found["qis_store_disk_bytes"] > 1000
    assert 0 < found["qis_deposit_seconds_sum"] < 60
    assert found["process_resident_memory_bytes"] > 0


def test_streams_that_run_count_like_those_that_have_ended(seen, packets):
    table = packets(1)
    with flight.connect(seen.url) as plain:
        writer, acks = plain.do_put(flight.FlightDescriptor.for_path(HERE), table.schema)
        for at in range(3):
            writer.write_table(packets(1, at))
            acks.read()
        running = scrape(seen)
        writer.close()
        assert eventually(lambda: not seen._server.status.traffic._running)
        ended = scrape(seen)
    assert running["qis_packets_stored_total"] == ended["qis_packets_stored_total"] == 3
    assert running["qis_open_streams", "DoPut"] == 1
    assert ended["qis_open_streams", "DoPut"] == 0


def test_what_is_staged_and_committed(seen, packets):
    with RouterClient(seen.url) as client:
        with client.transaction() as transaction:
            transaction.deposit(packets(4))
            assert scrape(seen)["qis_packets_staged_total"] == 4
            assert client.stats()["packets"] == 0
        assert scrape(seen)["qis_store_packets"] == client.stats()["packets"] == 4


def test_statistics_without_a_prometheus(router, packets):
    with RouterClient(router.url) as client:
        client.deposit(packets(5))
        client.deposit(packets(6))
        with pytest.raises(QisError):
            client.addresses("a//b")
        stats = client.stats()
    assert stats["disk_bytes"] > stats["bytes"] > 1000
    assert 0 <= stats["uptime_seconds"] < 60
    expected = {
        "stored": 6,
        "duplicates": 5,
        "queued_batches": 0,
        "queued_bytes": 0,
        "refused": {"address": 1},
        "streams": {"DoPut": 0, "DoGet": 0, "DoExchange": 0},
    }
    assert stats | expected == stats


def test_many_threads_count_without_loss():
    traffic = Traffic()

    def stream():
        for _ in range(20):
            with traffic.counting() as tally:
                for _ in range(100):
                    tally.stored += 1
                    tally.acknowledged.observe(0.002)

    threads = [threading.Thread(target=stream) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert traffic.total().stored <= 16_000
    total = traffic.total()
    assert (total.stored, sum(total.acknowledged.counts)) == (16_000, 16_000)
    assert total.acknowledged.total == pytest.approx(32)


def test_a_bucket_has_its_upper_bound():
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 11.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, *[0] * (len(BOUNDS) - 2), 1]


def test_the_port_is_loopback_unless_said_and_free_again_afterwards(tmp_path):
    before = set(threading.enumerate())
    for metrics in ("0", "localhost:0", "[::1]:0"):
        with Router(tmp_path, "grpc://127.0.0.1:0", metrics) as router:
            assert "qis_head_cursor" in scrape(router)
            assert metrics != "0" or router.metrics_url.startswith("http://127.0.0.1:")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("metrics", ["nowhere", "127.0.0.1:", "127.0.0.1:99999", "http://127.0.0.1:9464/metrics"])
def test_what_is_no_port_is_one_line(tmp_path, metrics):
    with pytest.raises(QisError, match=r"^cannot serve metrics on '.*': it is not written HOST:PORT or PORT$"):
        Router(tmp_path / "store", "grpc://127.0.0.1:0", metrics)
    assert not (tmp_path / "store").exists()


def test_a_taken_port_is_one_line_and_lets_go_of_the_store(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(QisError, match=rf"^cannot serve metrics on 127.0.0.1:{port}: address already in use$"):
            Router(tmp_path, "grpc://127.0.0.1:0", str(port))
    Router(tmp_path, "grpc://127.0.0.1:0").close()
