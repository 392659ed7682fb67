"""The folder of a network and the commands that keep it."""

import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pyarrow import feather

from qis_connectors.errors import QisError
from qis_connectors.network.identity import Identity
from qis_connectors.router import Router


def test_an_operator_makes_a_network_and_a_site_joins_it(qis, tmp_path, packets, monkeypatch):
    """All from the command line."""
    net, file = tmp_path / "trials", tmp_path / "packets.arrow"
    status, out, err = qis("network", "init", net, "--site", "site-a")
    assert (status, out) == (0, "")
    assert str(net / "bundles" / "site-a") in err
    assert qis("network", "add", "site-b", "--network", net)[0] == 0
    feather.write_feather(packets(3, node_id="site-b"), file, compression="uncompressed")
    with Router(tmp_path / "store", "grpc+tls://127.0.0.1:0", network=net) as router:
        status, _, err = qis("deposit", file, "--router", router.url)
        assert (status, err.count("\n")) == (1, 1)
        assert "asks who you are: name your bundle's folder as the identity, or in QIS_IDENTITY" in err
        status, _, err = qis("deposit", file, "--router", router.url, "--identity", net / "bundles" / "site-a")
        assert (status, err.count("\n")) == (1, 1)
        assert "'site-b' is not the 'site-a' of the certificate it is deposited under" in err
        monkeypatch.setenv("QIS_IDENTITY", str(net / "bundles" / "site-b"))
        assert qis("deposit", file, "--router", router.url)[::2] == (0, "3 packets stored, 0 were there already\n")
        (row,) = json.loads(qis("addresses", "--router", router.url, "--format", "json")[1])
        assert row["packets"] == 3
        assert len(json.loads(qis("query", "*", "--router", router.url, "--format", "json")[1])) == 3
        assert "3 new packets" in qis("accumulate", "--router", router.url, "--table", tmp_path / "table")[2]
        assert qis("token")[1].count(".") == 2
        assert qis("network", "revoke", "site-b", "--network", net)[0] == 0
        status, _, err = qis("query", "*", "--router", router.url)
        assert (status, err.count("\n")) == (1, 1)
        assert "spiffe://trials/site/site-b is no member of the network trials, or not any more" in err
        assert qis("network", "add", "site-b", "--network", net)[0] == 0
        assert qis("network", "rotate", "site-b", "--network", net)[0] == 0
        assert qis("query", "*", "--router", router.url)[0] == 0


def test_private_files_are_their_owners(network):
    for path in network.folder.rglob("*"):
        if path.is_file() and b"PRIVATE" in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    keys = {path.name for path in network.folder.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()}
    assert keys == {"ca.key.pem", "key.pem", "signing.pem"}
    network.rotate("site-a")
    network.rotate("router")
    for path in (network.bundle("site-a"), network.folder / "router"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((path / "key.pem").stat().st_mode) == 0o600


def test_a_certificate_names_its_member_and_nothing_else(network):
    certificate = x509.load_pem_x509_certificate((network.bundle("site-a") / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["spiffe://network/site/site-a"]
    identity = Identity(network.bundle("site-a"))
    assert (identity.name, identity.network, identity.uri) == ("site-a", "network", "spiffe://network/site/site-a")
    assert Identity(network.bundle("operator")).uri == "spiffe://network/operator"


def test_the_keys_a_member_has_had_are_kept(network):
    had = []
    for bundle in (lambda: network.bundle("site-a"), lambda: network.rotate("site-a")):
        key = load_pem_private_key((bundle() / "signing.pem").read_bytes(), None).public_key()
        had.append(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    network.revoke("site-a")
    assert (network.folder / "keys" / "site-a.pub").read_bytes() == b"".join(had)


def test_who_runs_the_router_needs_no_key_of_the_authority(network, tmp_path):
    (network.folder / "ca.key.pem").rename(tmp_path / "safe")
    with Router(tmp_path / "store", "grpc+tls://127.0.0.1:0", network=network.folder) as router:
        assert router.url.startswith("grpc+tls://")
        network.revoke("site-a")
        with pytest.raises(QisError, match=r"ca\.key\.pem: no such file"):
            network.add("site-c")
        assert "site-c" not in network.policy.read_text()


def test_operators_may_work_side_by_side(network):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(network.add, [f"site-{n}" for n in range(16)]))
    assert len(json.loads(network.members.read_text())) == 19
    assert network.policy.read_text().count("deposit: ") == 18


def test_names_that_are_none(network):
    for name in ("", "..", "a/b", "-a", "a b", "operator", "router", "x" * 65, "é", "a\n", "a."):
        with pytest.raises(QisError, match="is no name for a site"):
            network.add(name)
        with pytest.raises(QisError, match=r"is no member|stays a member"):
            network.revoke(name)


def test_mistakes_are_one_line(qis, network, tmp_path):
    net = network.folder
    for arguments, line in (
        (("network", "init", net), f"{net}: is there already, and not empty"),
        (("network", "init", tmp_path / "Two Words"), "'two words' is no name for a network"),
        (("network", "add", "site-a", "--network", net), "site-a is a member already; qis network rotate site-a"),
        (("network", "add", "site-c", "--network", tmp_path), f"{tmp_path}: holds no network; qis network init"),
        (
            ("network", "revoke", "site-c", "--network", net),
            "'site-c' is no member; there are operator, site-a, site-b",
        ),
        (("router", "--network", tmp_path), f"{tmp_path / 'members.json'}: "),
        (("router", "--network", net, "--listen", "grpc://127.0.0.1:0"), "it is not written grpc+tls://HOST:PORT"),
        (("router", "--listen", "grpc+tls://127.0.0.1:0"), "TLS needs a network; qis network init makes one"),
        (("router", "--listen", "grpc://0.0.0.0:0"), "without TLS a router listens on loopback only"),
        (("addresses", "--router", "grpc://127.0.0.1:1", "--identity", net), "asks for no identity"),
        (
            ("addresses", "--router", "grpc+tls://127.0.0.1:1", "--identity", net),
            f"{net}: is no bundle, it has no cert.pem",
        ),
    ):
        status, out, err = qis(*arguments)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert line in err


def test_a_router_says_how_open_it_is(tmp_path):
    code = "import sys; from pipelines.cli import main; sys.argv[0] = 'qis'; main()"
    command = [sys.executable, "-c", code, "router", "--listen", "grpc://127.0.0.1:0", "--store", tmp_path / "store"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        process.terminate()
    assert "mode='plain: anybody on this machine, by any name'" in line
