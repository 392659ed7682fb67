"""The log against a model in memory: deposits, transactions, packing, crashes and reads, in whatever order."""

import shutil
import tempfile
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from qis_connectors import filters, packet
from qis_connectors.address import Pattern
from qis_connectors.receipt import Receipt
from qis_connectors.request import Request
from qis_connectors.router.exchange import follow
from qis_connectors.router.packet_log import journal, packet_index, packing, packs, view
from qis_connectors.router.packet_log import log as packet_log
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.packet_log.view import View
from qis_connectors.router.transactions import TransactionError, Transactions

ADDRESSES = ("clinical.tuberculosis/bcg_vaccine", "clinical.tuberculosis/other", "clinical.asthma/inhaler")
PATTERNS = (*ADDRESSES, "*", "clinical.tuberculosis", "clinical.*/inhaler", "not/here")
COLUMNS = ("timestamp_utc", "sample_count")
FIRST = 1_700_000_000_000
SMALL = [(journal, "FILE_BYTES", 4096), (packet_log, "FILE_BYTES", 4096), (packing, "MERGE", 2)]
SMALL += [(packet_index, "MERGE", 2), (packs, "RECORD_ROWS", 8), (view, "RECORD_ROWS", 8)]

deposits = st.tuples(st.sampled_from(ADDRESSES), st.integers(0, 150), st.integers(1, 12))
"""Address, the first packet's time and how many: so narrow that many come again."""


class Log(RuleBasedStateMachine):
    """`stored` is what the log should hold: (address, time, count) by cursor."""

    transactions = Bundle("transactions")

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        for small in SMALL:
            self.stack.enter_context(patch.object(*small))
        self.lives = 0
        self.stored = {}
        self.known = set()
        self.staged = {}
        self.watched = []
        self.open(self.folder / "0")

    def open(self, folder):
        self.log = PacketLog(folder)
        self.transactions_of_log = Transactions(self.log)
        self.watching = follow(self.log, Request(Pattern("*"), self.cursor_watched(), COLUMNS), lambda: True)

    def close(self):
        self.watching.close()
        self.transactions_of_log.close()
        self.log.close()

    def cursor_watched(self):
        return self.watched[-1][0] if self.watched else 0

    def expect(self, parts):
        """What is new of (address, start, rows), by cursor."""
        new = []
        for address, start, rows in parts:
            for at in range(start, start + rows):
                if at not in self.known:
                    self.known.add(at)
                    new.append((address, FIRST + at, 100 + at))
        return new

    def take(self, new, receipt, total):
        assert (receipt.stored, receipt.duplicates) == (len(new), total - len(new))
        self.stored |= zip(range(self.log.head - len(new) + 1, self.log.head + 1), new, strict=True)

    @rule(given=deposits)
    def deposit(self, given):
        address, start, rows = given
        answer = Future()
        self.log.append(address, self.batch(rows, start), answer.set_result)
        self.take(self.expect([given]), answer.result(timeout=20), rows)

    @rule(target=transactions)
    def begin(self):
        name = self.transactions_of_log.begin()
        self.staged[name] = []
        return name

    @rule(name=transactions, given=deposits)
    def stage(self, name, given):
        address, start, rows = given
        answer = Future()
        self.transactions_of_log.stream(name, address)(self.batch(rows, start), answer.set_result)
        assert answer.result() == Receipt(staged=rows)
        self.staged[name].append(given)

    @rule(name=consumes(transactions))
    def commit(self, name):
        receipt = self.transactions_of_log.commit(name)
        parts = sorted(self.staged[name], key=lambda part: part[0])
        self.take(self.expect(parts), receipt, sum(rows for *_, rows in parts))
        assert self.transactions_of_log.commit(name) == receipt

    @rule(name=consumes(transactions))
    def abort(self, name):
        self.transactions_of_log.abort(name)
        with pytest.raises(TransactionError):
            self.transactions_of_log.commit(name)

    @rule()
    def pack(self):
        self.log._flush()

    @rule()
    def end_and_start(self):
        self.close()
        self.open(self.log.store.folder)

    @rule()
    def crash(self):
        """Go on with the folder as it is this moment."""
        self.lives += 1
        with self.log._packer._working:  # a copy takes time, in which the packer would go on
            copy = shutil.copytree(self.log.store.folder, self.folder / str(self.lives))
        self.close()
        self.open(copy)

    @rule(
        pattern=st.sampled_from(PATTERNS),
        since=st.integers(0, 200),
        limit=st.none() | st.integers(1, 30),
        until=st.none() | st.integers(0, 200),
        least=st.none() | st.integers(100, 260),
    )
    def read(self, pattern, since, limit, until, least):
        pattern, head = Pattern(pattern), self.log.head
        where = None if least is None else filters.parse(["sample_count", ">=", least])
        found = list(read(self.log, pattern, COLUMNS, since, limit, until, where))
        wanted = [
            (cursor, one)
            for cursor, one in sorted(self.stored.items())
            if since < cursor <= (head if until is None else until)
            and pattern.matches(one[0])
            and (least is None or one[2] >= least)
        ][:limit]
        assert rows_of(found) == [one[1:] for _, one in wanted]
        cursors = [cursor for _, cursor in found]
        assert cursors == sorted(cursors)
        if limit is not None and len(wanted) == limit:
            assert cursors[-1] >= wanted[-1][0]
        else:
            assert cursors[-1] == max(since, head if until is None else min(until, head))

    @rule()
    def watch(self):
        while self.cursor_watched() < max(self.stored, default=0):
            batch, cursor = next(self.watching)
            self.watched += [(cursor, row) for row in rows_of([(batch, cursor)])]
        assert [row for _, row in self.watched] == [one[1:] for _, one in sorted(self.stored.items())]

    @invariant()
    def summaries(self):
        found = {one.address: one.packets for one in View(self.log, Pattern("*")).summaries()}
        assert found == {
            name: count for name in ADDRESSES if (count := sum(one[0] == name for one in self.stored.values()))
        }

    def teardown(self):
        self.close()
        self.stack.close()


def rows_of(found):
    return [row for batch, _ in found for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


@pytest.fixture
def check(packets):
    def batch(self, rows, start):  # noqa: ARG001
        """Their times and counts tell one from the other."""
        counts = pa.array(range(100 + start, 100 + start + rows), pa.int32())
        table = packets(rows, start)
        table = table.set_column(table.schema.get_field_index("sample_count"), "sample_count", counts)
        return packet.complete(table.to_batches()[0])

    def run(examples, steps, *, is_random):
        given = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
        wanted = settings(max_examples=examples, stateful_step_count=steps, derandomize=not is_random, **given)
        run_state_machine_as_test(type("OurLog", (Log,), {"batch": batch}), settings=wanted)

    return run


def test_the_log_does_what_its_model_does(check):
    check(examples=20, steps=40, is_random=False)


@pytest.mark.slow
def test_the_log_does_what_its_model_does_for_minutes(check):
    check(examples=400, steps=60, is_random=True)
