"""What a router of a network refuses, over real TLS: whoever is no member, and whoever speaks for another."""

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import closing
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.network import folder
from qis_connectors.network.certificates import load_authority
from qis_connectors.network.identity import Identity
from qis_connectors.network.tokens import mint
from qis_connectors.packet import PacketError
from qis_connectors.router import Router

HERE = "clinical.tuberculosis/bcg_vaccine"


@pytest.fixture
def site_a(network):
    return Identity(network.bundle("site-a"))


@pytest.fixture
def site_b(network):
    return Identity(network.bundle("site-b"))


def call(router, tls, token=None):
    """The router's health, asked for with what a stranger may bring along."""
    headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    options = flight.FlightCallOptions(timeout=5, headers=headers)
    with flight.connect(router.url, **tls) as client:
        (answer,) = client.do_action(flight.Action("health", b""), options)
        return json.loads(answer.body.to_pybytes())


def refused(router, tls, token, why):
    with pytest.raises(flight.FlightUnauthenticatedError, match=why):
        call(router, tls, token)


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
    brief = Identity(network.rotate("site-a", timedelta(seconds=2)))
    options = flight.FlightCallOptions(timeout=5, headers=[(b"authorization", b"Bearer " + brief.token().encode())])
    with flight.connect(strict.url, **brief.tls()) as client:
        list(client.do_action(flight.Action("health", b""), options))
        time.sleep(2.1)
        with pytest.raises(flight.FlightUnauthenticatedError, match="the certificate of site-a has expired"):
            list(client.do_action(flight.Action("health", b""), options))


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


def test_the_token_of_another_certificate(strict, site_a, site_b):
    refused(strict, site_b.tls(), site_a.token(), "site-b: the token is not one that this member signed")
    both = mint(site_a._proof, site_b._key)
    refused(strict, site_b.tls(), both, "site-b: the token is another member's")
    call(strict, site_a.tls(), site_a.token())  # now the router knows it: it still is nobody else's
    refused(strict, site_b.tls(), site_a.token(), "site-b: the token is not one that this member signed")


def altered(token, part, **changes):
    parts = token.split(".")
    fields = json.loads(urlsafe_b64decode(parts[part] + "=="))
    parts[part] = urlsafe_b64encode(json.dumps(fields | changes).encode()).rstrip(b"=").decode()
    return ".".join(parts)


def test_altered_tokens(strict, site_a):
    good = site_a.token()
    public = site_a._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    claims = jwt.decode(good, options={"verify_signature": False})
    forged = [
        "",
        "x",
        "a.b.c",
        good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        good.rpartition(".")[0] + ".",
        altered(good, 1, exp=int(time.time()) + 500),
        altered(good, 1, sub="spiffe://network/site/site-b"),
        altered(good, 0, alg="none"),
        altered(good, 0, alg="HS256"),
        altered(good, 0, kid="other"),
        jwt.encode(claims, None, "none"),
        jwt.encode(claims, public, "HS256"),
        jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA"),
    ]
    for token in forged:
        refused(strict, site_a.tls(), token, "has sent no token|not one that this member signed")
    refused(strict, site_a.tls(), None, "site-a has sent no token")
    assert call(strict, site_a.tls(), good)["status"] == "ok"


def test_tokens_that_are_signed_and_still_none(strict, site_a):
    claims = jwt.decode(site_a.token(), options={"verify_signature": False})
    now = int(time.time())
    for changes, why in (
        ({"exp": now - 100, "iat": now - 200}, "expired"),
        ({"iat": now + 200, "exp": now + 300}, "not good yet"),
        ({"exp": now + 3600}, "longer than 600 seconds"),
        ({"aud": "elsewhere"}, "another network"),
        ({"cnf": {"x5t#S256": "A" * 43}}, "another certificate"),
        ({"iat": {}}, "signed with its current key"),
        ({"exp": None}, "signed with its current key"),
    ):
        refused(strict, site_a.tls(), jwt.encode(claims | changes, site_a._key, "EdDSA"), why)


def test_no_call_goes_without_a_token(strict, site_a, packets):
    """Each RPC that tells or takes anything."""
    path = flight.FlightDescriptor.for_path(HERE)
    with flight.connect(strict.url, **site_a.tls()) as client:
        calls = (
            lambda: client.do_get(flight.Ticket(HERE)).read_all(),
            lambda: list(client.list_flights()),
            lambda: client.get_flight_info(path),
            lambda: list(client.do_action(flight.Action("stats", b""))),
            lambda: client.list_actions(),
            lambda: client.do_exchange(path)[1].read_chunk(),
            lambda: deposit(client, path, packets(1)),
        )
        for one in calls:
            with pytest.raises(flight.FlightUnauthenticatedError, match="site-a has sent no token"):
                one()
        assert client.get_schema(path).schema.names[0] == "node_id"  # which the README has told already
    assert strict._packets.head == 0


def deposit(client, descriptor, table):
    writer, _ = client.do_put(descriptor, table.schema)
    with writer:
        writer.write_table(table)


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


@pytest.mark.parametrize("name", TRICKS)
def test_path_tricks_in_addresses(strict, site_a, packets, name):
    with RouterClient(strict.url, site_a.folder) as client:
        why = "empty or dotted segment|is not percent-encoded|has no problem type|is not a text"
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


def test_secrets_are_in_no_error_and_no_repr(strict, site_a, site_b, caplog):
    token = site_a.token()
    with pytest.raises(flight.FlightError) as error:
        call(strict, site_b.tls(), token)
    signing = (site_a.folder / "signing.pem").read_text().splitlines()[1]
    said = f"{error.value} {caplog.text} {site_a!r} {[record.__dict__ for record in caplog.records]}"
    assert [record.identity for record in caplog.records] == ["spiffe://network/site/site-b"]
    assert all(secret not in said for secret in (token, token.split(".")[2], signing))
    (site_a.folder / "signing.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{signing[:-8]}\n")
    with pytest.raises(QisError, match=r"signing\.pem: is not what its name says") as error:
        Identity(site_a.folder)
    assert signing[:-8] not in str(error.value)


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
