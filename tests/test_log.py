import time
from concurrent.futures import Future

import pyarrow as pa
import pytest

from qis_connectors import filters, packet
from qis_connectors.address import Pattern
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log.chunk import CURSOR, SPAN
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.packet_index import PacketIndex
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.store import StoreError
from qis_connectors.router.packet_log.tail import due_for_merge
from qis_connectors.router.packet_log.view import View

HERE = "clinical.tuberculosis/bcg_vaccine"
ELSEWHERE = "clinical.tuberculosis/other"


@pytest.fixture
def log(tmp_path):
    log = PacketLog(tmp_path)
    yield log
    log.close()


def append(log, table, address=HERE):
    answers = []
    for batch in table.to_batches():
        answer = Future()
        log.append(address, packet.complete(batch), answer.set_result)
        answers.append(answer)
    return [answer.result(timeout=10) for answer in answers]


def batches_of(log, pattern="*", since=0, limit=None):
    return list(read(log, Pattern(pattern), ["node_id", "timestamp_utc", "packet_id"], since, limit))


def times(batches):
    return [time - 1_700_000_000_000 for batch, _ in batches for time in batch["timestamp_utc"].to_pylist()]


def test_a_packet_is_stored_once_within_a_batch_and_across_batches(log, packets):
    three = packets(3)
    assert append(log, pa.concat_tables([three, three.slice(1)]).combine_chunks()) == [Receipt(3, 2, 3)]
    assert append(log, three) == [Receipt(0, 3, 3)]
    assert append(log, packets(5)) == [Receipt(2, 3, 5)]
    assert times(batches_of(log)) == [0, 1, 2, 3, 4]


def test_an_id_that_goes_into_a_run_while_it_is_looked_for_is_known(tmp_path, monkeypatch):
    index, ids = PacketIndex(tmp_path, []), bytes(range(48))
    index.add(ids)
    index.freeze()
    run, look = index.write_frozen(1), index._known

    def look_and_forget(packed):
        known = look(packed)
        index.use(run)
        index.forget_frozen()
        return known

    monkeypatch.setattr(index, "_known", look_and_forget)
    assert not index.new(ids).any()


def test_reopening_keeps_packets_cursor_and_identity(tmp_path, packets):
    first = PacketLog(tmp_path)
    append(first, packets(3))
    first.close()
    again = PacketLog(tmp_path)
    assert again.store.identity == first.store.identity
    assert again.head == 3
    assert append(again, packets(4)) == [Receipt(1, 3, 4)]
    assert times(batches_of(again)) == [0, 1, 2, 3]
    again.close()


def test_one_row_deposits_read_back_as_one_batch_in_order(log, packets):
    for at in range(300):
        append(log, packets(1, at))
    assert len(log.tail.chunks) < 40
    ((batch, cursor),) = batches_of(log, HERE)
    assert (batch.num_rows, cursor) == (300, 300)
    assert times([(batch, cursor)]) == list(range(300))


def test_small_chunks_stay_few_and_are_copied_three_times_at_most():
    newest_first, copied = [], 0
    for deposits in range(1, 20_001):
        newest_first.insert(0, 1)
        if deposits % 16 == 0:
            while due := due_for_merge(newest_first):
                newest_first[:due] = [sum(newest_first[:due])]
                copied += newest_first[0]
    assert sum(newest_first) == 20_000
    assert len([rows for rows in newest_first if rows < 4096]) <= 3 * 16
    assert copied <= 3 * 20_000


def test_addresses_come_interleaved_in_the_order_of_storing(log, packets):
    for at in range(40):
        append(log, packets(1, at), (HERE, ELSEWHERE)[at % 2])
    assert times(batches_of(log)) == list(range(40))
    assert times(batches_of(log, ELSEWHERE)) == list(range(1, 40, 2))


def test_reading_goes_on_from_any_cursor_it_has_given_out(log, packets):
    append(log, packets(5))
    append(log, packets(5, 5, problem_type="other"), ELSEWHERE)
    seen, cursor = [], 0
    for _ in range(4):
        page = batches_of(log, "clinical.*", cursor, limit=3)
        seen, cursor = seen + times(page), page[-1][1]
    assert (seen, cursor) == (list(range(10)), 10)
    assert [(batch.num_rows, at) for batch, at in batches_of(log, since=10)] == [(0, 10)]
    assert [(batch.num_rows, at) for batch, at in batches_of(log, HERE, since=5)] == [(0, 10)]
    assert [(batch.num_rows, at) for batch, at in batches_of(log, "not/here")] == [(0, 10)]


@pytest.mark.parametrize("pattern", [HERE, "*"])
def test_a_slow_reader_misses_nothing_that_is_packed_and_merged_meanwhile(log, packets, pattern):
    for at in range(3):
        append(log, packets(20_000, 20_000 * at))
        log._flush()
    for at in range(15):
        append(log, packets(1, 60_000 + at))
    reading = read(log, Pattern(pattern), ["timestamp_utc"])
    first = next(reading)
    for at in range(15, 40):
        append(log, packets(1, 60_000 + at))
        log._flush()
    while len(list((log.store.folder / "packs").iterdir())) > 7:
        time.sleep(0.01)
    assert times([first, *reading]) == list(range(60_015))
    assert times(batches_of(log)) == list(range(60_040))


