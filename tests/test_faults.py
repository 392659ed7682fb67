"""kill -9 at random moments under depositors, readers and transactions; and right before an acknowledgement."""

import json
import os
import random
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Timer

import pyarrow as pa
import pytest
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt

ADDRESSES = ("clinical.tuberculosis/bcg_vaccine", "clinical.tuberculosis/other")
LONGEST_SECONDS = 0.25

# Forks a router for each line on its stdin, {"folder", "file_bytes", "merge", "is_mute"}, for what takes time is to
# import; prints its pid and waits for its end. One that is mute is killed once it has stored something, unacknowledged.
FORK = """
import json, os, sys
from pathlib import Path
from qis_connectors.router import Router
from qis_connectors.router.packet_log import journal, log, packet_index, packing
for line in sys.stdin:
    given = json.loads(line)
    if child := os.fork():
        print(child, flush=True)
        os.waitpid(child, 0)
        continue
    journal.FILE_BYTES = log.FILE_BYTES = given["file_bytes"]
    packing.MERGE = packet_index.MERGE = given["merge"]
    if given["is_mute"]:
        store = log.PacketLog._store
        log.PacketLog._store = lambda *given: [store(*given), os.kill(os.getpid(), 9)]
    router = Router(Path(given["folder"], "store"), "grpc://127.0.0.1:0")
    draft = Path(given["folder"], "draft")
    draft.write_text(router.url)
    draft.rename(draft.with_name("url"))
    router.serve()
"""
PATIENCE_SECONDS = 60


