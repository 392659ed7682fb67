from concurrent.futures import Future

import apsw
import pyarrow as pa
import pytest

from qis_connectors import filters, packet
from qis_connectors.address import Pattern
from qis_connectors.receipt import Receipt
from qis_connectors.router.log import PacketLog
from qis_connectors.router.reading import read
from qis_connectors.router.segment import CURSOR, SPAN, due_for_merge
from qis_connectors.router.store import Store, StoreError
from qis_connectors.router.transactions import Transactions

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


def segments(log):
    return [rows for (rows,) in log.store.writer.execute("SELECT packets FROM segment ORDER BY first")]


def test_a_packet_is_stored_once_within_a_batch_and_across_batches(log, packets):
    three = packets(3)
    assert append(log, pa.concat_tables([three, three.slice(1)]).combine_chunks()) == [Receipt(3, 2, 3)]
    assert append(log, three) == [Receipt(0, 3, 3)]
    assert append(log, packets(5)) == [Receipt(2, 3, 5)]
    assert times(batches_of(log)) == [0, 1, 2, 3, 4]


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
    assert len(segments(log)) < 40
    assert sum(segments(log)) == 300
    ((batch, cursor),) = batches_of(log, HERE)
    assert (batch.num_rows, cursor) == (300, 300)
    assert times([(batch, cursor)]) == list(range(300))


def test_small_segments_stay_few_and_are_rewritten_three_times_at_most():
    newest_first, rewritten = [], 0
    for deposits in range(1, 20_001):
        newest_first.insert(0, 1)
        if deposits % 16 == 0:
            while due := due_for_merge(newest_first):
                newest_first[:due] = [sum(newest_first[:due])]
                rewritten += newest_first[0]
    assert sum(newest_first) == 20_000
    assert len([rows for rows in newest_first if rows < 4096]) <= 3 * 16
    assert rewritten <= 3 * 20_000


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


def test_a_slow_reader_misses_nothing_that_is_merged_meanwhile(log, packets):
    big = pa.concat_tables([packets(10_000, 10_000 * at) for at in range(3)])
    append(log, big)
    for at in range(15):
        append(log, packets(1, 30_000 + at))
    reading = read(log, Pattern(HERE), ["timestamp_utc"])
    first = next(reading)
    for at in range(15, 40):
        append(log, packets(1, 30_000 + at))
    assert times([first, *reading]) == list(range(30_015))


def test_no_segment_crosses_a_span_and_order_holds_across_spans(log, packets):
    log.head = SPAN - 4
    append(log, packets(2))
    append(log, packets(3, 2, problem_type="other"), ELSEWHERE)
    append(log, packets(3, 5))
    firsts = list(log.store.writer.execute("SELECT first, last FROM segment ORDER BY first"))
    assert all(first // SPAN == last // SPAN for first, last in firsts)
    assert times(batches_of(log)) == list(range(8))
    assert times(batches_of(log, HERE)) == [0, 1, 5, 6, 7]
    assert times(batches_of(log, since=SPAN)) == [3, 4, 5, 6, 7]


def test_a_stretch_with_nothing_to_keep_shows_as_a_cursor_that_moves_on(log, packets):
    for span in range(4):
        log.head = max(log.head, span * SPAN)
        append(log, packets(2, 10 * span))
        append(log, packets(2, 10 * span + 5, problem_type="other"), ELSEWHERE)
    where = filters.parse(["timestamp_utc", "in", [1_700_000_000_001, 1_700_000_000_035]])
    found = list(read(log, Pattern("*"), ["timestamp_utc"], where=where))
    assert [batch["timestamp_utc"].to_pylist() for batch, _ in found] == [
        [1_700_000_000_001],
        [],
        [],
        [1_700_000_000_035],
    ]
    assert [cursor for _, cursor in found] == [SPAN - 1, 2 * SPAN - 1, 3 * SPAN - 1, log.head]
    assert all(times(read(log, Pattern("*"), ["timestamp_utc"], at, where=where)) == [35] for _, at in found[:-1])


def test_a_store_from_before_there_were_transactions_is_taken(tmp_path):
    Store(tmp_path).close()
    with apsw.Connection(str(tmp_path / "packets.db")) as database:
        database.execute("DROP TABLE committed")
    database.close()
    log = PacketLog(tmp_path)
    assert Transactions(log).begin()
    log.close()


def test_a_full_disk_refuses_and_recovers(log, packets):
    append(log, packets(2))
    pages = log.store.writer.pragma("page_count")
    log.store.writer.pragma("max_page_count", pages)
    (refusal,) = append(log, packets(500))
    assert str(refusal) == "the router cannot store packets: the disk is full"
    assert times(batches_of(log)) == [0, 1]
    log.store.writer.pragma("max_page_count", 2**30)
    assert append(log, packets(500)) == [Receipt(498, 2, 500)]


def test_a_stopped_log_takes_no_more(log, packets):
    assert log.stop()
    (refusal,) = append(log, packets(1))
    assert str(refusal) == "the router is shutting down"


@pytest.mark.usefixtures("log")
def test_one_router_at_a_time(tmp_path):
    with pytest.raises(StoreError, match=f"^store {tmp_path} is in use by another router$"):
        PacketLog(tmp_path)


def test_a_newer_store_is_refused(tmp_path):
    Store(tmp_path).close()
    with apsw.Connection(str(tmp_path / "packets.db")) as database:
        database.pragma("user_version", 2)
    database.close()
    for _ in range(2):  # and the refusal does not keep the lock
        with pytest.raises(StoreError, match=r"was written by a newer version \(format 2; this one knows 1\)$"):
            PacketLog(tmp_path)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "packets.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreError, match=r"cannot be opened: .*not a database"):
        PacketLog(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be opened: File exists|cannot be opened: Not a directory"):
        PacketLog(tmp_path / "file")


def test_somebody_elses_database_is_left_alone(tmp_path):
    with apsw.Connection(str(tmp_path / "packets.db")) as database:
        database.execute("CREATE TABLE mine(x)")
    database.close()
    with pytest.raises(StoreError, match="holds a database that is not a packet store"):
        PacketLog(tmp_path)


def test_cursor_column_is_no_field_of_a_packet():
    assert CURSOR not in packet.OUTCOME_PACKET_SCHEMA.names
