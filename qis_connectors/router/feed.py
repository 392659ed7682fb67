"""What has just been stored, still in memory, for the readers that wait for it.

Readers of the same share one channel: what a commit group holds for them is put together once, as one batch. Nothing
is queued for a single reader. Each has a cursor of its own, and one that falls behind what the feed still holds goes
to the store for it, so a reader that is slow, or has stopped, holds up nobody and fills no memory.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Condition, Lock

import pyarrow as pa

from qis_connectors.request import Request

MAX_BYTES = 16 << 20
"""What all channels together keep."""

MERGE_ROWS = 1024
"""A reader that is several groups behind gets them as one batch of about this many rows at most."""

_BATCH_BYTES = 8 << 10  # what Arrow's own objects take for a batch of 22 columns, however few its rows


@dataclass
class _Group:
    """What one commit group holds for one channel."""

    cursor: int
    _batches: list[pa.RecordBatch]

    @property
    def batch(self) -> pa.RecordBatch:
        if len(self._batches) > 1:
            # Left to the first reader's thread, for the log's has others to serve; two at once do no harm.
            self._batches = [pa.concat_batches(self._batches)]
        return self._batches[0]


class Channel:
    """What readers with one and the same request get to see."""

    def __init__(self, request: Request, feed: "Feed") -> None:
        self.request = request
        self._feed = feed
        self._groups: deque[_Group] = deque()
        self._floor = feed.head
        self._changed = Condition(feed.lock)

    @property
    def is_over(self) -> bool:
        return self._feed.is_closed

    def after(self, position: int, seconds: float) -> tuple[list[pa.RecordBatch], int] | None:
        """The batches stored after `position`, some of them where there are many, and the cursor they lead to.

        Waits for so long at most; with nothing new the cursor is the end of what was looked through. None where the
        feed does not reach back to `position`: the store has what comes next.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_past(position) or self._feed.is_closed, seconds)
            if self._floor > position:
                return None
            groups: list[_Group] = []
            for group in reversed(self._groups):
                if group.cursor <= position:
                    break
                groups.append(group)
            if not groups:
                return [], max(position, self._feed.head)
        batches, rows = [], 0
        while groups and rows < MERGE_ROWS:
            group = groups.pop()
            batches.append(group.batch)
            rows += group.batch.num_rows
        return batches, group.cursor

    def put(self, stored: Sequence[tuple[str, pa.RecordBatch]], cursor: int) -> int:
        """Take over what matches; the bytes it keeps alive. For the feed, which holds the lock."""
        names = list(self.request.columns)
        batches = [batch for address, batch in stored if self.request.pattern.matches(address)]
        if not batches:
            return 0
        if names != batches[0].schema.names:
            batches = [batch.select(names) for batch in batches]
        self._groups.append(_Group(cursor, batches))
        self._changed.notify_all()
        return sum(batch.get_total_buffer_size() + _BATCH_BYTES for batch in batches)

    def drop(self, cursor: int) -> None:
        """Forget the groups up to `cursor`. For the feed, which holds the lock."""
        while self._groups and self._groups[0].cursor <= cursor:
            self._floor = self._groups.popleft().cursor

    def wake(self) -> None:
        self._changed.notify_all()

    def _is_past(self, position: int) -> bool:
        return self._floor > position or (bool(self._groups) and self._groups[-1].cursor > position)


class Feed:
    """From the log's thread to the readers' threads, from the cursor `head` on."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.is_closed = False
        self.lock = Lock()
        self._channels: dict[Request, Channel] = {}
        self._readers: Counter[Request] = Counter()
        self._kept: deque[tuple[Channel, int, int]] = deque()  # channel, cursor, bytes; oldest first
        self._kept_bytes = 0

    @contextmanager
    def channel(self, request: Request) -> Iterator[Channel]:
        """The channel of this request, whatever its `since`, while a reader is there."""
        key = replace(request, since=0)
        with self.lock:
            channel = self._channels.setdefault(key, Channel(key, self))
            self._readers[key] += 1
        try:
            yield channel
        finally:
            with self.lock:
                self._readers[key] -= 1
                if not self._readers[key]:
                    del self._readers[key], self._channels[key]
                    channel.drop(self.head)

    def publish(self, stored: Sequence[tuple[str, pa.RecordBatch]], head: int) -> None:
        """One commit group: its new packets with their addresses in the order of their cursors, the last one `head`."""
        with self.lock:
            self.head = head
            for channel in self._channels.values():
                if size := channel.put(stored, head):
                    self._kept.append((channel, head, size))
                    self._kept_bytes += size
            while self._kept_bytes > MAX_BYTES:
                channel, cursor, size = self._kept.popleft()
                channel.drop(cursor)
                self._kept_bytes -= size

    def close(self) -> None:
        """Nothing more will come; whoever waits need not."""
        with self.lock:
            self.is_closed = True
            for channel in self._channels.values():
                channel.wake()
