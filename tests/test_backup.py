"""A backup of a store that is written to meanwhile."""

from threading import Event, Thread

import pytest

from qis_connectors.client import RouterClient
from qis_connectors.router import Router, backup
from qis_connectors.router.packet_log import log
from qis_connectors.router.packet_log.store import StoreError


def test_everything_acknowledged_before_it_began_is_in_it(router, packets, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "FILE_BYTES", 20_000)  # a flush after every few packets
    acknowledged, is_over = [0], Event()

    def deposit():
        with RouterClient(router.url) as client:
            while not is_over.is_set():
                client.deposit(packets(3, 3 * acknowledged[0]))
                acknowledged[0] += 1

    thread = Thread(target=deposit)
    thread.start()
    try:
        for number in range(5):
            while acknowledged[0] < 20 * (number + 1):
                thread.join(0.01)
            before = acknowledged[0]
            assert backup(tmp_path / "router", tmp_path / f"copy-{number}") > 0
            with Router(tmp_path / f"copy-{number}", "grpc://127.0.0.1:0") as other, RouterClient(other.url) as client:
                found = client.read("*").table
                assert other.store == router.store
                assert client.deposit(packets(3)).duplicates == 3
            ids = found["packet_id"].to_pylist()
            assert len(ids) == len(set(ids)) >= 3 * before
            moments = found["timestamp_utc"].to_pylist()
            assert moments == list(range(1_700_000_000_000, 1_700_000_000_000 + len(moments)))
    finally:
        is_over.set()
        thread.join()


def test_a_store_without_its_catalogue_keeps_its_packs(tmp_path, packets):
    with Router(tmp_path / "store", "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        client.deposit(packets(3))
    (tmp_path / "store" / "catalogue.db").unlink()
    with pytest.raises(StoreError, match=r"has lost its catalogue, which a router on it makes anew: start one first$"):
        backup(tmp_path / "store", tmp_path / "out")
    with Router(tmp_path / "store", "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        assert client.read("*").table.num_rows == 3


@pytest.mark.usefixtures("router")
def test_what_cannot_be_backed_up_is_one_line(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match=r"holds no packet store$"):
        backup(tmp_path / "there", tmp_path / "out")
    with pytest.raises(StoreError, match=r"there exists already; a backup goes to a folder of its own$"):
        backup(tmp_path / "router", tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be backed up to .*: (Not a directory|File exists)$"):
        backup(tmp_path / "router", tmp_path / "file" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "router", "there"]
