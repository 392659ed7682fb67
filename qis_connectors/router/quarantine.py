"""Evidence: packets that contradict what their own node has signed before, each beside the one it contradicts.

Nobody reads them as packets. A JSON object a line in quarantine.jsonl in the store's folder, both packets with all
their fields: whoever has the node's public key can check that it has signed them both.
"""

import json
import logging
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from qis_connectors import address
from qis_connectors.address import Pattern
from qis_connectors.filters import Condition, Group
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router.packet_log.chains import ChainError
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.reading import read

MAX_OF_A_NODE = 100
"""Further ones of the same node are refused like these and not kept: the node is known for what it is."""

logger = logging.getLogger(__name__)


class Quarantine:
    """Of one store."""

    def __init__(self, log: PacketLog) -> None:
        self._log = log
        self._path = log.store.folder / "quarantine.jsonl"
        self._lock = Lock()
        known = [entry["refused"] for entry in self.entries()]
        self._known = {_identity(packet) for packet in known}
        self._of_node = Counter(packet["node_id"] for packet in known)

    def keep(self, error: ChainError) -> None:
        """The packet that was refused and the stored one it contradicts, once, on the disk when this returns."""
        (refused,) = error.packet.to_pylist()
        with self._lock:
            if _identity(refused) in self._known or self._of_node[refused["node_id"]] >= MAX_OF_A_NODE:
                return
            self._known.add(_identity(refused))
            self._of_node[refused["node_id"]] += 1
        rival = self._stored(refused, error.rival) if error.beside is None else _plain(error.beside.to_pylist()[0])
        entry = {
            "at": datetime.now(UTC).isoformat(),
            "why": str(error),
            "refused": _plain(refused),
            "stored": rival,
        }
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        try:
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(line if self._is_whole() else f"\n{line}")
                file.flush()
                os.fsync(file.fileno())
        except OSError as failure:
            logger.error("evidence cannot be kept: %s", failure.strerror)

    @property
    def count(self) -> int:
        return len(self._known)

    def entries(self) -> list[dict[str, Any]]:
        """`at`, `why`, `refused` and `stored`: packets as JSON, bytes in hex. `stored` is the one that is contradicted,
        None where it was let go; it is not stored either where both came in one batch.
        """
        return list(_entries(self._path))

    def _is_whole(self) -> bool:
        """Whether the file ends with a line, as it does unless a crash came in between."""
        return self._path.read_bytes()[-1:] in (b"", b"\n")

    def _stored(self, refused: dict[str, Any], sequence: int) -> dict[str, Any] | None:
        """The packet that stands at this sequence of the node: most likely at the same address."""
        where = Group(
            "and", (Condition("node_id", "=", (refused["node_id"],)), Condition("sequence", "=", (sequence,)))
        )
        for pattern in (address.of(refused["domain"], refused["problem_type"]), "*"):
            for batch, _ in read(self._log, Pattern(pattern), OUTCOME_PACKET_SCHEMA.names, limit=1, where=where):
                if batch.num_rows:
                    return _plain(batch.to_pylist()[0])
        return None


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # torn by a crash
            logger.warning("%s: a line is no entry and is passed over", path)
    return found


def _identity(packet: dict[str, Any]) -> tuple[str, int, str]:
    return packet["node_id"], packet["sequence"], packet["packet_id"]


def _plain(packet: dict[str, Any]) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in packet.items()}
