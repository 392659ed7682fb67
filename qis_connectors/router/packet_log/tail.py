"""The tail of the log: what is in the journal and not in a pack yet, in memory."""

from collections.abc import Sequence
from threading import Lock

from qis_connectors.router.packet_log.chunk import SPAN, Chunk, concatenated

MERGE = 16
"""This many small neighbours become one, sixteen of those one again: a packet is copied three times in all."""
_TIERS = (16, 256, 4096)


class Tail:
    """`chunks` in the order of their cursors. Whoever reads takes them before looking at the packs: what leaves here
    is there already.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = tuple(chunks)
        self._changing = Lock()

    def append(self, chunk: Chunk) -> None:
        with self._changing:
            self.chunks = (*self.chunks, chunk)

    def merge(self, after: int) -> None:
        """Make few chunks of many small ones behind the cursor `after`. For the thread that appends."""
        while count := due_for_merge(sizes_of(self.chunks, after)):
            merged = concatenated(self.chunks[-count:])
            with self._changing:
                self.chunks = (*self.chunks[:-count], merged)

    def drop(self, upto: int) -> None:
        """What is in packs now."""
        with self._changing:
            self.chunks = tuple(chunk for chunk in self.chunks if chunk.first > upto)


def sizes_of(chunks: Sequence[Chunk], after: int) -> list[int]:
    """Rows of the newest chunks, newest first, that may be merged with each other."""
    sizes: list[int] = []
    following = chunks[-1].last + 1
    for chunk in reversed(chunks[-(MERGE * len(_TIERS)) :]):
        is_apart = chunk.last + 1 != following or (sizes and following % SPAN == 0)
        if chunk.first <= after or is_apart:
            break
        sizes.append(chunk.packets.num_rows)
        following = chunk.first
    return sizes


def due_for_merge(newest_first: Sequence[int]) -> int:
    """How many of the newest chunks to make one, given their row counts: neighbours only, so that order is kept."""
    below = 0
    for limit in _TIERS:
        small = next((at for at, rows in enumerate(newest_first) if rows >= limit), len(newest_first))
        if small - below >= MERGE:
            return small
        below = small
    return 0
