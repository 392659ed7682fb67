"""Tokens that a router of a network refuses, though TLS has proved a member's certificate."""

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyarrow import flight
from strict_calls import call, deposit, refused

from qis_connectors.errors import QisError
from qis_connectors.network.identity import Identity
from qis_connectors.network.tokens import mint

HERE = "clinical.tuberculosis/bcg_vaccine"


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
