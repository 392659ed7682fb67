"""A router that knows its sites' keys: every attack on a packet is refused, and the audit log has one line of it."""

import json
import random
import string

import pyarrow as pa
import pytest
from pyarrow import flight
from signed_packets import HERE, audited, changed, forked, make_site, put

from qis_connectors import QisError, keys, packet
from qis_connectors.client import RouterClient
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.packet_id import ID_HEX_DIGITS
from qis_connectors.router import Router, backup
from qis_connectors.router.deposit import MAX_ROWS
from qis_connectors.signing import sign

OTHER = {
    "timestamp_utc": 1,
    "metric_delta": 0.5,
    "metric_value": 0.75,
    "confidence": 0.5,
    "outcome_decile": 6,
    "sample_count": 263,
    "metric_stderr": 0.5,
    "intervention_params": '{"dose":2}',
    "context": '{"latitude":45}',
    "likelihood": [0.5],
    "sequence": 2,
    "signature": bytes(96),
    "packet_id": "0" * ID_HEX_DIGITS,
}


@pytest.fixture
def secret(tmp_path):
    return make_site(tmp_path)


@pytest.fixture
def router(tmp_path, secret):  # noqa: ARG001 - whose public key it knows
    with Router(tmp_path / "store", "grpc://127.0.0.1:0", keys=tmp_path / "keys") as router:
        yield router


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


@pytest.fixture
def refused(router, tmp_path):
    """refused(table, match, before=0): a deposit is, and the audit log has a line of it and no other since `before`."""

    def check(table, match, before=0):
        with pytest.raises(flight.FlightServerError, match=match):
            put(router.url, table)
        lines = audited(tmp_path / "store")[before:]
        assert [(line["who"], line["verb"], line["what"]) for line in lines] == [("127.0.0.1", "DoPut", HERE)]
        assert lines[0]["decision"].startswith("refused: ")
        return lines[0]["decision"]

    return check


def stored(client):
    return client.read("*").table


def test_signed_packets_are_taken_and_read_as_they_were(client, packets, secret, tmp_path):
    signed = sign(packets(100), secret)
    assert client.deposit(signed).stored == 100
    assert stored(client).equals(signed)
    (line,) = audited(tmp_path / "store")
    assert (line["who"], line["verb"], line["decision"]) == ("127.0.0.1", "deposit", "stored 100")


def test_a_replayed_packet_is_a_duplicate(client, packets, secret, tmp_path):
    signed = sign(packets(3), secret)
    client.deposit(signed)
    assert client.deposit(signed.slice(1, 1)).duplicates == 1
    assert stored(client).num_rows == 3
    assert [line["decision"] for line in audited(tmp_path / "store")] == ["stored 3", "duplicates 1"]


@pytest.mark.parametrize("name", OUTCOME_PACKET_SCHEMA.names)
def test_an_altered_field_is_refused(refused, client, packets, secret, name):
    given = {"metric_stderr": 0.25, "context": '{"latitude":44}', "likelihood": [0.25], "key_id": None}
    rows = [{**row, **given} for row in packets(1).to_pylist()]
    signed = sign(pa.Table.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA), secret)
    row = signed.to_pylist()[0]
    altered = changed_without_check(row, name, OTHER.get(name, "other"))
    decision = refused(altered, f"field '.*', row 0: |the '{row['domain']}' of the address")
    reason = {"packet_id": "packet", "domain": "packet", "problem_type": "packet"}.get(name, "signature")
    if name in ("domain", "problem_type"):  # refused whichever is looked at first
        assert decision.split(", ")[0] in ("refused: packet", "refused: signature")
    else:
        assert decision.startswith(f"refused: {reason}, field ")
    assert stored(client).num_rows == 0


def changed_without_check(row, name, value):
    table = pa.Table.from_pylist([{**row, name: value}], schema=OUTCOME_PACKET_SCHEMA)
    if name == "packet_id":
        return table
    return packet.complete(table.set_column(15, "packet_id", pa.nulls(1, pa.string())).to_batches()[0])


@pytest.mark.parametrize("name", ["metric_stderr", "context", "likelihood", "sequence", "signature", "key_id"])
def test_a_field_taken_out_is_refused(refused, packets, secret, name):
    given = {"metric_stderr": 0.25, "context": '{"latitude":44}', "likelihood": [0.25]}
    rows = [{**row, **given} for row in packets(2).to_pylist()]
    signed = sign(pa.Table.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA), secret)
    assert refused(changed(signed, 1, **{name: None}), "row 1: ").endswith("row 1")


