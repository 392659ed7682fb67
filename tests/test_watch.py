"""Following a router with our own client, the node and the command, across whatever happens to the router."""

import csv
import io
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice

import pyarrow as pa
import pytest

from qis_connectors import Node, QisError, watching
from qis_connectors.client import RouterClient
from qis_connectors.router import Router

HERE = "clinical.tuberculosis/bcg_vaccine"
PROBLEM = {"domain": "clinical.tuberculosis", "problem_type": "bcg_vaccine"}


@pytest.fixture
def watcher(router):
    """Starts `qis watch` on the router: watcher(*arguments) -> its process."""
    started = []

    def run(*arguments):
        code = "from pipelines.cli import main; main()"
        command = [sys.executable, "-c", code, "watch", HERE, "--router", router.url, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert "Ctrl-C" in process.stderr.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def follow(messages, number):
    """The packet_ids of so many packets or more."""
    found = []
    while len(found) < number:
        found += next(messages).table["packet_id"].to_pylist()
    return found


def nothing_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("qis-watch")]


def test_stored_and_arriving_packets_with_their_cursors(router, packets):
    with RouterClient(router.url) as client:
        client.deposit(packets(4))
        with closing(client.watch("clinical.*", since=1, columns=["timestamp_utc"])) as news:
            first = next(news)
            assert (first.table.num_rows, first.cursor, first.store) == (3, 4, router.store)
            assert first.table.column_names == ["timestamp_utc"]
            client.deposit(packets(1, domain="elsewhere"))
            client.deposit(packets(2, 4))
            assert (next(news).table.num_rows, nothing_is_left()) == (2, False)
        assert nothing_is_left()


def test_only_what_a_filter_keeps(router, packets, watcher):
    many = ["sample_count", ">=", 300]
    with Node("site-a", router.url, **PROBLEM) as node:
        node.deposit(packets(2))
        node.deposit(packets(1, 2, sample_count=300))
        process = watcher("--format", "json", "--filters", json.dumps(many))
        with closing(node.watch(filters=many)) as news:
            assert next(news)["sample_count"].to_pylist() == [300]
            node.deposit(packets(2, 3))
            node.deposit(packets(1, 5, sample_count=301))
            assert next(news)["sample_count"].to_pylist() == [301]
        found = [json.loads(process.stdout.readline())["sample_count"] for _ in range(2)]
        assert found == [300, 301]


def test_leaving_the_loop_cancels_the_stream(router, packets):
    with Node("site-a", router.url, **PROBLEM) as node:
        node.deposit(packets(3))
        for table in node.watch():
            assert table["node_id"].to_pylist() == ["site-a"] * 3
            break
        assert nothing_is_left()
        (arrived,) = islice(node.watch(since=2), 1)
        assert arrived.num_rows == 1
        assert nothing_is_left()
        end = time.monotonic() + 3
        while router._packets.feed._channels and time.monotonic() < end:
            time.sleep(0.02)
        assert not router._packets.feed._channels


def test_another_address_and_a_refusal(router, packets):
    with Node("site-a", router.url, **PROBLEM) as node, RouterClient(router.url) as client:
        client.deposit(packets(2, problem_type="other"))
        assert next(node.watch("clinical.tuberculosis/other")).num_rows == 2
        with pytest.raises(QisError, match=r"^address 'a//b' has an empty or dotted segment ''$"):
            next(node.watch("a//b"))
        with pytest.raises(
            QisError, match=r"^request field 'since': 9 is beyond the end of this store, 2; is it another"
        ):
            next(node.watch(since=9))
    assert nothing_is_left()


def test_a_slow_caller_loses_nothing(router, packets, monkeypatch):
    monkeypatch.setattr(watching, "SILENCE_SECONDS", 0.5)
    with RouterClient(router.url) as client, closing(client.watch(HERE)) as news:
        client.deposit(packets(1))
        found = follow(news, 1)
        for at in range(1, 30):
            client.deposit(packets(1, at))
        time.sleep(0.8)
        assert found + follow(news, 29) == client.read(HERE).table["packet_id"].to_pylist()


def test_a_router_that_restarts_is_gone_on_with(tmp_path, packets, caplog):
    caplog.set_level(logging.INFO, watching.__name__)
    router = Router(tmp_path, "grpc://127.0.0.1:0")
    url = router.url
    with RouterClient(url) as client, closing(client.watch(HERE)) as news:
        client.deposit(packets(2))
        found = follow(news, 2)
        router.close()
        restarted = []

        def restart():
            time.sleep(0.7)
            restarted.append(Router(tmp_path, url))
            with RouterClient(url) as again:
                again.deposit(packets(5))

        thread = threading.Thread(target=restart)
        thread.start()
        found += follow(news, 3)
        thread.join()
        with RouterClient(url) as again:
            assert found == again.read(HERE).table["packet_id"].to_pylist()
    restarted[0].close()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert [line.endswith(("; trying again", "is back")) for line in caplog.messages] == [True, True]


