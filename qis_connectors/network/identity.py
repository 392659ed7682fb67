"""Who one is in a network: a bundle, the folder that its operator has handed over.

ca.pem        the network's authority; nobody but its router is talked to
cert.pem      the member's certificate, which names it: spiffe://NETWORK/site/NODE
key.pem       the certificate's key
signing.pem   an Ed25519 key, which signs the member's tokens
"""

import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from qis_connectors.network.certificates import ROUTER_NAME, IdentityError, load_pem, network_of, thumbprint
from qis_connectors.network.tokens import LIFE_SECONDS, Proof, mint


class Identity:
    """The bundle in `folder`. IdentityError, in one line, where it cannot be used or its certificate has expired.

    May be shared by threads. Neither its repr nor its errors have anything of a key or a token in them.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "cert.pem").exists():
            raise IdentityError(
                f"{self.folder}: is no bundle, it has no cert.pem; an operator makes them as bundles/NAME"
            )
        authority = load_pem(self.folder / "ca.pem", x509.load_pem_x509_certificate)
        certificate = load_pem(self.folder / "cert.pem", x509.load_pem_x509_certificate)
        signing = load_pem(self.folder / "signing.pem", lambda text: load_pem_private_key(text, None))
        load_pem(self.folder / "key.pem", lambda text: load_pem_private_key(text, None))
        if not isinstance(signing, Ed25519PrivateKey):
            raise IdentityError(f"{self.folder / 'signing.pem'}: is not an Ed25519 key")
        if certificate.not_valid_after_utc < datetime.now(UTC):
            raise IdentityError(
                f"{self.folder / 'cert.pem'}: expired on {certificate.not_valid_after_utc:%Y-%m-%d}; "
                "ask the network's operator for a new bundle (qis network rotate)"
            )
        self.uri = _uri_of(certificate, self.folder / "cert.pem")
        self.network = network_of(authority)
        self._key = signing
        self._proof = Proof(self.uri, self.network, thumbprint(certificate))
        self._token, self._renew = "", 0.0

    @property
    def name(self) -> str:
        """The member's: the node_id of what it deposits."""
        return self.uri.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"Identity({self.uri!r})"

    def token(self) -> str:
        """One that is good for some minutes more."""
        now = time.time()  # which goes on while a machine sleeps
        if now >= self._renew:
            self._token, self._renew = mint(self._proof, self._key), now + LIFE_SECONDS / 2
        return self._token

    def tls(self) -> dict[str, str | bytes]:
        """The options of pyarrow.flight.connect that prove this identity, and let it talk to its own router only."""
        ca, cert, key = ((self.folder / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
        return {"tls_root_certs": ca, "cert_chain": cert, "private_key": key, "override_hostname": ROUTER_NAME}


def _uri_of(certificate: x509.Certificate, path: Path) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        raise IdentityError(f"{path}: names no member of a network") from None
    return str(uri)
