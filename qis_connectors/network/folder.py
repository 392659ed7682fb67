"""The folder of a network, which its operator keeps and its router reads.

    ca.pem         the authority's certificate
    ca.key.pem     its key: needed to add and to rotate, not to run a router, so it may be kept elsewhere meanwhile
    router/        what the router proves itself with
    members.json   who is a member now: certificate, key and expiry of each; nothing secret
    keys/NAME.pub  every Ed25519 key a member has had, the newest last: what it has signed can be checked for ever
    policy.yaml    who may do what, for people to read and write
    bundles/NAME/  what each member is to be given, and may then be deleted here

Files with keys in them are readable by their owner only.
"""

import fcntl
import json
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from qis_connectors.network import policy
from qis_connectors.network.certificates import (
    LIFE,
    Authority,
    IdentityError,
    certificate_pem,
    load_authority,
    new_authority,
    thumbprint,
)

OPERATOR = "operator"
ROUTER = "router"
_NETWORK = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")


class NetworkFolder:
    """The network in `folder`, for its operator. IdentityError, in one line, where something is not as it should be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not self.members.is_file():
            raise IdentityError(f"{folder}: holds no network; qis network init makes one")

    @property
    def members(self) -> Path:
        return self.folder / "members.json"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.yaml"

    def bundle(self, name: str) -> Path:
        """What a member is to be given."""
        return self.folder / "bundles" / name

    def add(self, name: str, life: timedelta = LIFE) -> Path:
        """A new member's bundle. It may read, and deposit under its own name, anywhere, if the policy says nothing."""
        _check_node(name)
        with self._changing() as members:
            if name in members:
                raise IdentityError(f"{name} is a member already; qis network rotate {name} gives it new keys")
            text = policy.with_member(self._policy_text(), name, policy.SITE_GRANTS)
            members[name] = self._issue(name, life)
            _replace(self.policy, text.encode())
        return self.bundle(name)

    def rotate(self, name: str, life: timedelta = LIFE) -> Path:
        """New keys and a new certificate for a member, whose old ones are refused from now on, or for the router."""
        if name == ROUTER:
            return self._certify_router(life)
        with self._changing() as members:
            _check_member(members, name)
            members[name] = self._issue(name, life)
        return self.bundle(name)

    def revoke(self, name: str) -> None:
        """The member is none any more, from now on, and the policy forgets it."""
        if name == OPERATOR:
            raise IdentityError(f"the {OPERATOR} stays a member; qis network rotate {OPERATOR} gives it new keys")
        with self._changing() as members:
            _check_member(members, name)
            del members[name]
        # Only now: a mistake in the policy keeps nobody in.
        try:
            with self._changing():
                _replace(self.policy, policy.without_member(self._policy_text(), name).encode())
        except IdentityError as error:
            raise IdentityError(f"{name} is no member any more; its lines stay, for {error}") from None

    def _issue(self, name: str, life: timedelta) -> dict[str, Any]:
        """A bundle, and what the router is to know of it."""
        authority = self._authority()
        place = OPERATOR if name == OPERATOR else f"site/{name}"
        identity = f"spiffe://{authority.network}/{place}"
        certificate, key = authority.certify_member(name, identity, life)
        signing = Ed25519PrivateKey.generate()
        bundle = self.bundle(name)
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(bundle / "ca.pem", certificate_pem(authority.certificate))
        _replace(bundle / "cert.pem", certificate_pem(certificate))
        _replace(bundle / "key.pem", _private(key))
        _replace(bundle / "signing.pem", _private(signing))
        public = signing.public_key()
        keys = self.folder / "keys" / f"{name}.pub"
        keys.parent.mkdir(exist_ok=True)
        known = keys.read_bytes() if keys.exists() else b""
        _replace(keys, known + public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return {
            "identity": identity,
            "certificate": thumbprint(certificate),
            "signing_key": urlsafe_b64encode(public.public_bytes_raw()).decode(),
            "expires": int(certificate.not_valid_after_utc.timestamp()),
        }

    def _certify_router(self, life: timedelta = LIFE) -> Path:
        certificate, key = self._authority().certify_router(life)
        folder = self.folder / ROUTER
        folder.mkdir(mode=0o700, exist_ok=True)
        _replace(folder / "cert.pem", certificate_pem(certificate))
        _replace(folder / "key.pem", _private(key))
        return folder

    def _authority(self) -> Authority:
        return load_authority(self.folder / "ca.pem", self.folder / "ca.key.pem")

    def _policy_text(self) -> str:
        return self.policy.read_text(encoding="utf-8")

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The members, to be changed by one process at a time; what the block leaves of them holds from its end on."""
        with self.members.with_name("lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            members = json.loads(self.members.read_text(encoding="utf-8"))
            try:
                yield members
            except policy.PolicyError as error:
                raise IdentityError(f"{self.policy}: {error}") from None
            _replace(self.members, json.dumps(members, indent=1).encode())


def init(folder: Path, network: str | None = None, life: timedelta = LIFE) -> NetworkFolder:
    """A new network, called like its folder if not otherwise, with an operator's bundle and no site yet."""
    name = folder.resolve().name.lower() if network is None else network
    if not _NETWORK.fullmatch(name):
        raise IdentityError(f"{name!r:.80} is no name for a network: small letters, digits, '.' and '-', at most 63")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise IdentityError(f"{folder}: is there already, and not empty")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = new_authority(name)
    _replace(folder / "ca.pem", certificate_pem(authority.certificate))
    _replace(folder / "ca.key.pem", _private(authority.key))
    _replace(folder / "policy.yaml", policy.with_member(policy.HEAD, OPERATOR, policy.OPERATOR_GRANTS).encode())
    _replace(folder / "members.json", b"{}")
    made = NetworkFolder(folder)
    made._certify_router(life)
    with made._changing() as members:
        members[OPERATOR] = made._issue(OPERATOR, life)
    return made


def _check_node(name: str) -> None:
    if name in (OPERATOR, ROUTER) or not _NODE.fullmatch(name):
        raise IdentityError(
            f"{name!r:.80} is no name for a site: letters, digits, '.', '_' and '-', at most 64, and neither "
            f"{OPERATOR} nor {ROUTER}"
        )


def _check_member(members: dict[str, Any], name: str) -> None:
    if name not in members:
        raise IdentityError(f"{name!r:.80} is no member; there are {', '.join(sorted(members))}")


def _private(key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _replace(path: Path, content: bytes) -> None:
    """Never half there, and never readable by anybody else, not for a moment."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
