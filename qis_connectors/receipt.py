"""What a deposit is answered with, and its form on the wire."""

import json
from dataclasses import dataclass

from qis_connectors.errors import QisError


@dataclass(frozen=True)
class Receipt:
    """The packets are on the router's disk: `stored` new ones, `duplicates` that it had already.

    All of them stand at or before `cursor` in the router's log.
    """

    stored: int = 0
    duplicates: int = 0
    cursor: int = 0

    def __add__(self, other: "Receipt") -> "Receipt":
        stored, duplicates = self.stored + other.stored, self.duplicates + other.duplicates
        return Receipt(stored, duplicates, max(self.cursor, other.cursor))

    def encode(self) -> bytes:
        return b'{"stored": %d, "duplicates": %d, "cursor": %d}' % (self.stored, self.duplicates, self.cursor)


def decode(message: bytes) -> Receipt:
    """The receipt in an acknowledgement; QisError where the router reports a failure instead."""
    fields = json.loads(message)
    if "error" in fields:
        raise QisError(str(fields["error"]))
    return Receipt(fields["stored"], fields["duplicates"], fields["cursor"])


def encode_failure(line: str) -> bytes:
    """An acknowledgement's place taken by a failure that the stream's end cannot report in time."""
    return json.dumps({"error": line}).encode()
