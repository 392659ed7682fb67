"""Ed25519 keys of the sites: NODE.key is a site's own secret, NODE.pub is for everybody. Both are PEM files.

NODE is the node_id, percent-encoded as in an address. A .pub file may hold several keys, one after the other: after a
change of keys the old one still checks what it has signed.
"""

import logging
import os
import re
from hashlib import sha256
from pathlib import Path
from time import monotonic
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from qis_connectors.errors import QisError

LOOK_SECONDS = 1.0
"""So often, at most, the folder of public keys is looked at for changes."""

_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)
logger = logging.getLogger(__name__)


class KeyFileError(QisError):
    """A file or folder of keys cannot be read or written, or does not hold what it should."""


def make_key(node_id: str, folder: Path) -> tuple[Path, Path]:
    """A new secret NODE.key (0600) in the folder, and its NODE.pub; KeyFileError where one is there already."""
    if not node_id.strip() or node_id in (".", ".."):
        raise KeyFileError(f"{node_id!r} is no node_id")
    key = Ed25519PrivateKey.generate()
    secret, public = (folder / f"{quote(node_id, safe='')}{suffix}" for suffix in (".key", ".pub"))
    contents = (
        (secret, 0o600, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        (public, 0o644, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    )
    for path in (secret, public):
        if path.exists():
            raise KeyFileError(f"{path}: is there already; what it has signed needs it")
    for path, mode, content in contents:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from None
    return secret, public


def key_id(key: Ed25519PublicKey) -> str:
    """The first 64 bits of SHA-256 of the raw public key, in hex."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def secret_key(path: Path) -> Ed25519PrivateKey:
    """KeyFileError where the file is none, or may be read by others than its owner."""
    try:
        content, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise KeyFileError(f"{path}: others than its owner may read this key; chmod 600 it")
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):  # its text may quote the file
        raise KeyFileError(f"{path}: is no secret key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: is not an Ed25519 key")
    return key


class PublicKeys:
    """Those of all sites, in a folder; what is put there, changed or taken away counts a second later.

    KeyFileError where the folder cannot be read or a file of it is none; later such a file's keys are gone, and logged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._state()
        self._use(self._loaded(self._seen, strict=True))
        self._looked = monotonic()

    def find(self, node_id: str, key_id: str | None) -> Ed25519PublicKey | None:
        """The key of this site with this fingerprint."""
        if monotonic() - self._looked > LOOK_SECONDS:
            self._looked = monotonic()
            if (state := self._state()) != self._seen:
                self._seen = state
                self._use(self._loaded(state, strict=False))
        return self._keys.get((node_id, key_id or ""))

    def knows(self, node_id: str) -> bool:
        """Whether the site has any key here."""
        return node_id in self._nodes

    def _use(self, found: list[tuple[tuple[str, str], Ed25519PublicKey]]) -> None:
        self._keys = dict(found)
        self._nodes = {node_id for node_id, _ in self._keys}

    def _state(self) -> list[tuple[str, int, int]]:
        try:
            found = ((path.name, path.stat()) for path in sorted(self._folder.iterdir()) if path.suffix == ".pub")
            return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in found]
        except OSError as error:
            raise KeyFileError(f"{self._folder}: {error.strerror}") from None

    def _loaded(
        self, state: list[tuple[str, int, int]], *, strict: bool
    ) -> list[tuple[tuple[str, str], Ed25519PublicKey]]:
        found = []
        for name, _, _ in state:
            try:
                keys = public_keys(self._folder / name)
            except KeyFileError as error:
                if strict:
                    raise
                logger.error("%s; what this site signs is refused", error)
                continue
            found += [((unquote(name.removesuffix(".pub")), key_id(key)), key) for key in keys]
        return found


def public_keys(path: Path) -> list[Ed25519PublicKey]:
    """All of a .pub file; KeyFileError where it holds none, or one that is not Ed25519."""
    try:
        blocks = _BLOCK.findall(path.read_bytes())
        keys = [load_pem_public_key(block) for block in blocks]
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except ValueError:
        keys = []
    found = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not found or len(found) < len(keys):
        raise KeyFileError(f"{path}: is no file of Ed25519 public keys in PEM")
    return found
