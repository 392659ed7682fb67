"""What is stored and then what arrives."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pyarrow as pa
import pytest
from exchanging import HERE, exchanging, has_come, message, times
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, complete
from qis_connectors.request import parse
from qis_connectors.router import exchange
from qis_connectors.router.packet_log import feed
from qis_connectors.router.packet_log.log import PacketLog


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


@pytest.fixture
def channels(router):
    """How many different requests are being followed."""
    return lambda: len(router._packets.feed._channels)


@pytest.fixture
def log(tmp_path):
    log = PacketLog(tmp_path / "log")
    yield log
    log.close()


def test_what_is_stored_then_what_arrives(router, client, packets):
    client.deposit(packets(5))
    command = json.dumps({"v": 1, "address": "clinical.*", "since": 2, "columns": ["sample_count", "timestamp_utc"]})
    with exchanging(router.url, command.encode()) as reader:
        stored = reader.read_chunk()
        assert json.loads(stored.app_metadata.to_pybytes()) == {"cursor": 5, "store": router.store}
        client.deposit(packets(1, domain="imaging"))
        client.deposit(packets(2, 5))
        arrived, cursor = message(reader)
        assert stored.data.schema.names == arrived.schema.names == ["sample_count", "timestamp_utc"]
        assert [at % 1000 for at in pa.concat_batches([stored.data, arrived])["timestamp_utc"].to_pylist()] == [
            *range(2, 7)
        ]
        assert cursor == 8
        client.deposit(packets(2, 5))  # they are there: nothing arrives
        client.deposit(packets(1, 7))
        assert message(reader)[1] == 9


def test_filters_hold_for_what_is_stored_and_for_what_arrives(router, client, packets):
    def counted(start, counts):
        table = packets(len(counts), start)
        return table.set_column(
            table.schema.get_field_index("sample_count"), "sample_count", pa.array(counts, pa.int32())
        )

    asked = {"filters": {"or": [["sample_count", ">=", 100], ["context", "is not null"]]}, "columns": ["timestamp_utc"]}
    client.deposit(counted(0, [99, 100, 5]))
    with exchanging(router.url, json.dumps({"v": 1, "address": HERE, **asked}).encode()) as reader:
        batch, cursor = message(reader)
        assert (batch.schema.names, batch.num_rows, cursor) == (["timestamp_utc"], 1, 3)
        client.deposit(counted(3, [1, 2]))  # nothing of it is sent
        client.deposit(counted(5, [7, 100, 8, 200]))
        batch, cursor = message(reader)
        assert [at % 1000 for at in batch["timestamp_utc"].to_pylist()] == [6, 8]
        assert (batch.schema.names, cursor) == (["timestamp_utc"], 9)


def test_readers_of_one_filter_and_of_none_each_get_theirs(router, client, packets):
    where = json.dumps({"v": 1, "address": HERE, "filters": ["timestamp_utc", ">=", 1_700_000_000_030]}).encode()
    with (
        exchanging(router.url, where) as some,
        exchanging(router.url, where) as others,
        exchanging(router.url) as every,
    ):
        for at in range(60):
            client.deposit(packets(1, at))
        assert times(some, 30) == times(others, 30) == [*range(30, 60)]
        assert times(every, 60) == [*range(60)]
    with exchanging(router.url, where) as late:
        assert times(late, 30) == [*range(30, 60)]


def test_a_filter_that_drops_everything_is_no_silence(router, packets, monkeypatch):
    """A stream of packets that are all dropped must not keep the heartbeat away, nor the place it goes on from."""
    monkeypatch.setattr(exchange, "HEARTBEAT_SECONDS", 0.2)
    nothing = json.dumps({"v": 1, "address": HERE, "filters": ["metric_name", "=", "nobody's"]}).encode()
    with exchanging(router.url, nothing) as reader:
        assert message(reader)[1] == 0
        depositing = threading.Event()

        def deposit():
            at = 0
            with RouterClient(router.url) as own:
                while not depositing.is_set():
                    own.deposit(packets(1, at))
                    at += 1

        thread = threading.Thread(target=deposit)
        thread.start()
        try:
            cursors = [message(reader)[1] for _ in range(4)]
        finally:
            depositing.set()
            thread.join()
        assert cursors[1] > 0
        assert cursors == sorted(set(cursors))


def test_an_empty_address_says_where_it_begins(router, channels):
    with exchanging(router.url) as reader:
        batch, cursor = message(reader)
        assert (batch.num_rows, batch.schema, cursor) == (0, OUTCOME_PACKET_SCHEMA, 0)
        assert channels() == 1


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (b'{"v": 1, "address": "*", "limit": 3}', "request field 'limit': what arrives has no end to count to"),
        (b'{"v": 1, "address": "*", "since": 1}', "request field 'since': 1 is beyond the end of this store, 0"),
        (b'{"v": 1, "address": "*", "until": 3}', "request field 'until': what arrives has no end"),
        (b'{"v": 1, "address": "*", "filters": ["a", "=", 3]}', "request field 'filters': 'a' is not a field"),
        (b"a//b", "address 'a//b' has an empty or dotted segment ''"),
        (b"", "address is empty"),
    ],
)
def test_a_bad_request_is_refused(router, channels, command, line):
    with exchanging(router.url, command) as reader, pytest.raises(flight.FlightServerError) as error:
        reader.read_chunk()
    assert str(error.value).startswith(line)
    assert ".py" not in str(error.value)
    assert channels() == 0


def test_nothing_is_missed_or_repeated_between_stored_and_live(router, client, packets):
    def deposit(site):
        with RouterClient(router.url) as own:
            for at in range(60):
                own.deposit(packets(1 + at % 3, 3 * at, node_id=f"site-{site}"))

    def follow(at):
        ids, cursors = [], [0]
        time.sleep(0.03 * at)
        with exchanging(router.url, b"*" if at % 2 else HERE) as reader:
            while len(ids) < 4 * 120:
                batch, cursor = message(reader)
                ids += batch["packet_id"].to_pylist()
                cursors.append(cursor)
        return ids, cursors

    with ThreadPoolExecutor(16) as pool:
        depositors = [pool.submit(deposit, site) for site in range(4)]
        found = list(pool.map(follow, range(12)))
        assert [one.result() for one in depositors] == [None] * 4
    expected = client.read("*").table["packet_id"].to_pylist()
    assert len(expected) == 480
    for ids, cursors in found:
        assert ids == expected
        assert all(before <= after for before, after in pairwise(cursors))
    assert sum(len(cursors) for _, cursors in found) > 12 * 5, "everything was read from the store"


def test_a_commit_group_arrives_as_one_batch(log, packets, monkeypatch):
    messages = exchange.follow(log, parse(b"*"), lambda: False)
    assert next(messages)[0].num_rows == 0
    done, gate, write = [], threading.Event(), os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *given: gate.wait() and write(*given))  # a slow disk
    for at in range(9):
        log.append(f"a/{at % 3}", complete(packets(2, 2 * at, domain="a").to_batches()[0]), done.append)
        assert at or has_come(lambda: not log._queue)
    gate.set()
    assert [batch.num_rows for batch, _ in (next(messages), next(messages))] == [2, 16]
    log.stop()
    assert list(messages) == []
    assert sum(receipt.stored for receipt in done) == 18


def test_a_reader_that_lags_a_little_gets_larger_batches(log, packets):
    messages = exchange.follow(log, parse(b"*"), lambda: False)
    next(messages)
    for at in range(30):
        done = threading.Event()
        log.append("a/b", complete(packets(1, at).to_batches()[0]), lambda _, done=done: done.set())
        done.wait()
    assert has_come(lambda: log.feed.head == 30)
    batch, cursor = next(messages)
    assert (batch.num_rows, cursor) == (30, 30)
    messages.close()


def test_what_is_too_large_to_keep_comes_from_the_store(log, packets, monkeypatch):
    monkeypatch.setattr(feed, "MAX_BYTES", 10_000)  # a batch of one packet fits, two do not
    messages = exchange.follow(log, parse(b"*"), lambda: False)
    assert next(messages)[1] == 0
    for at in range(40):
        done = threading.Event()
        log.append(
            "a/b", complete(packets(1 + 30 * (at % 2), 31 * at).to_batches()[0]), lambda _, done=done: done.set()
        )
        done.wait()
        if at % 3 == 0:
            found = []
            while not found or found[-1][1] < log.head:
                found.append(next(messages))
            assert sum(batch.num_rows for batch, _ in found) == found[-1][1] - found[0][1] + found[0][0].num_rows
    assert log.feed._kept_bytes <= 10_000
    messages.close()
