"""What is acknowledged survives a failure of the power, at any moment: see power_loss.py for what that is."""

import random
from concurrent.futures import Future

import power_loss
import pytest

from qis_connectors import packet
from qis_connectors.address import Pattern
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log import journal, packet_index, packing
from qis_connectors.router.packet_log import log as packet_log
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read
from qis_connectors.router.transactions import Transactions

ADDRESSES = ("clinical.tuberculosis/bcg_vaccine", "clinical.tuberculosis/other", "clinical.asthma/inhaler")


@pytest.fixture
def small_files(monkeypatch):
    """Files so small that forty deposits fill several, which are packed, and the packs merged, and the ids."""
    for module in (journal, packet_log):
        monkeypatch.setattr(module, "FILE_BYTES", 6 << 10)
    monkeypatch.setattr(packing, "MERGE", 3)
    monkeypatch.setattr(packet_index, "MERGE", 2)


def append(log, address, batch):
    answer = Future()
    log.append(address, batch, answer.set_result)
    return answer.result(timeout=20)


class Depositor:
    """Deposits and commits, and knows what it was told."""

    def __init__(self, packets):
        self._packets = packets
        self.acknowledged = set()
        self.batches = []  # each acknowledged
        self.staged = {}  # by transaction
        self.committed = {}
        self.aborted = set()

    def known(self):
        return (
            list(self.batches),
            set(self.acknowledged),
            {name: set(ids) for name, ids in self.staged.items()},
            dict(self.committed),
        )

    def deposit(self, log, start, number, address):
        batch = self._batch(start, number)
        assert isinstance(append(log, address, batch), Receipt)
        self.batches.append(batch)
        self.acknowledged |= set(batch["packet_id"].to_pylist())

    def stage(self, transactions, start, number):
        name = transactions.begin()
        self.staged[name] = set()
        for part in range(2):
            batch = self._batch(start + part * number, number)
            answer = Future()
            transactions.stream(name, ADDRESSES[part])(batch, answer.set_result)
            assert answer.result() == Receipt(staged=number)
            self.staged[name] |= set(batch["packet_id"].to_pylist())
        return name

    def commit(self, transactions, name):
        receipt = transactions.commit(name)
        self.acknowledged |= self.staged[name]
        self.committed[name] = receipt

    def _batch(self, start, number):
        return packet.complete(self._packets(number, start).to_batches()[0])


def work(folder, depositor):
    """Deposits, some of them again, transactions committed and aborted, an end in order and a start."""
    for life in range(2):
        log = PacketLog(folder)
        transactions = Transactions(log)
        for at in range(16):
            depositor.deposit(log, 1000 * life + 3 * at, 4, ADDRESSES[at % 3])
            if at % 5 == 2:
                name = depositor.stage(transactions, 100_000 * (1 + life) + 100 * at, 5)
                if at == 7:
                    transactions.abort(name)
                    depositor.aborted.add(name)
                else:
                    depositor.commit(transactions, name)
        transactions.close()
        log.close()


def check(folder, known, depositor):
    """What was acknowledged is there, once, and what was staged can still be committed, whole."""
    batches, acknowledged, staged, committed = known
    log = PacketLog(folder)
    try:
        transactions = Transactions(log)
        stored = [one for batch, _ in read(log, Pattern("*"), ["packet_id"]) for one in batch["packet_id"].to_pylist()]
        assert len(set(stored)) == len(stored)
        assert acknowledged <= set(stored)
        for name, ids in staged.items():
            if name in committed:
                assert transactions.commit(name) == committed[name]
            elif name not in depositor.aborted:
                assert len(ids & set(stored)) in (0, 10)
                assert transactions.commit(name).stored + transactions.commit(name).duplicates >= len(ids)
        transactions.close()
        assert {append(log, ADDRESSES[0], batch).stored for batch in batches} <= {0}
    finally:
        log.close()


def images(folder, depositor, chance, share):
    """(what it knew, an image) for that share of the moments of its work."""
    found = []

    def look(disk):
        if chance.random() < share:
            known = depositor.known()
            found.append((known, disk.image()))
            found.append((known, disk.image(chance)))

    folder.mkdir()
    with power_loss.Disk(folder, look).recording():
        work(folder / "store", depositor)
    return found


def check_images(tmp_path, packets, seed, share):
    depositor = Depositor(packets)
    found = images(tmp_path / "disk", depositor, random.Random(seed), share)
    for at, (known, image) in enumerate(found):
        folder = tmp_path / f"image-{at}"
        power_loss.write(image, folder)
        check(folder / "store", known, depositor)
    return len(found)


@pytest.mark.usefixtures("small_files")
def test_what_was_acknowledged_survives_a_failure_of_the_power(tmp_path, packets):
    assert check_images(tmp_path, packets, 1, share=0.12) > 40


@pytest.mark.slow
@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("seed", range(10))
def test_the_power_fails_at_every_moment(tmp_path, packets, seed):
    assert check_images(tmp_path, packets, seed, share=1) > 500