def test_packs_and_runs_of_ids_stay_few(log, packets):
    log.head = SPAN - 20
    for at in range(70):
        append(log, packets(1, at), (HERE, ELSEWHERE)[at % 2])
        log._flush()
    folder = log.store.folder
    deadline = time.monotonic() + 10
    while len(list((folder / "packs").iterdir())) > 9 or len(list((folder / "ids").iterdir())) > 16:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert times(batches_of(log)) == list(range(70))
    assert times(batches_of(log, HERE)) == list(range(0, 70, 2))
    assert append(log, packets(71)) == [Receipt(1, 70, log.head)]


@pytest.mark.parametrize("is_packed", [False, True])
def test_many_addresses_at_once(log, packets, is_packed):
    names = [f"clinical.tuberculosis/p{at % 7}" for at in range(200)]
    for at, name in enumerate(names):
        append(log, packets(3, 3 * at), name)
    if is_packed:
        log._flush()
    for name in set(names):
        own = [3 * at + row for at in range(200) if names[at] == name for row in range(3)]
        assert times(batches_of(log, name)) == own
    assert times(batches_of(log, "clinical.*")) == list(range(600))
    found = View(log, Pattern("*")).summaries()
    assert {one.address: one.packets for one in found} == {name: 3 * names.count(name) for name in names}
    assert {(one.first_time, one.last_time) for one in found[:1]} == {(1_700_000_000_000, 1_700_000_000_590)}


@pytest.mark.parametrize("is_packed", [False, True])
def test_no_chunk_crosses_a_span_and_order_holds_across_spans(log, packets, is_packed):
    log.head = SPAN - 4
    append(log, packets(2))
    append(log, packets(3, 2, problem_type="other"), ELSEWHERE)
    append(log, packets(3, 5))
    assert all(chunk.first // SPAN == chunk.last // SPAN for chunk in log.tail.chunks)
    if is_packed:
        log._flush()
    assert times(batches_of(log)) == list(range(8))
    assert times(batches_of(log, HERE)) == [0, 1, 5, 6, 7]
    assert times(batches_of(log, since=SPAN)) == [3, 4, 5, 6, 7]


def test_a_stretch_with_nothing_to_keep_shows_as_a_cursor_that_moves_on(log, packets, monkeypatch):
    monkeypatch.setattr("qis_connectors.router.packet_log.reading.STRETCH_ROWS", 4)
    for span in range(4):
        log.head = max(log.head, span * SPAN)
        append(log, packets(2, 10 * span))
        append(log, packets(2, 10 * span + 5, problem_type="other"), ELSEWHERE)
    log._flush()
    where = filters.parse(["timestamp_utc", "in", [1_700_000_000_001, 1_700_000_000_035]])
    found = list(read(log, Pattern("*"), ["timestamp_utc"], where=where))
    assert [batch["timestamp_utc"].to_pylist() for batch, _ in found] == [
        [1_700_000_000_001],
        [],
        [],
        [1_700_000_000_035],
    ]
    assert [cursor // SPAN for _, cursor in found] == [0, 1, 2, 3]
    assert found[-1][1] == log.head
    assert all(times(read(log, Pattern("*"), ["timestamp_utc"], at, where=where)) == [35] for _, at in found[:-1])


def test_a_full_disk_refuses_and_recovers(log, packets, full_disk):
    append(log, packets(2))
    with full_disk(8192):
        (refusal,) = append(log, packets(500))
    assert str(refusal) == "the router cannot store packets: the disk is full"
    assert times(batches_of(log)) == [0, 1]
    assert append(log, packets(500)) == [Receipt(498, 2, 500)]


def test_what_cannot_be_packed_stays_in_the_journal(tmp_path, packets, full_disk):
    log = PacketLog(tmp_path)
    append(log, packets(500))
    with full_disk(8192), pytest.raises(OSError, match="File too large"):
        log._flush()
    assert times(batches_of(log)) == list(range(500))
    assert append(log, packets(501)) == [Receipt(1, 500, 501)]
    with full_disk(8192):
        log.close()
    again = PacketLog(tmp_path)
    assert times(batches_of(again)) == list(range(501))
    again.close()


def test_a_stopped_log_takes_no_more(log, packets):
    assert log.stop()
    (refusal,) = append(log, packets(1))
    assert str(refusal) == "the router is shutting down"


@pytest.mark.usefixtures("log")
def test_one_router_at_a_time(tmp_path):
    with pytest.raises(StoreError, match=f"^store {tmp_path} is in use by another router$"):
        PacketLog(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "store.json",
            '{"format": 3, "store": "s"}',
            r"was written by a newer version \(format 3; this one knows 2\)$",
        ),
        ("store.json", "[]", r"cannot be opened: store.json cannot be read$"),
        ("packets.db", "", r"was written by an older version \(format 1; this one knows 2\)$"),
        ("notes.txt", "mine", r"cannot be opened: it holds 'notes.txt' and is not a packet store$"),
    ],
)
def test_what_is_no_store_of_this_version_is_refused_and_left_alone(tmp_path, name, content, line):
    (tmp_path / name).write_text(content)
    for _ in range(2):  # and the refusal does not keep the lock
        with pytest.raises(StoreError, match=line):
            PacketLog(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["lock", name])


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be opened: File exists|cannot be opened: Not a directory"):
        PacketLog(tmp_path / "file")


def test_cursor_column_is_no_field_of_a_packet():
    assert CURSOR not in packet.OUTCOME_PACKET_SCHEMA.names
