"""Transactions: staged packets are seen by nobody, a commit shows all of them at once, whatever is killed when."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pyarrow as pa
import pytest
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.packet import PacketError
from qis_connectors.receipt import Receipt
from qis_connectors.router import staging, transactions

HERE = "clinical.tuberculosis/bcg_vaccine"


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


def seen(client):
    return client.read("*").table.num_rows, client.stats()["packets"], client.addresses().num_rows


def staged_folders(router_folder):
    return [folder.name for folder in (router_folder / "staged").glob("*")]


def test_what_is_staged_is_not_seen_and_a_commit_shows_all(client, packets, tmp_path):
    with client.transaction() as transaction:
        mixed = pa.concat_tables([packets(3), packets(2, problem_type="other")])
        assert transaction.deposit(mixed) == Receipt(staged=5)
        assert transaction.deposit(packets(1, 7), f"{HERE}/north") == Receipt(staged=1)
        assert seen(client) == (0, 0, 0)
        assert client.deposit(packets(1, 99)).cursor == 1
        assert client.read("*", since=1).table.num_rows == 0
    assert seen(client) == (7, 7, 3)
    assert client.read("*", since=1).table["timestamp_utc"].to_pylist()[:3] == packets(3)["timestamp_utc"].to_pylist()
    assert client.read(f"{HERE}/north").table.num_rows == 1
    assert staged_folders(tmp_path / "router") == []


def test_an_error_aborts(client, packets, tmp_path):
    transaction = client.transaction()

    def deposit_and_fail():
        with transaction:
            transaction.deposit(packets(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        deposit_and_fail()
    assert seen(client) == (0, 0, 0)
    assert staged_folders(tmp_path / "router") == []
    transaction.abort()
    with pytest.raises(QisError, match=r"is not open: it was aborted, idle for over an hour, or never begun$"):
        transaction.commit()
    with pytest.raises(QisError, match=r"is not open: it was aborted"):
        transaction.deposit(packets(1))


def test_committing_again_gives_the_same_receipt(client, packets):
    transaction = client.transaction()
    transaction.deposit(packets(3))
    receipt = transaction.commit()
    assert receipt == Receipt(3, 0, 3)
    client.deposit(packets(5))
    assert transaction.commit() == client.transaction(transaction.id).commit() == receipt
    with pytest.raises(QisError, match=rf"^transaction {transaction.id} is committed: it cannot be aborted$"):
        transaction.abort()
    with pytest.raises(QisError, match=rf"^transaction '{transaction.id}' is not open: it is committed$"):
        transaction.deposit(packets(1))
    assert client.transaction().commit() == Receipt(0, 0, 5)


def test_one_transaction_is_committed_under_a_key(client, packets, tmp_path):
    def staged(start):
        transaction = client.transaction()
        transaction.deposit(packets(3, start))
        return transaction

    first, second = staged(0), staged(10)
    receipt = first.commit("query/7")
    assert receipt == Receipt(3, 0, 3)
    assert second.commit("query/7") == second.commit("query/7") == first.commit("query/7") == receipt
    assert staged(20).commit("query/8") == Receipt(3, 0, 6)
    with pytest.raises(QisError, match=r"is not open: it was aborted"):
        second.commit()
    assert not list((tmp_path / "router" / "staged").iterdir())
    together = [staged(100 + 10 * at) for at in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda one: one.commit("query/9"), together))) == 1
    assert client.stats()["packets"] == 9
    with pytest.raises(QisError, match=r"^request field 'key' has 201 characters; 1 to 200 are allowed$"):
        staged(300).commit("k" * 201)


def test_tasks_join_by_id_and_may_run_twice(client, router, packets):
    transaction = client.transaction()
    client.deposit(packets(2))
    for _ in range(2):
        for task in range(3):
            with RouterClient(router.url) as executor, executor.transaction(transaction.id) as joined:
                assert joined.deposit(packets(10, 10 * task)) == Receipt(staged=10)
    client.deposit(packets(2, 28))
    assert seen(client)[0] == 4
    assert transaction.commit() == Receipt(26, 34, 30)
    found = client.read("*").table
    assert len(set(found["packet_id"].to_pylist())) == found.num_rows == 30


def test_bad_packets_are_refused_as_ever(client, packets):
    transaction = client.transaction()
    with pytest.raises(PacketError, match=r"^field 'confidence', row 0: 2.0 is outside 0..1$"):
        transaction.deposit(packets(1, confidence=2.0))
    with pytest.raises(QisError, match=r"^field 'domain', row 0: 'clinical.tuberculosis' is not the 'other' of the ad"):
        transaction.deposit(packets(1), "other/bcg_vaccine")
    with pytest.raises(QisError, match=r"^address 'other' has no problem type"):
        transaction.deposit(packets(1), "other")
    with flight.connect(client.url) as plain:
        command = json.dumps({"v": 1, "transaction": transaction.id}).encode()
        good, bad = packets(2), packets(1, outcome_decile=0)
        writer, acks = plain.do_put(flight.FlightDescriptor.for_command(command), good.schema)
        writer.write_table(good)
        assert json.loads(acks.read().to_pybytes()) == {"stored": 0, "duplicates": 0, "cursor": 0, "staged": 2}
        writer.write_table(bad)
        with pytest.raises(flight.FlightServerError, match=r"field 'outcome_decile', row 0: 0 is outside 1..10"):
            writer.close()
    assert transaction.commit() == Receipt(2, 0, 2)


@pytest.mark.parametrize(
    ("action", "body", "line"),
    [
        ("begin", b"", "request '' is not a JSON object"),
        ("begin", b'{"v":2}', "request field 'v': 2 is not 1, the version this router knows"),
        ("begin", b'{"v":1,"x":1}', "request field 'x' is not known to this router; it knows v"),
        ("commit", b"{}", "request field 'transaction' is missing"),
        ("commit", b'{"transaction":7}', "request field 'transaction': 7 is not a text"),
        ("commit", b'{"transaction":"../.."}', "transaction '../..' is not open: it was aborted, idle"),
        ("abort", b"\xff", "request is not UTF-8: byte 0 is 0xff"),
    ],
)
def test_bad_actions_are_refused_by_name(client, action, body, line):
    with flight.connect(client.url) as plain, pytest.raises(flight.FlightServerError) as error:
        list(plain.do_action(flight.Action(action, body)))
    assert str(error.value).startswith(line)
    client.transaction("../..").abort()


def test_too_much_and_too_many_are_refused(client, packets, monkeypatch):
    monkeypatch.setattr(staging, "MAX_BYTES", 20_000)
    monkeypatch.setattr(transactions, "MAX_OPEN", 2)
    first, _ = client.transaction(), client.transaction()
    with pytest.raises(QisError, match=r"^2 transactions are open; commit or abort one of them first$"):
        client.transaction()
    first.deposit(packets(20))
    with pytest.raises(QisError, match=r"^the transaction is full: at most 20000 bytes may be staged in it$"):
        first.deposit(packets(40, 20))
    assert first.commit().stored == 20
    client.transaction()


def test_what_is_idle_for_an_hour_is_aborted(client, packets, tmp_path):
    idle, busy = client.transaction(), client.transaction()
    idle.deposit(packets(3))
    busy.deposit(packets(1))
    folder = tmp_path / "router" / "staged" / idle.id
    long_ago = folder.stat().st_mtime - transactions.IDLE_SECONDS
    os.utime(folder, (long_ago, long_ago))
    with pytest.raises(QisError, match=r"idle for over an hour"):
        idle.commit()
    assert staged_folders(tmp_path / "router") == [busy.id]
    assert busy.commit() == Receipt(1, 0, 1)


def test_a_failed_commit_stays_open_and_shows_nothing(client, packets, full_disk):
    transaction = client.transaction()
    transaction.deposit(packets(500))
    with full_disk(8192), pytest.raises(QisError, match=r"^the router cannot store packets: the disk is full$"):
        transaction.commit()
    assert seen(client) == (0, 0, 0)
    assert transaction.commit() == Receipt(500, 0, 500)


def test_readers_see_all_of_it_or_nothing(client, router, packets):
    transaction = client.transaction()
    transaction.deposit(pa.concat_tables([packets(1000, problem_type=f"p{at}") for at in range(8)]))
    stop, counts = Event(), set()

    def look():
        with RouterClient(router.url) as other:
            while not stop.is_set():
                counts.add(other.read("*", columns=["outcome_decile"]).table.num_rows)
                counts.add(other.stats()["packets"])

    thread = Thread(target=look)
    thread.start()
    transaction.commit()
    stop.set()
    thread.join()
    assert counts <= {0, 8000}


def test_what_was_acknowledged_before_the_commit_is_in_it_and_nothing_comes_after(client, router, packets):
    transaction = client.transaction()
    staged, refusals = [], []

    def stage(task):
        with RouterClient(router.url) as executor:
            joined = executor.transaction(transaction.id)
            at = 0
            try:
                while True:
                    staged.append(joined.deposit(packets(1, at, node_id=f"site-{task}")).staged)
                    at += 1
            except QisError as error:
                refusals.append(str(error))

    tasks = [Thread(target=stage, args=[task]) for task in range(4)]
    for task in tasks:
        task.start()
    while len(staged) < 40:
        time.sleep(0.01)
    receipt = transaction.commit()
    for task in tasks:
        task.join()
    assert receipt.stored == sum(staged) == seen(client)[0]
    assert len(refusals) == 4
    assert all("is not open" in line for line in refusals)
