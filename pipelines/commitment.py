"""A site's commitment to the rows behind a packet: it can be opened for an auditor, and by nobody else."""

import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qis_connectors.errors import QisError

SALT_BYTES = 32


class SaltError(QisError):
    """The site's salt cannot be read or made."""


@dataclass(frozen=True)
class Opening:
    """What a commitment was made of: the salt in hex, and sorted JSON arrays: distinct rows with their multiplicity."""

    salt: str
    rows: list[str]


_openings: ContextVar[dict[str, Opening] | None] = ContextVar("openings", default=None)


def commit(rows: Sequence[tuple[Any, ...]], salt: bytes) -> str:
    """HMAC-SHA256 (hex) of the rows under the salt: the same rows in any order, from any engine, give the same.

    `rows` are distinct rows, each with its multiplicity last; canonical is one JSON array a row, sorted. The key keeps
    a table of few possible rows from being guessed and tried.
    """
    canonical = sorted(json.dumps(row, ensure_ascii=False, default=str) for row in rows)
    committed = commitment(canonical, salt)
    if (openings := _openings.get()) is not None:
        openings[committed] = Opening(salt.hex(), canonical)
    return committed


def commitment(canonical: Sequence[str], salt: bytes) -> str:
    """Of rows in their canonical form: what whoever is shown them and the salt compares."""
    return hmac.digest(salt, "\n".join(canonical).encode(), "sha256").hex()


@contextmanager
def opening() -> Iterator[dict[str, Opening]]:
    """The openings of all commitments that are made in the block, by commitment."""
    found: dict[str, Opening] = {}
    token = _openings.set(found)
    try:
        yield found
    finally:
        _openings.reset(token)


def salt_of(rows: Path) -> bytes:
    """The secret salt kept beside a site's rows, made at first use, readable by its owner only."""
    path = rows.with_name(rows.name + ".salt")
    try:
        if not path.exists():
            _create(path)
        salt = path.read_bytes()
    except OSError as error:
        raise SaltError(f"{path}: {error.strerror}") from None
    if len(salt) != SALT_BYTES:
        raise SaltError(f"{path}: a salt is {SALT_BYTES} bytes, this is {len(salt)}; restore it, or earlier packets "
                        "can no longer be audited")  # fmt: skip
    return salt


def _create(path: Path) -> None:
    """Written aside and linked into place, so that neither a crash nor a second process leaves half a salt."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SALT_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first; its salt is the one
    finally:
        draft.unlink()
