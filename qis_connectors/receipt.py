"""What a deposit is answered with, and its form on the wire."""

import json
from dataclasses import dataclass

from qis_connectors.errors import QisError


@dataclass(frozen=True)
class Receipt:
    """The packets are on the router's disk: `stored` new ones, `duplicates` that it had already.

    All of them stand at or before `cursor` in the router's log. Those `staged` are on the disk too, and unseen until
    their transaction is committed.
    """

    stored: int = 0
    duplicates: int = 0
    cursor: int = 0
    staged: int = 0

    def __add__(self, other: "Receipt") -> "Receipt":
        stored, duplicates = self.stored + other.stored, self.duplicates + other.duplicates
        return Receipt(stored, duplicates, max(self.cursor, other.cursor), self.staged + other.staged)

    def encode(self) -> bytes:
        text = b'"stored": %d, "duplicates": %d, "cursor": %d' % (self.stored, self.duplicates, self.cursor)
        # Clients outside transactions need not know of it.
        return b'{%s, "staged": %d}' % (text, self.staged) if self.staged else b"{%s}" % text


def decode(message: bytes) -> Receipt:
    """The receipt in an acknowledgement; QisError where the router reports a failure instead."""
    fields = json.loads(message)
    if "error" in fields:
        raise QisError(str(fields["error"]))
    return Receipt(fields["stored"], fields["duplicates"], fields["cursor"], fields.get("staged", 0))


def encode_failure(line: str) -> bytes:
    """An acknowledgement's place taken by a failure that the stream's end cannot report in time."""
    return json.dumps({"error": line}).encode()
