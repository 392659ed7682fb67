"""Addresses: where a packet goes, `domain/problem_type[/...]`, the same in every connector.

A segment keeps ASCII letters, digits and ``-._~``; every other byte of its UTF-8 form is percent-encoded, so an
address never holds a glob character and a pattern can be told from an address by looking at it.
"""

import re
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property, lru_cache
from urllib.parse import quote, unquote

import pyarrow as pa

from qis_connectors.errors import QisError

MAX_BYTES = 512
_GLOB = re.compile(r"[*?\[]")


class AddressError(QisError):
    """Not an address; the text names the segment or byte that is wrong."""


def of(domain: str, problem_type: str, *rest: str) -> str:
    """The address of a problem, each part percent-encoded where needed.

    Raises AddressError on an empty part, on ``.`` and ``..``, and beyond MAX_BYTES.
    """
    return check("/".join(quote(part, safe="") for part in (domain, problem_type, *rest)))


_cached = lru_cache(maxsize=4096)(of)


def check(address: str) -> str:
    """The address itself if it is one; otherwise AddressError."""
    if len(address) > MAX_BYTES:
        raise AddressError(f"address is {len(address)} bytes long; at most {MAX_BYTES} are allowed")
    segments = address.split("/")
    if len(segments) < 2:
        raise AddressError(f"address {address!r} has no problem type; it is written domain/problem_type")
    for segment in segments:
        if segment in ("", ".", ".."):
            raise AddressError(f"address {address!r} has an empty or dotted segment {segment!r}")
        if _decode(segment) is None:
            raise AddressError(f"segment {segment!r} of address {address!r} is not percent-encoded UTF-8")
    return address


def parts(address: str) -> tuple[str, ...]:
    """Domain, problem type and what follows, decoded."""
    return tuple(unquote(segment) for segment in check(address).split("/"))


def column(domain: pa.Array, problem_type: pa.Array) -> pa.Array:
    """`of` for whole columns of equal length: a string array of addresses."""
    pairs = zip(domain.to_pylist(), problem_type.to_pylist(), strict=True)
    return pa.array([_cached(*pair) for pair in pairs], pa.string())


def _decode(segment: str) -> str | None:
    try:
        decoded = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        return None
    return decoded if quote(decoded, safe="") == segment else None


@dataclass(frozen=True)
class Pattern:
    """What a reader asks for.

    ``clinical.*`` (any of ``*?[``) is a glob over whole addresses; ``clinical.tuberculosis`` or a trailing ``/`` is a
    prefix of whole segments; everything else is one exact address. Of what it covers only that counts which one of
    `grants` covers too, where there are any.
    """

    text: str
    grants: tuple["Pattern", ...] | None = None

    def __post_init__(self) -> None:
        if not self.text:
            raise AddressError("address is empty; write domain/problem_type, a prefix or a glob such as '*'")
        if len(self.text) > MAX_BYTES:
            raise AddressError(f"address pattern is {len(self.text)} bytes long; at most {MAX_BYTES} are allowed")
        if not self.is_glob:
            check(self._folder + "x" if self.is_prefix else self.text)

    @property
    def is_glob(self) -> bool:
        return bool(_GLOB.search(self.text))

    @property
    def is_prefix(self) -> bool:
        return not self.is_glob and (self.text.endswith("/") or "/" not in self.text)

    @property
    def is_exact(self) -> bool:
        return not (self.is_glob or self.is_prefix)

    @property
    def _folder(self) -> str:
        return self.text.removesuffix("/") + "/"

    @cached_property
    def _glob(self) -> re.Pattern[str]:
        return re.compile(translate(self.text))

    def within(self, grants: tuple["Pattern", ...]) -> "Pattern":
        """The part of it that these patterns cover."""
        return self if any(one.text in ("*", self.text) for one in grants) else replace(self, grants=grants)

    def matches(self, address: str) -> bool:
        if self.grants is not None and not any(one.matches(address) for one in self.grants):
            return False
        if self.is_glob:
            return self._glob.match(address) is not None
        if self.is_prefix:
            return address.startswith(self._folder)
        return address == self.text
