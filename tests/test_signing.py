"""What a site signs: a chain that anybody can check, and that is the same again after a crash."""

import json
import struct
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from multiprocessing import get_context

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from signed_packets import changed, make_site

from qis_connectors import keys, packet
from qis_connectors.chain import places
from qis_connectors.keys import KeyFileError, PublicKeys, make_key, public_keys
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError, ipc_bytes
from qis_connectors.packet_id import canonical_forms, packet_ids
from qis_connectors.signing import faults, sign, verify


@pytest.fixture
def secret(tmp_path):
    return make_site(tmp_path)


@pytest.fixture
def known(tmp_path, secret):  # noqa: ARG001 - whose public key it is
    return PublicKeys(tmp_path / "keys")


def batch_of(table):
    return table.combine_chunks().to_batches()[0]


def test_what_is_signed_is_what_the_documentation_says(packets, secret):
    """Written anew from the words of chain.py and packet_id.py, with cryptography alone."""
    first, second = (batch_of(sign(packets(1, at), secret)).to_pylist()[0] for at in (0, 1))
    (public,) = public_keys(secret.with_suffix(".pub"))
    assert first["key_id"] == second["key_id"] == sha256(public.public_bytes_raw()).hexdigest()[:16]
    assert (first["sequence"], second["sequence"]) == (1, 2)
    previous = bytes(32)
    for one in (first, second):
        texts = ["node_id", "domain", "problem_type", "model_architecture", "training_phase", "metric_name"]
        texts += ["intervention_type", "intervention_params", "raw_data_hash"]
        content = [one[name].encode() for name in texts]
        numbers = [one[name] for name in ("timestamp_utc", "metric_delta", "metric_value", "confidence")]
        form = struct.pack("<q3ff", *numbers, float("nan"))
        form += struct.pack("<bi", one["outcome_decile"], one["sample_count"])
        form += struct.pack("<11i", *map(len, content), -1, -1) + b"".join(content)
        message = b"qis packet 1\0" + previous + struct.pack("<q", one["sequence"]) + form
        assert one["signature"][:32] == previous
        public.verify(one["signature"][32:], message)
        previous = sha256(message).digest()


def test_each_packet_can_be_checked_by_itself(packets, secret, known):
    signed = batch_of(sign(packets(100), secret))
    verify(signed, known)
    for row in (0, 1, 57, 99):
        verify(signed.slice(row, 1), known)
    assert signed["sequence"].to_pylist() == list(range(1, 101))


@pytest.mark.parametrize("rows", [1, 60])
def test_the_canonical_form_is_the_same_from_lists_and_from_columns(packets, rows):
    batch = changed(packets(rows), context='{"latitude":44}', likelihood=[0.5], metric_stderr=0.25)
    columns = {name: batch[name].to_pylist() for name in batch.schema.names}
    forms = canonical_forms(batch)
    assert packet_ids(columns) == [sha256(form).hexdigest()[:32] for form in forms] == batch["packet_id"].to_pylist()


def test_a_packet_that_is_signed_again_is_the_same_packet(packets, secret):
    signed = sign(packets(5), secret)
    assert sign(packets(5), secret).equals(signed)
    more = sign(packets(8), secret)
    assert more.slice(0, 5).equals(signed)
    assert more["sequence"].to_pylist() == list(range(1, 9))
    assert sign(signed.slice(2, 1), secret).equals(signed.slice(2, 1))


def test_processes_of_a_site_sign_in_turn(packets, secret, known):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        signed = list(pool.map(sign, [packets(5, 100 * at) for at in range(8)], [secret] * 8))
    whole = pa.concat_tables(signed).sort_by("sequence")
    verify(batch_of(whole), known)
    assert whole["sequence"].to_pylist() == list(range(1, 41))


def test_the_same_packet_twice_in_a_table_has_one_place(packets, secret):
    signed = sign(pa.concat_tables([packets(1), packets(2)]), secret)
    assert signed["sequence"].to_pylist() == [1, 1, 2]
    assert signed.slice(0, 1).equals(signed.slice(1, 1))


def test_a_folder_of_keys_signs_for_each_of_its_nodes(packets, tmp_path):
    for node_id in ("site-a", "site b/c"):
        make_key(node_id, tmp_path / "keys")
    table = pa.concat_tables([packets(1, at, node_id=node) for at, node in enumerate(["site-a", "site b/c"] * 3)])
    signed = sign(table, tmp_path / "keys")
    assert signed["node_id"].to_pylist() == ["site-a", "site b/c"] * 3
    assert signed["sequence"].to_pylist() == [1, 1, 2, 2, 3, 3]
    verify(batch_of(signed), PublicKeys(tmp_path / "keys"))
    with pytest.raises(KeyFileError, match=r"site-x\.key: No such file"):
        sign(packets(1, node_id="site-x"), tmp_path / "keys")


