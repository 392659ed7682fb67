"""The certificates of a network: its authority's own, its router's, and one for each member.

Their keys are of the curve P-256, which every TLS library takes; gRPC built on BoringSSL refuses Ed25519 there.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from qis_connectors.errors import QisError

ROUTER_NAME = "router.qis"
"""What the certificate of every network's router is made out to; whose router it is, the authority says."""

AUTHORITY_LIFE = timedelta(days=3650)
LIFE = timedelta(days=365)
"""Of a certificate of the router or a member."""

_BEFORE = timedelta(minutes=5)
"""A certificate is good a little before it was made: clocks differ."""

_Loaded = TypeVar("_Loaded")


class IdentityError(QisError):
    """A bundle or a network's folder that cannot be used; the text names the file."""


@dataclass(frozen=True)
class Authority:
    """What signs a network's certificates."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def network(self) -> str:
        return network_of(self.certificate)

    def certify_router(self, life: timedelta = LIFE) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
        """For the router, wherever it listens: members ask for ROUTER_NAME and trust no authority but this one."""
        return self._certify("router", x509.DNSName(ROUTER_NAME), ExtendedKeyUsageOID.SERVER_AUTH, life)

    def certify_member(
        self, name: str, identity: str, life: timedelta = LIFE
    ) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
        """For the member that the URI `identity` names. It is good for calling, and not for being called."""
        uri = x509.UniformResourceIdentifier(identity)
        return self._certify(name, uri, ExtendedKeyUsageOID.CLIENT_AUTH, life)

    def _certify(
        self, subject: str, name: x509.GeneralName, usage: ObjectIdentifier, life: timedelta
    ) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
        key = generate_private_key(SECP256R1())
        # One name: pyarrow shows a handler the first there is, and nothing else of a certificate.
        builder = (
            _builder(subject, key, self.certificate.subject, self.key, life)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()), key


def new_authority(network: str) -> Authority:
    key = generate_private_key(SECP256R1())
    builder = (
        _builder(network, key, _name(network), key, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def load_authority(certificate: Path, key: Path) -> Authority:
    """IdentityError, in one line, where one of the files is missing or not what it should be."""
    loaded = load_pem(key, lambda text: load_pem_private_key(text, None))
    if not isinstance(loaded, EllipticCurvePrivateKey):
        raise IdentityError(f"{key}: is not the key of a network's authority")
    return Authority(load_pem(certificate, x509.load_pem_x509_certificate), loaded)


def load_pem(path: Path, load: Callable[[bytes], _Loaded]) -> _Loaded:
    """What `load` makes of a PEM file; IdentityError, without a word of what is in it, where that is nothing."""
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise IdentityError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(f"{path}: is not what its name says, or is damaged") from None


def network_of(authority: x509.Certificate) -> str:
    """The name of the network that an authority's certificate stands for."""
    (name,) = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def router_tls(folder: Path) -> dict[str, Any]:
    """The options of a Flight server that is the router of the network in `folder`, and takes its members' calls only.

    IdentityError, in one line, where a file is missing or the certificate has expired.
    """
    certificate = load_pem(folder / "router" / "cert.pem", x509.load_pem_x509_certificate)
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise IdentityError(f"{folder}: the router's certificate has expired; qis network rotate router makes another")
    load_pem(folder / "router" / "key.pem", lambda text: load_pem_private_key(text, None))
    authority, cert, key = ((folder / name).read_bytes() for name in ("ca.pem", "router/cert.pem", "router/key.pem"))
    return {"tls_certificates": [(cert, key)], "verify_client": True, "root_certificates": authority}


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, base64url without padding: the x5t#S256 of RFC 8705."""
    return urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: str,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    life: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + life) - _BEFORE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in uses for name in _KEY_USES})


_KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
