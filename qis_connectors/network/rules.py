"""What a network's folder says now: its members, and what each may do. Holds no secret."""

import json
import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from qis_connectors.errors import QisError
from qis_connectors.network import policy
from qis_connectors.network.certificates import IdentityError
from qis_connectors.network.policy import Grants

_SETTLED_NS = 50_000_000
"""A file that was changed less than this before it was read may change again without another time stamp."""

_UNREADABLE = (QisError, OSError, ValueError, KeyError, TypeError)
_Said = TypeVar("_Said")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """`certificate` is the thumbprint of its current one, which ends at `expires` (seconds since 1970)."""

    name: str
    certificate: str
    signing_key: Ed25519PublicKey
    expires: int


class Rules:
    """Those of the network in `folder`; IdentityError, in one line, where they cannot be read to begin with."""

    def __init__(self, folder: Path) -> None:
        self._members = _Watched(folder / "members.json", _members)
        self._policy = _Watched(folder / "policy.yaml", policy.parse)

    def member(self, identity: str) -> Member | None:
        """Who that is now."""
        return self._members.now().get(identity)

    def grants(self, name: str) -> Grants:
        """What a member may do now."""
        return self._policy.now().get(name, Grants())


class _Watched(Generic[_Said]):
    """A file, read when it changes. Where it says nothing that makes sense, what it said before goes on to hold."""

    def __init__(self, path: Path, parse: Callable[[str], _Said]) -> None:
        self._path, self._parse = path, parse
        self._seen, self._mistake = self._look(), ""
        try:
            self._said = parse(path.read_text(encoding="utf-8"))
        except _UNREADABLE as error:
            raise IdentityError(f"{path}: {error}") from None

    def now(self) -> _Said:
        found = self._look()
        if found != self._seen:
            try:
                self._said, self._mistake = self._parse(self._path.read_text(encoding="utf-8")), ""
            except _UNREADABLE as error:
                if str(error) != self._mistake:
                    logger.error("%s: %s; what it said before goes on to hold", self._path, error)
                self._mistake = str(error)
            self._seen = found
        return self._said

    def _look(self) -> tuple[int, ...]:
        """Another one where the file has been written to since."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        just_now = time.time_ns() - found.st_mtime_ns < _SETTLED_NS
        return found.st_mtime_ns, found.st_ino, found.st_size, time.time_ns() if just_now else 0


def _members(text: str) -> dict[str, Member]:
    """Identity -> member."""
    return {
        entry["identity"]: Member(
            name,
            entry["certificate"],
            Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(entry["signing_key"])),
            entry["expires"],
        )
        for name, entry in json.loads(text).items()
    }
