"""A disk that fills up: deposits are refused, reading goes on, and with room again everything does."""

import subprocess
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress

import apsw
import pytest

from qis_connectors import packet
from qis_connectors.address import Pattern
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt
from qis_connectors.router import Router
from qis_connectors.router.packet_log import packing
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read

HERE = "clinical.tuberculosis/bcg_vaccine"
FULL = "the router cannot store packets: the disk is full"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, leave=0):
    """A file that takes all room but so many bytes."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return path


def append(log, table):
    answer = Future()
    log.append(HERE, packet.complete(table.to_batches()[0]), answer.set_result)
    return answer.result(timeout=20)


def times(log):
    return [
        time - 1_700_000_000_000
        for batch, _ in read(log, Pattern("*"), ["timestamp_utc"])
        for time in batch["timestamp_utc"].to_pylist()
    ]


def check_no_rubbish(log):
    with log._packer._working:
        store = log.store
        assert sorted(path.name for path in (store.folder / "packs").iterdir()) == sorted(
            f"{pack:08}.pack" for pack in store.catalogue.packs()
        )
        assert sorted(path.name for path in (store.folder / "ids").iterdir()) == sorted(
            f"{number:08}.ids" for number, _ in store.catalogue.id_runs()
        )


def check_full_at_each_step(folder, packets, filled, steps):
    """Packing into a disk of so much room as each step says: which of them failed, and with what."""
    found = []
    with closing(PacketLog(folder)) as log:  # or a failure would leave its threads behind
        for at, step in enumerate(steps):
            assert append(log, packets(40, 40 * at)) == Receipt(40, 0, 40 * at + 40)
            with filled(step):
                try:
                    log._flush()
                    found.append(None)
                except (OSError, apsw.Error) as error:
                    found.append(type(error))
                check_no_rubbish(log)
                assert times(log) == list(range(40 * at + 40))
                assert log.store.catalogue.is_sound()
            log._flush()
            assert append(log, packets(40 * at + 40)) == Receipt(0, 40 * at + 40, 40 * at + 40)
    with closing(PacketLog(folder)) as again:
        assert times(again) == list(range(40 * len(steps)))
    return found


def test_full_in_the_pack_in_the_ids_and_in_the_catalogue(tmp_path, packets, full_disk, monkeypatch):
    monkeypatch.setattr(packing, "RETRY_SECONDS", 0.05)
    sizes = [256, 1 << 10, 8 << 10, 20 << 10, 24 << 10, 32 << 10, 48 << 10, 64 << 10, 80 << 10, 1 << 20]
    found = check_full_at_each_step(tmp_path / "store", packets, full_disk, sizes)
    assert {OSError, apsw.IOError, None} <= set(found)


def test_full_at_any_byte_of_a_small_disk(small_disk, packets, monkeypatch):
    monkeypatch.setattr(packing, "RETRY_SECONDS", 0.05)

    @contextmanager
    def filled(leave):
        ballast = fill(small_disk, leave)
        try:
            yield
        finally:
            ballast.unlink()

    steps = [*range(0, 200 << 10, 8 << 10), 2 << 20]
    found = check_full_at_each_step(small_disk / "store", packets, filled, steps)
    assert {OSError, apsw.FullError, None} <= set(found)


def test_a_router_on_a_small_disk_refuses_goes_on_reading_and_recovers(small_disk, packets, monkeypatch):
    monkeypatch.setattr(packing, "RETRY_SECONDS", 0.05)
    stored = 0
    with Router(small_disk / "store", "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        client.deposit(packets(1))
        ballast = fill(small_disk, leave=6 << 20)
        with suppress(QisError):
            while True:
                stored += client.deposit(packets(2000, 1 + stored)).stored
        assert stored > 10_000
        for _ in range(20):
            with pytest.raises(QisError, match=f"^{FULL}$"):
                client.deposit(packets(5000, 1 + stored))
            assert client.read("*").table.num_rows == 1 + stored
            assert client.stats()["packets"] == 1 + stored
        with pytest.raises(QisError, match=r"the disk is full|cannot begin a transaction"), client.transaction() as one:
            one.deposit(packets(5000, 1 + stored))
        ballast.unlink()
        assert client.deposit(packets(2000, 1 + stored)).stored == 2000
        with client.transaction() as one:
            one.deposit(packets(500, 3000 + stored))
        ballast = fill(small_disk)
        assert client.read("*").table.num_rows == 2501 + stored
    with Router(small_disk / "store", "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        assert client.read("*").table.num_rows == 2501 + stored
        ballast.unlink()
        assert client.deposit(packets(2000, 1 + stored)).duplicates == 2000