def test_kill_9_under_a_depositor_loses_and_repeats_nothing(router_process, packets):
    process, url = router_process()
    with RouterClient(url) as client:
        news = client.watch("*")
    is_over = threading.Event()

    def deposit():
        at = 0
        while not is_over.is_set():
            with suppress(QisError), RouterClient(url) as client:
                while not is_over.is_set():
                    client.deposit(packets(2, at))  # not acknowledged, it is sent again, and half of it is there anyway
                    at += 1
                    acknowledged.append(at)
        with RouterClient(url) as client:
            client.deposit(packets(1, node_id="the-last"))

    def kill(process):
        for _ in range(2):
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process, _ = router_process(url)
        while len(acknowledged) <= 20:
            time.sleep(0.01)
        is_over.set()

    found, acknowledged = [], []
    with ThreadPoolExecutor(2) as pool, closing(news):
        work = [pool.submit(deposit), pool.submit(kill, process)]
        while not found or found[-1].table["node_id"][-1].as_py() != "the-last":
            found.append(next(news))
    with RouterClient(url) as client:
        stored = client.read("*")
    assert [one.result() for one in work] == [None, None]
    assert pa.concat_tables([one.table for one in found]) == stored.table
    assert stored.table.num_rows > 20
    assert nothing_is_left()


def test_another_store_is_read_from_its_beginning_and_said(tmp_path, packets, caplog):
    first = Router(tmp_path / "first", "grpc://127.0.0.1:0")
    with RouterClient(first.url) as client, closing(client.watch(HERE)) as news:
        client.deposit(packets(5))
        assert len(follow(news, 5)) == 5
        first.close()
        with Router(tmp_path / "second", first.url) as second, RouterClient(first.url) as again:
            again.deposit(packets(1, 1))
            found = next(news)
            assert (found.table.num_rows, found.cursor, found.store) == (1, 1, second.store)
    assert f"router {first.url} has another store than before: reading it from its beginning" in caplog.messages


def test_a_router_that_has_gone_silent_is_tried_again(router_process, packets, monkeypatch, caplog):
    monkeypatch.setattr(watching, "SILENCE_SECONDS", 0.4)
    process, url = router_process()
    with RouterClient(url) as client:
        client.deposit(packets(1))
        with closing(client.watch(HERE)) as news:
            assert len(follow(news, 1)) == 1
            process.send_signal(signal.SIGSTOP)
            threading.Timer(0.7, process.send_signal, [signal.SIGCONT]).start()
            depositor = threading.Timer(1.0, client.deposit, [packets(1, 1)])
            depositor.start()
            assert len(follow(news, 1)) == 1
            depositor.join()
    assert f"cannot reach router {url}: it has gone silent; trying again" in caplog.messages


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_the_command_prints_until_ctrl_c(router, watcher, packets, form):
    with RouterClient(router.url) as client:
        client.deposit(packets(1, node_id="site-a"))
        process = watcher("--format", form)
        lines = [process.stdout.readline() for _ in range(1 if form == "json" else 2)]
        client.deposit(packets(1, 1, node_id="site-[red]b"))
        lines.append(process.stdout.readline())
    time.sleep(0.2)  # a Ctrl-C between a row and its cursor names the cursor before: resuming repeats, it never skips
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "go on with --since 2\n")
    if form == "json":
        found = [json.loads(line)["node_id"] for line in lines]
    elif form == "csv":
        found = [row["node_id"] for row in csv.DictReader(io.StringIO("".join(lines)))]
    else:
        assert lines[0].split()[:2] == ["node_id", "metric_name"]
        found = [line.split()[0] for line in lines[1:]]
    assert found == ["site-a", "site-[red]b"]


def test_a_committed_transaction_reaches_who_waits_once_and_whole(router, packets):
    with RouterClient(router.url) as client, closing(client.watch("clinical.*")) as news:
        client.deposit(packets(2))
        assert next(news).table.num_rows == 2
        with client.transaction() as transaction:
            transaction.deposit(packets(3, start=10))
            transaction.deposit(packets(4, start=20))
            client.deposit(packets(1, start=30))
            assert next(news).table.num_rows == 1
        seen = 0
        while seen < 7:
            seen += next(news).table.num_rows
        client.deposit(packets(1, start=40))
        assert (seen, next(news).table.num_rows) == (7, 1)
