"""What a crash or a failing disk can do to a store: torn writes, flipped bits, files that are gone."""

import random
import shutil
from concurrent.futures import Future

import pytest

from qis_connectors import packet
from qis_connectors.address import Pattern
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log import record
from qis_connectors.router.packet_log.catalogue import Catalogue
from qis_connectors.router.packet_log.journal import Journal
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.store import StoreError

HERE = "clinical.tuberculosis/bcg_vaccine"
ADDRESSES = (HERE, "clinical.tuberculosis/other", "clinical.asthma/inhaler")
COLUMNS = OUTCOME_PACKET_SCHEMA.names


def append(log, table, address=HERE):
    answer = Future()
    log.append(address, packet.complete(table.to_batches()[0]), answer.set_result)
    return answer.result(timeout=10)


def rows_of(log, pattern="*"):
    return [row for batch, _ in read(log, Pattern(pattern), COLUMNS) for row in batch.to_pylist()]


def reopened(folder):
    """Every packet, after opening the store anew."""
    log = PacketLog(folder)
    try:
        return rows_of(log)
    finally:
        log.close()


def journal_of(folder):
    (path,) = (file for file in (folder / "journal").iterdir() if file.read_bytes().strip(b"\0"))
    return path


@pytest.fixture
def journalled(tmp_path, packets):
    """A copy of a store as kill -9 would have left it: ten packets, a record each, all in the journal; and its rows."""
    log = PacketLog(tmp_path / "live")
    for at in range(10):
        append(log, packets(1, at), ADDRESSES[at % 3])
    rows = rows_of(log)
    shutil.copytree(tmp_path / "live", tmp_path / "copy")
    log.close()
    return tmp_path / "copy", rows