def test_an_unsigned_packet_is_refused(refused, packets):
    assert refused(packets(1), "field 'signature', row 0: is missing") == "refused: signature, field signature, row 0"


def test_an_unknown_key_is_refused(refused, packets, tmp_path):
    stranger = make_site(tmp_path / "elsewhere", "site-x")
    signed = sign(packets(1, node_id="site-x"), stranger)
    assert "field key_id, row 0" in refused(signed, "is not known: there is no key of 'site-x'")


def test_nobody_signs_for_another_site(refused, packets, tmp_path):
    other = make_site(tmp_path, "site-b")
    signed = sign(packets(1, node_id="site-b"), other)
    assert "field key_id" in refused(changed(signed, node_id="site-a"), "is not a key of 'site-a'")


def test_a_reordered_chain_is_refused(refused, packets, secret):
    signed = sign(packets(3), secret).to_pylist()
    signed[1]["sequence"], signed[2]["sequence"] = 3, 2
    table = pa.Table.from_pylist(signed, schema=OUTCOME_PACKET_SCHEMA)
    decision = refused(table, "row 1: is not of this packet by 'site-a': a field of it was altered")
    assert decision == "refused: signature, field signature, row 1"


def test_equivocation_is_refused_and_both_are_kept_as_evidence(refused, client, packets, secret, tmp_path, router):
    first = sign(packets(1), secret)
    fork = forked(secret, tmp_path / "fork", packets(2, 50))
    second = sign(packets(1, 9), secret)
    client.deposit(first)
    client.deposit(second)
    decision = refused(fork, "field 'sequence', row 0: 2 was used by 'site-a' for another packet", before=2)
    assert decision == "refused: equivocation, field sequence, row 0"
    assert stored(client).equals(pa.concat_tables([first, second]))
    (entry,) = client.quarantine()
    assert entry["refused"]["packet_id"] == fork["packet_id"][0].as_py()
    assert entry["stored"]["packet_id"] == second["packet_id"][0].as_py()
    with pytest.raises(flight.FlightServerError, match="for another packet"):
        put(router.url, fork)
    assert client.quarantine() == [entry], "once each"
    assert client.stats()["quarantined"] == 1
    backup(tmp_path / "store", tmp_path / "copy")
    assert (tmp_path / "copy" / "quarantine.jsonl").read_text(encoding="utf-8").count("\n") == 1


def test_equivocation_within_one_batch_is_refused(refused, client, packets, secret, tmp_path):
    (tmp_path / "store" / "quarantine.jsonl").write_text('{"at": "torn by a cra', encoding="utf-8")
    fork = forked(secret, tmp_path / "fork", packets(1, 50))
    both = pa.concat_tables([sign(packets(1), secret), fork])
    assert refused(both, "row 1: 1 was used") == "refused: equivocation, field sequence, row 1"
    assert stored(client).num_rows == 0
    (entry,) = client.quarantine()
    assert entry["stored"]["packet_id"] == both["packet_id"][0].as_py()


def test_a_chain_that_goes_on_from_another_packet_is_refused(refused, client, packets, secret, tmp_path):
    fork = forked(secret, tmp_path / "fork", packets(2, 50))
    client.deposit(sign(packets(1), secret))
    decision = refused(fork.slice(1, 1), "names another previous packet than the one stored as sequence 1", before=1)
    assert decision == "refused: brokenchain, field signature, row 0"
    assert client.quarantine()[0]["stored"]["sequence"] == 1


def test_a_late_packet_must_be_the_one_its_successor_names(refused, client, packets, secret, tmp_path):
    fork = forked(secret, tmp_path / "fork", packets(2, 50))
    signed = sign(packets(3), secret)
    client.deposit(signed.slice(2, 1))
    assert client.stats()["gaps"] == 1
    refused(fork.slice(1, 1), "is not of the packet that the one stored as sequence 3 names", before=1)
    client.deposit(signed.slice(1, 1))
    client.deposit(signed.slice(0, 1))
    assert sorted(stored(client)["sequence"].to_pylist()) == [1, 2, 3]


