"""How a DoExchange ends, and what a reader costs that has stopped, died or hears nothing."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa
import pytest
from exchanging import HERE, SOON_SECONDS, exchanging, has_come, message, times
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.connection import chunks
from qis_connectors.router import exchange
from qis_connectors.router.packet_log import feed


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


@pytest.fixture
def channels(router):
    """How many different requests are being followed."""
    return lambda: len(router._packets.feed._channels)


def test_a_stopped_reader_costs_only_itself(router, client, packets, monkeypatch):
    monkeypatch.setattr(feed, "MAX_BYTES", 2 << 20)
    table = packets(1000)
    with exchanging(router.url) as stopped, exchanging(router.url) as other:
        assert message(stopped)[1] == 0
        for at in range(30):
            shifted = table.set_column(1, "timestamp_utc", pa.compute.add(table["timestamp_utc"], 1000 * at))
            client.deposit(shifted)
            assert times(other, 1000) == [*range(1000 * at, 1000 * at + 1000)]
        kept = router._packets.feed
        assert kept._kept_bytes <= feed.MAX_BYTES < 30_000 * 300, "more has arrived than is kept"
        assert times(stopped, 30_000) == [*range(30_000)]


def test_a_hundred_readers_and_no_thread_left_behind(tmp_path, packets):
    script = (
        "import sys; from pathlib import Path; from qis_connectors.router import Router\n"
        "router = Router(Path(sys.argv[1]), 'grpc://127.0.0.1:0'); print(router.url, flush=True); router.serve()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()

            def threads():
                return len(os.listdir(f"/proc/{process.pid}/task"))  # noqa: PTH208

            with RouterClient(url) as client, ThreadPoolExecutor(100) as pool, flight.connect(url) as connection:
                client.deposit(packets(1))
                before = threads()
                descriptor = flight.FlightDescriptor.for_command(HERE)
                streams = [connection.do_exchange(descriptor) for _ in range(100)]
                assert [times(reader, 1) for _, reader in streams] == [[0]] * 100
                assert threads() >= before + 95
                followers = [pool.submit(times, reader, 20) for _, reader in streams]
                for at in range(20):
                    client.deposit(packets(1, 1 + at))
                assert [one.result(10) for one in followers] == [[*range(1, 21)]] * 100
                for writer, reader in streams:
                    reader.cancel()
                    with suppress(flight.FlightError):
                        writer.close()
                assert has_come(lambda: threads() <= before + 4, 3 * SOON_SECONDS), (before, threads())
        finally:
            process.terminate()
            assert process.wait(10) == 0


def test_a_dead_reader_is_missed_while_nothing_arrives(router, channels):
    script = (
        "import sys; from pyarrow import flight; client = flight.connect(sys.argv[1])\n"
        "writer, reader = client.do_exchange(flight.FlightDescriptor.for_command('a/b'))\n"
        "print(reader.read_chunk(), flush=True); reader.read_chunk(); reader.read_chunk()"
    )
    with subprocess.Popen([sys.executable, "-c", script, router.url], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        assert channels() == 1
        process.kill()
    assert has_come(lambda: not channels())


def test_a_silent_address_is_heard_of_now_and_then(router, client, packets, monkeypatch):
    monkeypatch.setattr(exchange, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(exchange, "HEARTBEAT_SECONDS", 0.1)
    with exchanging(router.url, b"other/address") as reader:
        message(reader)
        client.deposit(packets(3))
        batch, cursor = message(reader)
        assert (batch.num_rows, cursor) in ((0, 0), (0, 3))
        assert has_come(lambda: message(reader)[1] == 3)


@pytest.fixture
def others():
    """The threads of other tests' routers, where those are open still."""
    return set(threading.enumerate())


def test_closing_ends_the_streams_in_order(others, router, client, packets):
    with exchanging(router.url) as reader, exchanging(router.url, b"other/address") as other:
        client.deposit(packets(3))
        assert times(reader, 3) == [0, 1, 2]
        started = time.monotonic()
        router.close()
        assert time.monotonic() - started < 1
        for stream in (reader, other):
            assert sum(chunk.data.num_rows for chunk in chunks(stream)) == 0
    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("qis-")]


def test_a_stopped_reader_does_not_hold_up_the_closing(router, client, packets, monkeypatch):
    monkeypatch.setattr("qis_connectors.router.router.GRACE_SECONDS", 0.3)
    with exchanging(router.url) as reader:
        message(reader)  # it waits for news
        for at in range(0, 120_000, 40_000):  # more than gRPC takes in for a client that does not read
            client.deposit(packets(40_000, at))
        started = time.monotonic()
        router.close()
        assert 0.3 < time.monotonic() - started < SOON_SECONDS
