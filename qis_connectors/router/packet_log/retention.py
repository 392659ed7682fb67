"""Retention: what a store lets go of, by age and by size. Nothing, unless its operator says so.

What has gone is remembered as seen: the same packet sent once more is a duplicate.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple, cast

import apsw

from qis_connectors.router.packet_log.chunk import CURSOR
from qis_connectors.router.packet_log.packs import Packs
from qis_connectors.router.packet_log.record import DamagedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """Packets are kept for so many days after they were stored, and of each address the newest, up to so many bytes."""

    days: float | None = None
    bytes_per_address: int | None = None


KEEP_ALL = Retention()


class _Run(NamedTuple):
    address: int
    first: int
    packets: int
    bytes: int
    pack: int
    position: int
    start: int
    kept: int


def expire(writer: apsw.Connection, packs: Packs, retention: Retention, now: float) -> int:
    """Take what is over its time or beyond its room out of the catalogue; how many packets that were."""
    gone = 0
    if retention.days is not None:
        gone += _expire(writer, packs, _too_old(writer, packs, now - 86_400 * retention.days))
    if retention.bytes_per_address is not None:
        gone += _expire(writer, packs, _too_many(writer, retention.bytes_per_address))
    if gone:
        logger.info("%d packets were let go, as the store's retention says", gone)
    return gone


def _too_old(writer: apsw.Connection, packs: Packs, before: float) -> list[_Run]:
    """Runs with packets that were stored before this time, and how many younger ones each has."""
    cursor = writer.execute("SELECT max(upto) FROM flush WHERE at < ?", (before,)).get
    if cursor is None:
        return []
    writer.execute("DELETE FROM flush WHERE upto < ?", (cursor,))
    rows = writer.execute(
        "SELECT address, first, packets, bytes, pack, position, start, last FROM run WHERE first <= ?", (cursor,)
    ).fetchall()
    runs = [(_Run._make((*row[:7], 0)), row[7]) for row in cast(list[tuple[int, ...]], rows)]
    upto = cast(int, cursor)
    return [run if last <= upto else run._replace(kept=_behind(packs, run, upto)) for run, last in runs]


def _too_many(writer: apsw.Connection, limit: int) -> list[_Run]:
    """Runs with packets beyond so many bytes of their address, newest first, and how many of each are within."""
    rows = writer.execute(
        """
        SELECT address, first, packets, bytes, pack, position, start,
               max(0, packets * (? - (newer - bytes)) / bytes)
        FROM (SELECT *, sum(bytes) OVER (PARTITION BY address ORDER BY first DESC) AS newer FROM run)
        WHERE newer > ?
        """,
        (limit, limit),
    ).fetchall()
    return [_Run(*row) for row in cast(list[tuple[int, ...]], rows)]


def _expire(writer: apsw.Connection, packs: Packs, runs: list[_Run]) -> int:
    for run in runs:
        key = (run.address, run.first)
        if not run.kept:
            writer.execute("DELETE FROM run WHERE address = ? AND first = ?", key)
            continue
        less = run.packets - run.kept
        kept = packs.read(run.pack, run.position).slice(run.start + less, run.kept)
        times = kept["timestamp_utc"].to_numpy()
        writer.execute(
            "UPDATE run SET first = ?, packets = ?, bytes = ?, start = ?, first_time = ?, last_time = ? "
            "WHERE address = ? AND first = ?",
            (
                kept[CURSOR][0].as_py(),
                run.kept,
                run.bytes * run.kept // run.packets,
                run.start + less,
                int(times.min()),
                int(times.max()),
                *key,
            ),
        )
    return sum(run.packets - run.kept for run in runs)


def _behind(packs: Packs, run: _Run, cursor: int) -> int:
    """How many packets of the run come after the cursor."""
    try:
        cursors = packs.read(run.pack, run.position)[CURSOR].to_numpy()[run.start : run.start + run.packets]
    except DamagedError:
        return 0
    return int((cursors > cursor).sum())
