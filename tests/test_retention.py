"""What a store lets go of, and what it must not."""

import time
from concurrent.futures import Future

import pytest

from qis_connectors import packet
from qis_connectors.address import Pattern
from qis_connectors.receipt import Receipt
from qis_connectors.router import Retention
from qis_connectors.router.packet_log import packing
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.retention import expire
from qis_connectors.router.packet_log.view import View

HERE = "clinical.tuberculosis/bcg_vaccine"
ELSEWHERE = "clinical.tuberculosis/other"
DAY = 86_400


@pytest.fixture
def log(tmp_path):
    log = PacketLog(tmp_path)
    yield log
    log.close()


def append(log, table, address=HERE):
    answer = Future()
    log.append(address, packet.complete(table.to_batches()[0]), answer.set_result)
    return answer.result(timeout=10)


def times(log, pattern="*", since=0):
    found = read(log, Pattern(pattern), ["timestamp_utc"], since)
    return [time - 1_700_000_000_000 for batch, _ in found for time in batch["timestamp_utc"].to_pylist()]


def let_go(log, retention, days=0.0):
    with log.store.catalogue.writing() as writer:
        return expire(writer, log.store.packs, retention, time.time() + DAY * days)


def test_what_is_older_than_its_days_goes_whatever_its_own_time_says(log, packets):
    append(log, packets(3, 10))
    append(log, packets(2, 20), ELSEWHERE)
    log._flush()
    assert let_go(log, Retention(days=1)) == 0
    assert let_go(log, Retention(days=1), days=2) == 5
    append(log, packets(4))
    assert times(log) == [0, 1, 2, 3]
    assert log.head == 9
    assert append(log, packets(3, 10)) == Receipt(0, 3, 9)  # what has gone is still known


def test_a_merged_run_is_cut_where_its_days_end(log, packets):
    append(log, packets(4))
    log._flush()
    between = time.time()
    for at in range(4, 12):
        append(log, packets(1, at), (HERE, ELSEWHERE)[at % 2])
        log._flush()
    while len(list((log.store.folder / "packs").iterdir())) > 7:
        time.sleep(0.01)
    with log.store.catalogue.writing() as writer:
        assert expire(writer, log.store.packs, Retention(days=1), between + DAY) == 4
    assert times(log) == list(range(4, 12))
    assert times(log, HERE) == list(range(4, 12, 2))
    ((summary, other)) = View(log, Pattern("*")).summaries()
    assert (summary.packets, summary.first_time, summary.last_time) == (4, 1_700_000_000_004, 1_700_000_000_010)
    assert other.packets == 4


def test_of_each_address_the_newest_bytes_stay(log, packets):
    for at in range(6):
        append(log, packets(100, 100 * at))
        append(log, packets(2, 100 * at, problem_type="other"), ELSEWHERE)
        log._flush()
    summary = {one.address: one for one in View(log, Pattern("*")).summaries()}[HERE]
    limit = summary.bytes * 5 // 12
    assert let_go(log, Retention(bytes_per_address=limit)) == 350
    assert times(log, HERE) == list(range(350, 600))
    assert len(times(log, ELSEWHERE)) == 12
    assert View(log, Pattern(HERE)).summaries()[0].bytes <= limit


def test_the_disk_gets_its_room_back_and_the_cursor_stays(tmp_path, packets):
    log = PacketLog(tmp_path)
    append(log, packets(2000))
    log.close()
    log = PacketLog(tmp_path, Retention(days=0))
    while list((tmp_path / "packs").iterdir()):
        time.sleep(0.01)
    log.close()
    log = PacketLog(tmp_path)
    assert times(log) == []
    assert append(log, packets(1, 5000)) == Receipt(1, 0, 2001)
    assert times(log, since=2000) == [5000]
    log.close()


def test_a_span_half_of_which_has_gone_is_written_anew(tmp_path, packets, monkeypatch):
    monkeypatch.setattr(packing, "EXPIRE_SECONDS", 0)
    log = PacketLog(tmp_path, Retention(days=1000))
    append(log, packets(1000))
    append(log, packets(1000, problem_type="other"), ELSEWHERE)
    log._flush()
    (pack,) = (log.store.folder / "packs").iterdir()
    before = pack.stat().st_size
    address = log.store.catalogue.address(HERE)
    with log.store.catalogue.writing() as writer:
        writer.execute("DELETE FROM run WHERE address = ?", (address,))
        writer.execute("UPDATE run SET start = start + 500, first = first + 500, packets = packets - 500")
    append(log, packets(1, 9999))
    log._flush()
    while pack.exists():
        time.sleep(0.01)
    assert sum(path.stat().st_size for path in pack.parent.iterdir()) < before / 2
    assert times(log) == [*range(500, 1000), 9999]
    log.close()
