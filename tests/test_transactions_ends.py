"""A transaction across the ends of its router: in order, by kill -9, with a torn file, a damaged one, a full disk."""

import signal

import pyarrow as pa
import pytest

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.receipt import Receipt
from qis_connectors.router import Router

# argv: the store, and before which step of a commit, the packs, the ids or the dropping, the process kills itself.
SERVE = """
import os, signal, sys
from pathlib import Path
from qis_connectors.router import Router
from qis_connectors.router.packet_log.packet_index import PacketIndex
from qis_connectors.router.packet_log.packs import Packs
from qis_connectors.router.staging import Staging
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
steps = {"packs": (Packs, "write"), "ids": (PacketIndex, "write"), "drop": (Staging, "drop")}
if sys.argv[2] in steps:
    setattr(*steps[sys.argv[2]], die)
router = Router(Path(sys.argv[1]), "grpc://127.0.0.1:0")
print(router.url, flush=True)
router.serve()
"""


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


def seen(client):
    return client.read("*").table.num_rows, client.stats()["packets"], client.addresses().num_rows


def test_a_restart_keeps_what_is_staged_and_an_end_in_order_too(tmp_path, packets):
    with Router(tmp_path, "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        transaction = client.transaction()
        transaction.deposit(packets(3))
    with Router(tmp_path, "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        joined = client.transaction(transaction.id)
        joined.deposit(packets(2, 2))
        assert joined.commit() == Receipt(4, 1, 4)


def test_a_torn_end_is_no_harm_and_damage_is_told(tmp_path, packets):
    with Router(tmp_path, "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        torn, damaged = client.transaction(), client.transaction()
        for transaction in (torn, damaged):
            transaction.deposit(packets(3))
            transaction.deposit(packets(3, 10))
    file = tmp_path / "staged" / torn.id / "packets.records"
    with file.open("ab") as end:
        end.write(file.read_bytes()[:700])
    file = tmp_path / "staged" / damaged.id / "packets.records"
    found = bytearray(file.read_bytes())
    found[500] ^= 1
    file.write_bytes(found)
    with Router(tmp_path, "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        again = client.transaction(torn.id)
        again.deposit(packets(3, 20))
        assert again.commit() == Receipt(9, 0, 9)
        with pytest.raises(QisError, match=rf"^what is staged in transaction {damaged.id} is damaged on the disk$"):
            client.transaction(damaged.id).commit()
        assert seen(client)[0] == 9


def test_a_full_disk_leaves_what_was_staged(client, packets, full_disk):
    transaction = client.transaction()
    transaction.deposit(packets(3))
    with full_disk(8192), pytest.raises(QisError, match=r"^the router cannot stage packets: the disk is full$"):
        transaction.deposit(packets(100, 10))
    transaction.deposit(packets(2, 5))
    assert transaction.commit() == Receipt(5, 0, 5)


@pytest.mark.parametrize("when", ["stage", "packs", "ids", "drop"])
def test_kill_9_loses_nothing_and_shows_nothing_half(router_process, packets, when):
    process, url = router_process("never" if when == "stage" else when, SERVE)
    with RouterClient(url) as client:
        transaction = client.transaction()
        transaction.deposit(pa.concat_tables([packets(5, problem_type=f"p{at}") for at in range(4)]))
        if when == "stage":
            process.send_signal(signal.SIGKILL)
        else:
            with pytest.raises(QisError):
                transaction.commit()
        assert process.wait(timeout=10) == -signal.SIGKILL
    process, url = router_process("never", SERVE)
    with RouterClient(url) as client:
        assert seen(client) == ((20, 20, 4) if when == "drop" else (0, 0, 0))
        joined = client.transaction(transaction.id)
        assert joined.commit() == joined.commit() == Receipt(20, 0, 20)
        assert seen(client) == (20, 20, 4)
