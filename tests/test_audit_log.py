"""The audit log: one line a call, each with the hash of the last, across kills, torn lines and new files."""

import subprocess
import sys
import time
from threading import Thread

import pytest
from signed_packets import audited

from qis_connectors import QisError
from qis_connectors.client import RouterClient
from qis_connectors.router import Router, audit_log, refusals
from qis_connectors.router.audit_log import AuditLog, AuditLogError, check
from qis_connectors.router.refusals import Refusals

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from qis_connectors.router.audit_log import AuditLog
log = AuditLog(Path(sys.argv[1]))
while True:
    log.record("site-a", "deposit", "a/b", "stored 1")
    print(log.lines, flush=True)
"""


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "audit")
    yield log
    log.close()


@pytest.fixture
def lines(tmp_path):
    def read():
        return audited(tmp_path)

    return read


def fill(log, number):
    for at in range(number):
        log.record(f"site-{at}", "deposit", "a/b", f"stored {at}")


def test_a_line_says_who_what_when_and_the_decision(log, lines):
    log.record("site-a", "deposit", "a/b\n", "stored 3")
    (line,) = lines()
    assert time.time() - 60 < time.mktime(time.strptime(line.pop("at")[:19], "%Y-%m-%dT%H:%M:%S")) < time.time() + 60
    told = {"who": "site-a", "verb": "deposit", "what": "a/b\n", "decision": "stored 3"}
    assert line == {"n": 1, **told, "previous": "0" * 64}


def test_lines_are_a_chain_over_lives_and_files(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(audit_log, "FILE_BYTES", 1000)
    for _ in range(3):
        log = AuditLog(tmp_path / "audit")
        fill(log, 10)
        log.close()
    assert [line["n"] for line in lines()] == list(range(1, 31))
    assert len(audit_log.files_of(tmp_path / "audit")) > 3
    assert check(tmp_path / "audit") == (30, log.head, [])


def test_so_many_files_are_kept(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(audit_log, "FILE_BYTES", 500)
    monkeypatch.setattr(audit_log, "KEPT_FILES", 3)
    log = AuditLog(tmp_path / "audit")
    fill(log, 30)
    log.close()
    assert len(audit_log.files_of(tmp_path / "audit")) == 3
    assert lines()[0]["n"] > 20
    assert check(tmp_path / "audit") == (len(lines()), log.head, [])


def changes(path):
    text = path.read_bytes().splitlines(keepends=True)
    yield "changed", [*text[:3], text[3].replace(b"site-3", b"site-x"), *text[4:]]
    yield "taken out", [*text[:3], *text[4:]]
    yield "put in", [*text[:3], text[2], *text[3:]]
    yield "moved", [*text[:3], text[4], text[3], *text[5:]]
    yield "not JSON", [*text[:3], b"nothing\n", *text[4:]]
    yield "torn", [*text[:-1], text[-1][:20]]


def test_every_change_is_found(qis, log, tmp_path, tmp_path_factory):
    fill(log, 10)
    path = tmp_path / "audit" / "00000001.jsonl"
    status, _, told = qis("audit", "verify", path)
    assert status == 0
    assert told.endswith(f": 10 lines, each as it was written; the last one's hash is {log.head}\n")
    found = list(changes(path))
    assert len(found) == 6
    for name, content in found:
        copy = tmp_path / f"{name}.jsonl"
        copy.write_bytes(b"".join(content))
        status, _, err = qis("audit", "verify", copy)
        assert status == 1, name
        assert "line 10: was not written to its end" in err if name == "torn" else f"{copy}, line " in err
    with pytest.raises(AuditLogError, match="holds no audit log"):
        check(tmp_path_factory.mktemp("empty"))


def test_a_torn_line_is_cut_off_and_told(tmp_path, log, lines):
    fill(log, 5)
    path = tmp_path / "audit" / "00000001.jsonl"
    with path.open("ab") as file:
        file.write(b'{"n": 6, "at": "20')
    again = AuditLog(tmp_path / "audit")
    again.record("site-a", "deposit", "a/b", "stored 1")
    again.close()
    assert [line["verb"] for line in lines()] == ["deposit"] * 5 + ["mend", "deposit"]
    assert lines()[5]["decision"] == "cut 18 bytes of a line that was not written to its end"
    assert check(tmp_path / "audit") == (7, again.head, [])


def test_it_survives_kill_9(tmp_path, lines):
    for _ in range(2):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path / "audit")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            told = [process.stdout.readline() for _ in range(200)]
            process.kill()
            told += process.stdout.read().splitlines(keepends=True)
        last = max(int(line) for line in told if line.endswith("\n"))
        assert lines()[-1]["n"] >= last, "a line that was acknowledged is there"
    assert check(tmp_path / "audit")[2] == []


def test_threads_write_whole_lines(log, lines, tmp_path):
    threads = [Thread(target=fill, args=(log, 100)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 800
    assert check(tmp_path / "audit")[2] == []


def test_lines_that_find_no_room_are_counted(log, lines, full_disk, tmp_path):
    fill(log, 3)
    with full_disk((tmp_path / "audit" / "00000001.jsonl").stat().st_size + 20):
        fill(log, 4)
    fill(log, 1)
    assert [line.get("lost", 0) for line in lines()] == [0, 0, 0, 4]
    assert check(tmp_path / "audit")[2] == []


def test_a_router_writes_a_line_a_call_and_no_packet(router, packets, tmp_path):
    with RouterClient(router.url) as client:
        client.deposit(packets(5000))
        client.deposit(packets(3))
        client.read("*")
        with client.transaction() as transaction:
            transaction.deposit(packets(2, 9000))
        with pytest.raises(QisError):
            client.read("no address")
        stats = client.stats()
    told = [(line["verb"], line["decision"]) for line in audited(tmp_path / "router")]
    assert told == [
        ("deposit", "stored 5000"),
        ("deposit", "duplicates 3"),
        ("begin", "done"),
        ("stage", "staged 2"),
        ("commit", "stored 2, duplicates 0"),
        ("DoGet", "refused: address"),
    ]
    assert stats["audit"]["lines"] == 6
    assert stats["audit"]["head"] == check(tmp_path / "router" / "audit")[1]


def test_the_next_life_goes_on_with_the_chain(tmp_path, packets):
    for life in range(2):
        with Router(tmp_path / "store", "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
            client.deposit(packets(1, life))
    assert check(tmp_path / "store" / "audit")[::2] == (2, [])


def test_a_flood_of_refusals_does_not_push_out_what_is_there(monkeypatch):
    monkeypatch.setattr(refusals, "AUDITED", 1.0)
    told = []
    noted = Refusals(lambda *line: told.append(line))
    for _ in range(50):
        noted.turn_away("DoPut", "busy")
    assert 10 <= len(told) <= 12
    monkeypatch.setattr(noted, "_audited", refusals.Bucket(1.0, 10.0))
    noted.turn_away("DoPut", "busy")
    assert told[-1] == ("", "DoPut", "", f"refused: busy; {51 - len(told)} before it were not written")
