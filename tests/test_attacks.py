"""What a router of a network refuses, over real TLS: whoever is no member, and whoever speaks for another."""

import json
import time
from contextlib import closing
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from pyarrow import flight
from strict_calls import call, deposit, refused

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.network import folder
from qis_connectors.network.certificates import load_authority
from qis_connectors.network.identity import Identity
from qis_connectors.network.tokens import mint
from qis_connectors.packet import PacketError
from qis_connectors.router import Router

HERE = "clinical.tuberculosis/bcg_vaccine"


def test_a_member_comes_in(strict, site_a):
    assert call(strict, site_a.tls(), site_a.token())["status"] == "ok"


@pytest.mark.parametrize("given", [(), ("tls_root_certs", "override_hostname")])
def test_no_certificate(strict, site_a, given):
    with pytest.raises(flight.FlightUnavailableError):
        call(strict, {name: site_a.tls()[name] for name in given}, site_a.token())


def test_no_tls(strict):
    with flight.connect(strict.url.replace("+tls", "")) as client, pytest.raises(flight.FlightUnavailableError):
        list(client.do_action(flight.Action("health", b""), flight.FlightCallOptions(timeout=5)))


def test_a_certificate_of_another_authority(strict, site_a, tmp_path):
    """Of a network that has the same name, and a site of the same name."""
    other = folder.init(tmp_path / "elsewhere", "network")
    theirs = Identity(other.add("site-a"))
    mixed = theirs.tls() | {"tls_root_certs": site_a.tls()["tls_root_certs"]}
    with pytest.raises(flight.FlightUnavailableError):
        call(strict, mixed, theirs.token())


def test_a_router_of_another_network_is_not_believed(strict, tmp_path):
    theirs = folder.init(tmp_path / "elsewhere", "network").add("site-a")
    with pytest.raises(QisError, match="is not the router of your network"):
        RouterClient(strict.url, theirs)


