"""`qis verify` and the commands around it: what any later reader finds in a packet table or a file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from signed_packets import changed, forked, make_site, put

from pipelines.accumulate import accumulate
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router import Router
from qis_connectors.signing import sign


@pytest.fixture
def secret(tmp_path):
    return make_site(tmp_path)


@pytest.fixture
def verified(qis, tmp_path):
    """verified(table, form): exit status, findings and notice of `qis verify` on packets in a file or a Delta table."""

    def check(packets, form=".parquet"):
        path = tmp_path / f"packets{form}"
        if form == ".parquet":
            pq.write_table(packets, path)
        else:
            table = packets.add_column(0, "address", pa.array(["a/b"] * packets.num_rows)).select(
                PACKET_TABLE_SCHEMA.names
            )
            PacketTable(path, create=True).append(table, "here", 1)
        status, out, err = qis("verify", path, "--keys", tmp_path / "keys", "--format", "json")
        found = [(row["sequence"], row["finding"]) for row in json.loads(out)]
        return status, found, err.replace(str(path), "PATH").strip()

    return check


@pytest.mark.parametrize("form", [".parquet", ""])
def test_what_was_signed_holds(verified, packets, secret, form):
    signed = sign(packets(20), secret)
    told = "20 packets of 1 nodes, 0 gaps: every signature and every chain holds"
    assert verified(signed.take(list(range(19, -1, -1))), form) == (0, [], told)


@pytest.mark.parametrize("form", [".parquet", ""])
def test_gaps_are_told_and_no_failure(verified, packets, secret, form):
    signed = sign(packets(10), secret)
    status, found, err = verified(signed.take([2, 3, 7]), form)
    assert (status, found) == (0, [(3, "gap"), (8, "gap")])
    assert err == "3 packets of 1 nodes, 2 gaps: every signature and every chain holds"


@pytest.mark.parametrize("form", [".parquet", ""])
def test_every_failure_is_a_line(verified, packets, secret, tmp_path, form):
    stranger = make_site(tmp_path / "elsewhere", "site-x")
    fork = forked(secret, tmp_path / "fork", packets(4, 50))
    signed = sign(packets(6), secret)
    altered = signed.slice(3, 1).set_column(7, "metric_delta", pa.array([0.5], pa.float32()))
    forged = pa.Table.from_batches([changed(signed.slice(4, 1), metric_delta=0.5)])
    unsigned = pa.Table.from_batches([changed(signed.slice(5, 1), signature=None, key_id=None)])
    foreign = sign(packets(1, node_id="site-x"), stranger)
    parts = [signed.slice(0, 2), fork.slice(1, 2), altered, forged, unsigned, foreign]
    status, found, err = verified(pa.concat_tables(parts), form)
    assert status == 1
    assert sorted(found, key=str) == sorted(
        [
            (2, "equivocation"),
            (2, "chain"),
            (4, "packet"),
            (5, "signature"),
            (6, "signature"),
            (1, "signature"),
        ],
        key=str,
    )
    assert err == "qis: PATH: 6 findings against 8 packets of 2 nodes, 0 gaps"


def test_a_broken_chain_is_found(verified, packets, secret, tmp_path):
    fork = forked(secret, tmp_path / "fork", packets(3, 50))
    signed = sign(packets(3), secret)
    status, found, _ = verified(pa.concat_tables([signed.slice(0, 1), fork.slice(1, 2)]))
    assert (status, found) == (1, [(2, "chain")])


def test_the_whole_way(qis, tmp_path, secret, packets):
    """A key, a signed deposit, an equivocation and its evidence, the packet table, the audit log; by the commands."""
    assert qis("key", "site b", "--out", tmp_path / "b")[0] == 0
    (tmp_path / "keys" / "site%20b.pub").write_bytes((tmp_path / "b" / "site%20b.pub").read_bytes())
    mine, theirs = tmp_path / "mine.parquet", tmp_path / "theirs.parquet"
    pq.write_table(packets(3), mine)
    pq.write_table(packets(2, node_id="site b"), theirs)
    fork = forked(secret, tmp_path / "fork", packets(1, 50))
    with Router(tmp_path / "store", "grpc://127.0.0.1:0", keys=tmp_path / "keys") as router:
        status, _, err = qis("deposit", mine, "--router", router.url)
        assert (status, err) == (
            1,
            "qis: field 'signature', row 0: is missing: this router takes signed packets only\n",
        )
        deposit = ("deposit", mine, "--router", router.url, "--key", secret)
        assert qis(*deposit)[2] == "3 packets stored, 0 were there already\n"
        assert qis(*deposit)[2] == "0 packets stored, 3 were there already\n"
        assert qis("deposit", theirs, "--router", router.url, "--key", tmp_path / "b")[0] == 0
        with pytest.raises(pa.ArrowException):
            put(router.url, fork)
        evidence = tmp_path / "evidence.parquet"
        listed = json.loads(qis("quarantine", "--router", router.url, "--out", evidence, "--format", "json")[1])
        assert [(row["node_id"], row["sequence"]) for row in listed] == [("site-a", 1)]
        accumulate(router.url, tmp_path / "table")
    told = "5 packets of 2 nodes, 0 gaps: every signature and every chain holds\n"
    assert qis("verify", tmp_path / "table", "--keys", tmp_path / "keys", "--format", "json") == (0, "[]\n", told)
    status, out, _ = qis("verify", evidence, "--keys", tmp_path / "keys", "--format", "json")
    assert status == 1
    assert [row["finding"] for row in json.loads(out)] == ["equivocation"]
    assert qis("audit", "verify", tmp_path / "store" / "audit")[0] == 0


def test_mistakes_are_one_line(qis, tmp_path, secret, packets):
    pq.write_table(pa.Table.from_pylist([], schema=OUTCOME_PACKET_SCHEMA), tmp_path / "none.parquet")
    assert qis("verify", tmp_path / "none.parquet", "--keys", secret.parent)[0] == 0
    assert qis("verify", tmp_path / "none.parquet", "--keys", tmp_path / "nowhere")[0] == 1
    assert qis("verify", tmp_path, "--keys", secret.parent)[2].startswith(f"qis: no packet table at {tmp_path}")
    pq.write_table(packets(1), tmp_path / "bare.parquet")
    assert qis("verify", tmp_path / "bare.parquet", "--keys", secret.parent, "--format", "json")[0] == 1