def test_one_sites_fork_does_not_hold_up_the_others(router, client, packets, secret, tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0)
    other = make_site(tmp_path, "site-b")  # while the router runs
    fork = forked(secret, tmp_path / "fork", packets(1, 50))
    put(router.url, sign(packets(1), secret))
    with pytest.raises(flight.FlightServerError):
        put(router.url, fork)
    put(router.url, sign(packets(1, node_id="site-b"), other))
    assert sorted(stored(client)["node_id"].to_pylist()) == ["site-a", "site-b"]


@pytest.mark.parametrize("life", ["flushed", "journal", "rebuilt"])
def test_what_was_signed_is_remembered_by_the_next_life(packets, secret, tmp_path, router_process, life):
    """Of packets in packs, of packets in the journal only, and where the catalogue and the ids are gone."""
    fork = forked(secret, tmp_path / "fork", packets(3, 50))
    signed = sign(packets(4), secret)
    if life == "journal":
        script = """
import sys
from pathlib import Path
from qis_connectors.router import Router
router = Router(Path(sys.argv[1]), "grpc://127.0.0.1:0", keys=Path(sys.argv[2]))
print(router.url, flush=True)
router.serve()
"""
        process, url = router_process(str(tmp_path / "keys"), script)
        put(url, signed.slice(0, 3))
        process.kill()
        process.wait()
    else:
        with Router(tmp_path / "store", "grpc://127.0.0.1:0", keys=tmp_path / "keys") as router:
            put(router.url, signed.slice(0, 3))
    if life == "rebuilt":
        (tmp_path / "store" / "catalogue.db").unlink()
        for path in (tmp_path / "store" / "ids").iterdir():
            path.unlink()
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", keys=tmp_path / "keys") as router,
        RouterClient(router.url) as client,
    ):
        for row in range(3):
            with pytest.raises(QisError, match=f"{row + 1} was used by 'site-a'"):
                client.deposit(fork.slice(row, 1))
        assert client.deposit(signed).stored == 1
        assert client.stats()["gaps"] == 0


def test_transactions_stage_and_commit_signed_packets_only(client, packets, secret, tmp_path):
    fork = forked(secret, tmp_path / "fork", packets(1, 50))
    with pytest.raises(QisError, match="field 'signature', row 0: is missing"), client.transaction() as transaction:
        transaction.deposit(packets(1))
    with client.transaction() as transaction:
        transaction.deposit(sign(packets(3), secret))
    with pytest.raises(QisError, match="1 was used by 'site-a'"), client.transaction() as transaction:
        transaction.deposit(fork)
    assert stored(client)["sequence"].to_pylist() == [1, 2, 3]
    verbs = [line["verb"] for line in audited(tmp_path / "store")]
    assert verbs == ["begin", "DoPut", "abort", "begin", "stage", "commit", "begin", "stage", "DoAction"]
    assert client.quarantine()[0]["stored"]["packet_id"] == sign(packets(1), secret)["packet_id"][0].as_py()


def test_an_oversized_batch_is_refused(refused, packets):
    rows = packets(1)
    table = pa.concat_tables([rows] * (MAX_ROWS + 1)).combine_chunks()
    assert refused(table, f"has {MAX_ROWS + 1} rows") == "refused: packet, field batch"


BOMBS = {
    "nested": lambda: "[" * 200,
    "nested objects": lambda: '{"a":' * 60 + "1" + "}" * 60 + "}",
    "long": lambda: json.dumps({"a": "x" * 100_000}),
    "large": lambda: json.dumps({"a": "x" * 5_000_000}),
    "many digits": lambda: '{"a":' + "9" * 5_000 + "}",
    "not a number": lambda: '{"a":NaN}',
    "many keys": lambda: "{" + ",".join(f'"{n}":0' for n in range(100_000)) + "}",
    "surrogates": lambda: '{"\\ud800":1',
    "random": lambda: "".join(random.Random(1).choices(string.printable, k=200)),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["intervention_params", "context"])
@pytest.mark.parametrize("rows", [1, 60])
def test_a_json_bomb_is_refused(refused, packets, name, bomb, rows):
    good = packet.complete(packets(rows).to_batches()[0]).to_pylist()
    good[-1] |= {name: BOMBS[bomb](), "packet_id": None}
    table = pa.Table.from_pylist(good, schema=OUTCOME_PACKET_SCHEMA)
    assert refused(table, f"field '{name}', row {rows - 1}: ") == f"refused: packet, field {name}, row {rows - 1}"