def test_an_expired_certificate(strict, network, site_a):
    old = network.rotate("site-a", timedelta(days=-1))
    files = {name: (old / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem")}
    tls = site_a.tls() | {"cert_chain": files["cert.pem"], "private_key": files["key.pem"]}
    with pytest.raises(flight.FlightUnavailableError):
        call(strict, tls, site_a.token())
    with pytest.raises(QisError, match=r"cert\.pem: expired on .*qis network rotate"):
        RouterClient(strict.url, old)


def test_a_certificate_that_expires_while_it_is_connected(strict, network):
    """TLS looks when it connects. Here it is the members' list that says so, a year too early."""
    with RouterClient(strict.url, network.bundle("site-a")) as client:
        assert client.head() == 0
        members = json.loads(network.members.read_text())
        members["site-a"]["expires"] = int(time.time()) - 1
        network.members.write_text(json.dumps(members))
        with pytest.raises(QisError, match="the certificate of site-a has expired"):
            client.head()


def test_the_routers_own_certificate_calls_nobody(strict, network, site_a):
    cert, key = ((network.folder / "router" / name).read_bytes() for name in ("cert.pem", "key.pem"))
    with pytest.raises(flight.FlightUnavailableError):
        call(strict, site_a.tls() | {"cert_chain": cert, "private_key": key}, site_a.token())


def test_a_members_certificate_is_no_routers(network, site_a, tmp_path):
    for name in ("cert.pem", "key.pem"):
        (network.folder / "router" / name).write_bytes((network.bundle("site-b") / name).read_bytes())
    with (
        Router(tmp_path / "fake", "grpc+tls://127.0.0.1:0", network=network.folder) as fake,
        pytest.raises(QisError, match="is not the router of your network"),
    ):
        RouterClient(fake.url, site_a.folder)


def test_one_that_the_authority_made_for_somebody_who_is_no_member(strict, network, site_a):
    authority = load_authority(network.folder / "ca.pem", network.folder / "ca.key.pem")
    certificate, key = authority.certify_member("site-a", "spiffe://network/site/site-a/../site-b")
    tls = site_a.tls() | {
        "cert_chain": certificate.public_bytes(Encoding.PEM),
        "private_key": folder._private(key),
    }
    refused(strict, tls, site_a.token(), "is no member of the network")


def test_revoked(strict, network, site_a):
    with RouterClient(strict.url, site_a.folder) as client:
        network.revoke("site-a")
        refused(strict, site_a.tls(), site_a.token(), "site-a is no member of the network")
        with pytest.raises(QisError, match=r"refuses: .*is no member"):
            client.addresses()


def test_rotated_away(strict, network, site_a):
    """The old certificate is good for a year, as far as TLS knows."""
    new = Identity(network.rotate("site-a"))
    refused(strict, site_a.tls(), site_a.token(), "not one that this member signed with its current key")
    refused(strict, site_a.tls(), mint(site_a._proof, new._key), "goes with another certificate")
    assert call(strict, new.tls(), new.token())["status"] == "ok"


def test_nothing_is_deposited_under_a_foreign_node_id(strict, site_b, packets):
    with RouterClient(strict.url, site_b.folder) as client:
        transaction = client.transaction()
        for send in (client.deposit, transaction.deposit, lambda table: transaction.deposit(table, f"{HERE}/deeper")):
            for rows in (1, 5000):
                with pytest.raises(QisError, match="'site-a' is not the 'site-b' of the certificate"):
                    send(packets(rows))
        mixed = packets(2, node_id="site-b").slice(1).to_pylist() + packets(1).to_pylist()
        with pytest.raises(QisError, match="'node_id', row 1"):
            client.deposit(packets(1).from_pylist(mixed, schema=packets(1).schema))
        transaction.commit()
        assert client.head() == 0
        assert client.deposit(packets(3, node_id="site-b")).stored == 3


TRICKS = (
    "clinical.x/../y",
    "./x",
    "a.b//y",
    "/etc/passwd",
    "a/%2e%2e",
    "a/b%2fc",
    "a/b\x00c",
    "a/%00%",
    "*/*",
    ".\\/..",
)


def test_path_tricks_in_addresses(strict, site_a, packets):
    why = "empty or dotted segment|is not percent-encoded|has no problem type|is not a text"
    with RouterClient(strict.url, site_a.folder) as client:
        for name in TRICKS:
            with pytest.raises(flight.FlightError, match=why):
                deposit(client._client, flight.FlightDescriptor.for_path(name), packets(1))
            with pytest.raises(QisError, match=why):
                client.transaction().deposit(packets(1), name)
        assert client.head() == 0


def test_nobody_ends_the_transaction_of_another(strict, site_a, site_b, packets):
    with RouterClient(strict.url, site_a.folder) as ours, RouterClient(strict.url, site_b.folder) as theirs:
        begun = ours.transaction()
        begun.deposit(packets(2))
        joined = theirs.transaction(begun.id)
        for end in (joined.commit, joined.abort, lambda: joined.deposit(packets(1, node_id="site-b"))):
            with pytest.raises(QisError, match="was begun by another member"):
                end()
        assert begun.commit().stored == 2


def test_a_transaction_is_its_beginners_across_a_restart(network, site_a, site_b, packets, tmp_path):
    store, listen = tmp_path / "store", "grpc+tls://127.0.0.1:0"
    with (
        Router(store, listen, network=network.folder) as router,
        RouterClient(router.url, site_a.folder) as client,
    ):
        begun = client.transaction()
        begun.deposit(packets(2))
    with (
        Router(store, listen, network=network.folder) as router,
        RouterClient(router.url, site_a.folder) as ours,
        RouterClient(router.url, site_b.folder) as theirs,
    ):
        with pytest.raises(QisError, match="was begun by another member"):
            theirs.transaction(begun.id).commit()
        assert ours.transaction(begun.id).commit().stored == 2


def test_a_packet_error_is_still_one(strict, site_a, packets):
    with RouterClient(strict.url, site_a.folder) as client, pytest.raises(PacketError, match="confidence"):
        client.deposit(packets(1, confidence=2.0))


def test_open_streams_end_when_the_member_is_none_any_more(strict, network, site_a, site_b, packets):
    with (
        RouterClient(strict.url, site_a.folder) as client,
        RouterClient(strict.url, site_b.folder) as other,
        closing(other.watch("*")) as news,
    ):
        client.deposit(packets(1))
        assert next(news).table.num_rows == 1
        network.revoke("site-b")
        time.sleep(1.1)
        client.deposit(packets(1, 1))
        with pytest.raises(QisError, match="site-b is no member"):
            next(news)
