"""Deposits of several streams and addresses, checked together as if each had come alone."""

from concurrent.futures import Future
from types import SimpleNamespace

import pyarrow as pa
import pytest

from qis_connectors import packet
from qis_connectors.address import Pattern
from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log.admission import Deposit
from qis_connectors.router.packet_log.admission import admit as admit_with
from qis_connectors.router.packet_log.chains import Chains
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.view import View

BCG = ("clinical.tuberculosis", "bcg_vaccine")


@pytest.fixture
def deposit():
    """deposit(table, stream, problem): as a stream hands it on, unchecked."""

    def make(table, stream=None, problem=BCG):
        batch = pa.concat_batches(table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)])
        answer = Future()
        made = Deposit("/".join(problem), batch, 1, answer.set_result, problem, stream)
        return made, answer

    return make


def stream():
    return SimpleNamespace(failure=None)


def admit(group):
    whole, _, refusals = admit_with(group, Chains(lambda ids: [False] * (len(ids) // 16), is_strict=True))
    return whole, refusals


def group_of(*pairs):
    return [made for made, _ in pairs]


def test_good_ones_come_back_whole_in_their_order(deposit, packets):
    full = pa.Table.from_batches([packet.complete(packets(2, 5).to_batches()[0])])
    other = deposit(packets(1, 9, problem_type="other"), problem=("clinical.tuberculosis", "other"))
    group = group_of(deposit(packets(2)), deposit(full), other, deposit(packets(1, 7)))
    whole, refusals = admit(group)
    assert refusals == [None] * 4
    assert whole.equals(
        pa.concat_batches([packet.complete(one.packets) for one in group]),
    )


def test_a_bad_one_takes_its_own_stream_with_it_and_no_other(deposit, packets):
    one, two = stream(), stream()
    group = group_of(
        deposit(packets(1, 0), one),
        deposit(packets(1, 1), two),
        deposit(packets(1, 2, confidence=1.5), one),
        deposit(packets(1, 3), one),
        deposit(packets(1, 4), two),
        deposit(packets(1, 5, problem_type="other")),
    )
    whole, refusals = admit(group)
    line = "field 'confidence', row 0: 1.5 is outside 0..1"
    wrong = "field 'problem_type', row 0: 'other' is not the 'bcg_vaccine' of the address it is deposited at"
    assert [refusal and str(refusal) for refusal in refusals] == [None, None, line, line, None, wrong]
    assert [time - 1_700_000_000_000 for time in whole["timestamp_utc"].to_pylist()] == [0, 1, 4]


def test_nothing_is_taken_from_a_stream_that_has_failed_before(deposit, packets):
    failed = SimpleNamespace(failure=QisError("no more of this"))
    whole, refusals = admit(group_of(deposit(packets(2), failed)))
    assert (whole.num_rows, refusals) == (0, [failed.failure])


def test_each_is_answered_with_its_own_receipt(deposit, packets, tmp_path):
    log = PacketLog(tmp_path)
    other = ("clinical.tuberculosis", "other")
    pairs = [
        deposit(packets(2)),
        deposit(packets(1, 0, problem_type="other"), problem=other),
        deposit(packets(1, 9, outcome_decile=11)),
        deposit(packets(3)),
        deposit(packets(0)),
        deposit(packets(2, 0, problem_type="other"), problem=other),
    ]
    log._commit(group_of(*pairs))
    answers = [answer.result(0) for _, answer in pairs]
    assert str(answers.pop(2)) == "field 'outcome_decile', row 0: 11 is outside 1..10"
    assert answers == [Receipt(2, 0, 2), Receipt(1, 0, 3), Receipt(1, 2, 4), Receipt(0, 0, 4), Receipt(1, 1, 5)]
    found = View(log, Pattern("*")).summaries()
    assert [(one.address, one.packets) for one in found] == [("/".join(BCG), 3), ("/".join(other), 2)]
    log.close()