def test_one_key_is_one_nodes(packets, secret):
    sign(packets(1), secret)
    with pytest.raises(PacketError, match=r"'site-b' is not 'site-a', whose key site-a\.key is"):
        sign(packets(1, node_id="site-b"), secret)


def test_nothing_is_signed_of_what_is_no_packet(packets, secret):
    with pytest.raises(PacketError, match=r"'intervention_params', row 0: .* makes the packet \d+ bytes; at most 512 "):
        sign(packets(1, intervention_params=json.dumps({"c": "x" * 150})), secret)
    with pytest.raises(PacketError, match="'confidence', row 1"):
        sign(pa.concat_tables([packets(1), packets(1, 1, confidence=2.0)]), secret)
    assert sign(packets(1), secret)["sequence"].to_pylist() == [1]


def test_a_new_key_goes_on_with_the_chain(packets, secret, tmp_path):
    signed = [sign(packets(1), secret)]
    secret.unlink()
    new, public = make_key("site-a", tmp_path / "new")
    secret.write_bytes(new.read_bytes())
    secret.chmod(0o600)
    both = tmp_path / "keys" / "site-a.pub"
    both.write_bytes(both.read_bytes() + public.read_bytes())
    signed.append(sign(packets(1, 1), secret))
    verify(batch_of(pa.concat_tables(signed)), PublicKeys(tmp_path / "keys"))
    assert [one["sequence"].to_pylist() for one in signed] == [[1], [2]]
    assert len({one["key_id"][0].as_py() for one in signed}) == 2


def test_a_key_that_others_may_read_is_not_used(packets, secret):
    secret.chmod(0o640)
    with pytest.raises(KeyFileError, match=r"others than its owner may read this key; chmod 600 it$"):
        sign(packets(1), secret)


def test_files_that_are_no_keys_are_named(packets, secret, tmp_path):
    with pytest.raises(KeyFileError, match="is there already"):
        make_key("site-a", secret.parent)
    with pytest.raises(KeyFileError, match="is no node_id"):
        make_key("..", tmp_path)
    secret.write_text("secret words")
    with pytest.raises(KeyFileError, match=r"site-a\.key: is no secret key in PEM") as error:
        sign(packets(1), secret)
    assert "words" not in str(error.value)
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secret.write_bytes(other)
    with pytest.raises(KeyFileError, match="is not an Ed25519 key"):
        sign(packets(1), secret)
    (tmp_path / "keys" / "site-z.pub").write_text("nothing")
    with pytest.raises(KeyFileError, match=r"site-z\.pub: is no file of Ed25519 public keys"):
        PublicKeys(tmp_path / "keys")
    with pytest.raises(KeyFileError, match="No such file"):
        PublicKeys(tmp_path / "nowhere")


def test_a_damaged_chain_signs_nothing(packets, secret):
    secret.with_suffix(".chain").write_bytes(b"not a database" * 100)
    with pytest.raises(KeyFileError, match=r"site-a\.chain: cannot be used"):
        sign(packets(1), secret)


def test_keys_that_come_and_go_count_soon(packets, known, tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0)
    make_site(tmp_path, "site-b")
    mine = batch_of(sign(packets(1), tmp_path / "home of site-a"))
    theirs = batch_of(sign(packets(1, node_id="site-b"), tmp_path / "home of site-b"))
    verify(theirs, known)
    (tmp_path / "keys" / "site-a.pub").write_text("not a key any more")
    assert [fault.field for fault in faults(mine, places(mine), known)] == ["key_id"]
    verify(theirs, known)


def test_a_signed_packet_keeps_its_limit_on_the_wire(packets, secret):
    """384 bytes of content, signed, and 64 more of likelihood: what the limits were made for."""
    signed = sign(packets(1000, metric_name="n" * 15), secret)
    assert ipc_bytes(batch_of(signed)) / 1000 <= packet.MAX_BYTES
    rows = [{**row, "packet_id": None, "likelihood": [0.5] * 8} for row in signed.to_pylist()]
    with_likelihood = sign(pa.Table.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA), secret)
    assert ipc_bytes(batch_of(with_likelihood)) / 1000 <= packet.MAX_BYTES_WITH_LIKELIHOOD