@pytest.fixture
def packed(tmp_path, packets):
    """A closed store of sixty packets in three packs, and its rows."""
    folder = tmp_path / "packed"
    for third in range(3):
        log = PacketLog(folder)
        for at, address in enumerate(ADDRESSES):
            append(log, packets(20 // 3 + 1, 30 * third + 10 * at), address)
        rows = rows_of(log)
        log.close()
    return folder, rows


def found_in(folder, data):
    """The packets in a journal that is these bytes, and where each record stands."""
    (folder / "1.journal").write_bytes(data)
    journal = Journal(folder)
    chunks = journal.replay(0)
    journal.close(is_packed=True)
    return {chunk.first: chunk.packets["packet_id"].to_pylist() for chunk in chunks}


def test_a_write_torn_at_any_byte_costs_the_record_that_was_not_acknowledged(journalled, tmp_path):
    folder, rows = journalled
    data = journal_of(folder).read_bytes()
    *_, before, last = record.scan(memoryview(data), data)
    assert last.position == before.end
    whole = {first + 1: [row["packet_id"]] for first, row in enumerate(rows)}
    less = {first: row for first, row in whole.items() if first < 10}
    # What the file held there before: zeros, or older records.
    for older, step in ((bytes(last.end), 1), (data[: before.position] * 2, 7)):
        for at in range(last.position, last.end, step):
            torn = data[:at] + older[at : last.end]
            assert found_in(tmp_path, torn) == (whole if torn == data[: last.end] else less)


def test_a_store_whose_last_write_was_torn_goes_on(journalled, packets):
    folder, rows = journalled
    path = journal_of(folder)
    data = path.read_bytes()
    *_, last = record.scan(memoryview(data), data)
    path.write_bytes(data[: last.end - 700] + bytes(len(data) - last.end + 700))
    log = PacketLog(folder)
    assert rows_of(log) == rows[:9]
    assert append(log, packets(10)) == Receipt(1, 9, 10)
    log.close()
    assert len(reopened(folder)) == 10


def test_a_flipped_bit_in_a_journal_costs_one_record_at_most(journalled, tmp_path, caplog):
    folder, rows = journalled
    data = journal_of(folder).read_bytes()
    records = list(record.scan(memoryview(data), data))
    whole = {first + 1: [row["packet_id"]] for first, row in enumerate(rows)}
    chance = random.Random(1)
    for _ in range(1000):
        at = chance.randrange(records[-1].end)
        flipped = bytearray(data[: records[-1].end])
        flipped[at] ^= 1 << chance.randrange(8)
        (hit,) = (one.first for one in records if one.position <= at < one.end)
        caplog.clear()
        found = found_in(tmp_path, flipped)
        assert found in (whole, {first: row for first, row in whole.items() if first != hit})
        assert bool(caplog.messages) == (hit not in found and 1 < hit < 10)


def flip(path, chance):
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def check_flipped(folder, rows, scratch, chance):
    """Whatever bit is flipped in a closed store: no wrong packet, and only those of one record missing."""
    shutil.copytree(folder, scratch)
    files = [path for path in scratch.rglob("*") if path.stat().st_size and path.is_file()]
    hit = chance.choices(files, [path.stat().st_size for path in files])[0]
    flip(hit, chance)
    try:
        found = reopened(scratch)
    except StoreError:
        assert hit.name == "store.json"
    else:
        assert found == [row for row in rows if row in found]
        assert len(rows) - len(found) in ((0, 21) if hit.suffix == ".pack" else (0,))
    shutil.rmtree(scratch)


def test_a_flipped_bit_in_a_store_costs_one_record_at_most(packed, tmp_path):
    for seed in range(60):
        check_flipped(*packed, tmp_path / "flipped", random.Random(seed))


@pytest.mark.slow
def test_two_thousand_flipped_bits(packed, tmp_path):
    for seed in range(2000):
        check_flipped(*packed, tmp_path / "flipped", random.Random(1000 + seed))


def test_a_damaged_pack_is_kept_aside_when_it_is_merged(packed, packets, caplog):
    folder, rows = packed
    path = sorted((folder / "packs").iterdir())[0]
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    log = PacketLog(folder)
    for at in range(8):
        append(log, packets(1, 1000 + at))
        log._flush()
    log.close()
    assert path.with_suffix(".damaged").exists()
    assert not path.exists()
    assert "a record of pack 1 is damaged" in caplog.text
    assert [row for row in reopened(folder) if row["timestamp_utc"] < 1_700_000_001_000] == rows[21:]


@pytest.mark.parametrize("gone", ["catalogue.db", "ids"])
def test_what_can_be_made_anew_is(packed, packets, gone):
    folder, rows = packed
    identity = (folder / "store.json").read_text()
    shutil.rmtree(folder / gone) if gone == "ids" else (folder / gone).unlink()
    assert reopened(folder) == rows
    assert (folder / "store.json").read_text() == identity
    log = PacketLog(folder)
    assert append(log, packets(7)) == Receipt(0, 7, 63)
    assert [row["timestamp_utc"] % 30 // 10 for row in rows_of(log, ADDRESSES[2])] == [1] * 21  # all that are its own
    log.close()


def test_a_crash_while_the_catalogue_is_made_anew_loses_nothing(packed, tmp_path, monkeypatch):
    folder, rows = packed
    (folder / "catalogue.db").unlink()
    add, copies = Catalogue.add, []

    def copy_and_add(*given):
        copies.append(shutil.copytree(folder, tmp_path / f"copy-{len(copies)}"))
        add(*given)

    monkeypatch.setattr(Catalogue, "add", copy_and_add)
    PacketLog(folder).close()
    monkeypatch.undo()
    assert [reopened(copy) for copy in copies] == [rows] * 3


def test_a_pack_that_is_gone_costs_what_was_in_it(packed, caplog):
    folder, rows = packed
    sorted((folder / "packs").iterdir())[0].unlink()
    assert reopened(folder) == rows[21:]
    assert "a pack is damaged or gone" in caplog.text
    assert reopened(folder) == rows[21:]


def test_what_a_merge_left_behind_is_not_read_twice(packed, packets):
    folder, rows = packed
    log = PacketLog(folder)
    old = {path.name: path.read_bytes() for path in (folder / "packs").iterdir()}
    for at in range(6):
        append(log, packets(1, 1000 + at))
        log._flush()
    log.close()
    for name, data in old.items():
        (folder / "packs" / name).write_bytes(data)
    (folder / "packs" / "99.draft").write_bytes(b"half a pack")
    assert len(reopened(folder)) == len(rows) + 6
    assert not (folder / "packs" / "99.draft").exists()
    for name, data in old.items():
        (folder / "packs" / name).write_bytes(data)
    (folder / "catalogue.db").unlink()
    assert len(reopened(folder)) == len(rows) + 6