class Routers:
    """One after the other on one store, each killed with -9."""

    def __init__(self, folder):
        self._folder = folder
        self._parent = subprocess.Popen(
            [sys.executable, "-c", FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process = None  # a descriptor, readable once it has ended

    def start(self, file_bytes=8 << 20, merge=8, *, is_mute=False):
        (self._folder / "url").unlink(missing_ok=True)
        line = {"folder": str(self._folder), "file_bytes": file_bytes, "merge": merge, "is_mute": is_mute}
        self._parent.stdin.write(json.dumps(line) + "\n")
        self._parent.stdin.flush()
        self._process = os.pidfd_open(int(self._parent.stdout.readline()))

    def url(self):
        """None where it was killed before it had one."""
        while not (self._folder / "url").exists():
            if self._has_ended(0.002):
                return None
        return (self._folder / "url").read_text()

    def kill(self):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def ended(self):
        assert self._has_ended(PATIENCE_SECONDS)
        os.close(self._process)
        self._process = None

    def close(self):
        if self._process:
            self.kill()
            self.ended()
        self._parent.stdin.close()
        self._parent.wait()
        self._parent.stdout.close()

    def _has_ended(self, seconds):
        return bool(select.select([self._process], [], [], seconds)[0])


@pytest.fixture
def routers(tmp_path):
    routers = Routers(tmp_path)
    yield routers
    routers.close()


class Depositor:
    """One client's packets across all routers: which it has sent, and which of them were acknowledged."""

    def __init__(self, packets, name):
        self._batches = {rows: packets(rows, node_id=name) for rows in (1, 7)}
        self._name = name
        self._next = 0
        self.sent = set()
        self.acknowledged = set()
        self._again = []  # not acknowledged: it may be there or not
        self._open = None  # a transaction and what is to be committed in it; nothing: it is to be aborted

    def run(self, url, chance):
        """Until the router is killed."""
        with until_gone(), flight.connect(url) as client:
            place = flight.FlightDescriptor.for_path(ADDRESSES[0])
            writer, acks = client.do_put(place, self._batches[1].schema)
            under_way, window = [], chance.choice([1, 1, 8])
            for times, batch in self._batches_of(chance):
                under_way.append((times, batch))
                self._again.append((times, batch))
                writer.write_batch(batch)
                if len(under_way) < window:
                    continue
                message = acks.read()
                if message is None:
                    return
                times, batch = under_way.pop(0)
                assert sum(json.loads(message.to_pybytes())[name] for name in ("stored", "duplicates")) == len(times)
                self.acknowledged.update(times)
                self._again.remove((times, batch))

    def commit(self, url, chance):
        """The same in transactions, some of them aborted; first the one that was under way when the last one died."""
        with until_gone(), RouterClient(url) as client:
            if self._open:
                self._end(client)
            while True:
                (one, first), (two, second) = self._new(chance), self._new(chance)
                transaction = client.transaction()
                self._open = transaction.id, set()
                transaction.deposit(first)
                transaction.deposit(second, ADDRESSES[0])
                if chance.random() < 0.8:
                    self._open = transaction.id, {*one, *two}
                self._end(client)

    def _end(self, client):
        name, staged = self._open
        self.sent |= staged
        transaction = client.transaction(name)
        if staged:
            transaction.commit()
        else:
            transaction.abort()
        self.acknowledged |= staged
        self._open = None

    def _batches_of(self, chance):
        yield from list(self._again)
        while True:
            times, batch = self._new(chance)
            self.sent.update(times)
            yield times, batch

    def _new(self, chance):
        block = self._batches[chance.choice([1, 1, 1, 7])]
        times = [(self._name, self._next + at) for at in range(block.num_rows)]
        self._next += block.num_rows
        column = pa.array([at for _, at in times], pa.int64())
        return times, block.set_column(1, "timestamp_utc", column).to_batches()[0]


class Watcher:
    """A reader that goes on where it was from one router to the next."""

    def __init__(self):
        self.found = []
        self.cursor = 0

    def run(self, url):
        with until_gone(), flight.connect(url) as client:
            command = {"v": 1, "address": "*", "since": self.cursor, "columns": ["node_id", "timestamp_utc"]}
            writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(json.dumps(command).encode()))
            try:
                while True:
                    chunk = reader.read_chunk()
                    self.found += keys(chunk.data)
                    self.cursor = json.loads(chunk.app_metadata.to_pybytes())["cursor"]
            finally:
                with suppress(flight.FlightError, pa.ArrowException):
                    writer.close()


@contextmanager
def until_gone():
    """Until the router does not answer any more; what it refuses is none of that."""
    try:
        yield
    except (QisError, flight.FlightError, pa.ArrowException) as error:
        if "the router" in str(error) or "transaction" in str(error):
            raise


def keys(packets):
    return list(zip(packets["node_id"].to_pylist(), packets["timestamp_utc"].to_pylist(), strict=True))


@contextmanager
def killing(routers, seconds):
    timer = Timer(seconds, routers.kill)
    timer.start()
    yield
    timer.join()
    routers.ended()


def kill_over_and_over(routers, packets, loops, seed):
    """How many packets were acknowledged in the end."""
    chance = random.Random(seed)
    depositors = [Depositor(packets, f"site-{at}") for at in range(4)]
    watcher, before = Watcher(), []
    with ThreadPoolExecutor(5) as pool:
        for _ in range(loops):
            small = chance.random() < 0.7  # so that packing and merging is struck too
            routers.start(*((chance.choice([1, 8, 64]) << 10, 2) if small else ()))
            with killing(routers, LONGEST_SECONDS * chance.random()):
                url = routers.url()
                if url is None:
                    continue
                jobs = [pool.submit(one.run, url, random.Random(chance.random())) for one in depositors[:3]]
                jobs.append(pool.submit(depositors[3].commit, url, random.Random(chance.random())))
                jobs.append(pool.submit(watcher.run, url))
                for job in jobs:
                    job.result(PATIENCE_SECONDS)
            before = check(routers, depositors, watcher, before, chance)
    return len(before)


def check(routers, depositors, watcher, before, chance):
    """What is stored now, after another kill."""
    routers.start(chance.choice([2 << 10, 8 << 20]), 2)
    url = routers.url()
    with RouterClient(url) as client:
        stored = keys(client.read("*").table)
        counted = client.stats()["packets"]
    routers.kill()
    routers.ended()
    assert len(set(stored)) == len(stored) == counted
    assert stored[: len(before)] == before
    assert stored[: len(watcher.found)] == watcher.found
    assert set().union(*(one.acknowledged for one in depositors)) <= set(stored)
    assert set(stored) <= set().union(*(one.sent for one in depositors))
    return stored


def test_thirty_kills_lose_and_repeat_nothing(routers, packets):
    assert kill_over_and_over(routers, packets, 30, seed=1) > 100


def test_a_deposit_whose_acknowledgement_was_lost_is_stored_once(routers, packets):
    for at in range(2):
        routers.start(is_mute=True)
        with RouterClient(routers.url()) as client, pytest.raises(QisError, match=r"^cannot reach router"):
            client.deposit(packets(3 + at))
        routers.ended()
    routers.start()
    with RouterClient(routers.url()) as client:
        assert client.read("*").table.num_rows == 4
        assert client.deposit(packets(5)) == Receipt(1, 4, 5)
        assert client.deposit(packets(5)) == Receipt(0, 5, 5)


def test_what_several_clients_send_at_once_while_it_is_packed_is_stored_once(routers, packets):
    routers.start(1 << 10, 2)
    url, number = routers.url(), 60

    def deposit(_):
        with RouterClient(url) as client:
            return [client.deposit(packets(2, 2 * at)) for at in range(number)]

    with ThreadPoolExecutor(4) as pool:
        receipts = [one for found in pool.map(deposit, range(4)) for one in found]
    with RouterClient(url) as client:
        stored = keys(client.read("*").table)
    assert len(set(stored)) == len(stored) == sum(one.stored for one in receipts) == 2 * number
    assert sum(one.duplicates for one in receipts) == 6 * number


@pytest.mark.slow
def test_three_hundred_kills_lose_and_repeat_nothing(routers, packets):
    assert kill_over_and_over(routers, packets, 300, seed=2) > 1000
